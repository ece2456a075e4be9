"""Meeting behind NATs: holds the binding at the resolver, dials by key, and punches when called.

Why the dialler tries several addresses at once: where the other side really is, nobody knows before
an answer came. It may be where the resolver sees it, in the same house, or, behind a symmetric NAT,
where its punch comes from. The first connection that stands wins; the others are closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import anyio
from anyio.abc import TaskGroup

from skycore.contracts.runtime import Clock, Endpoint, Entropy, Identity
from skycore.discovery.binds import is_loopback
from skycore.errors import DecodeError, DialError
from skycore.model.keys import PubKey, short
from skycore.model.sudph import (
    FOUND,
    NAT_UNKNOWN,
    NAT_WORDS,
    TOO_MANY,
    DialBack,
    Found,
    Message,
    Punch,
    Resolve,
    Where,
    decode,
    encode,
)
from transport_sudph.core.binding import Binding
from transport_sudph.core.punching import Puncher, is_target
from transport_sudph.endpoint import UdpEndpoint
from transport_sudph.stream import SudphStream

__all__ = ["Meeting"]

log = logging.getLogger(__name__)

STAGGER_S: Final = 0.25
CANDIDATES_MAX: Final = 8
PUNCHED_MAX: Final = 3
"""Of these, addresses that nobody but a punch has named."""
RESOLVE_S: Final = 0.5
RESOLVES_MAX: Final = 10
ROUNDING_S: Final = 1e-6


class _Race:
    """One dial: candidates that are tried together, until one of them answers."""

    def __init__(self, endpoint: UdpEndpoint) -> None:
        self._endpoint = endpoint
        self.tasks: TaskGroup
        self._tried: dict[Endpoint, None] = {}
        self._punched = 0
        self.winner: SudphStream | None = None
        self.failures: list[str] = []
        self.found = anyio.Event()
        self.nat = NAT_UNKNOWN
        self.refused = ""

    def add(self, to: Endpoint) -> None:
        """Try one more address, a little after the ones before it."""
        if to in self._tried or len(self._tried) >= CANDIDATES_MAX:
            return
        delay = STAGGER_S * len(self._tried)
        self._tried[to] = None
        self.tasks.start_soon(self._attempt, to, delay, name="sudph dial")

    def punched(self, sender: Endpoint) -> None:
        """Try where a punch came from: few, for each may be spoofed and gets a first flight."""
        self._punched += sender not in self._tried
        if self._punched <= PUNCHED_MAX:
            self.add(sender)

    async def _attempt(self, to: Endpoint, delay: float) -> None:
        await anyio.sleep(delay)
        try:
            stream = await self._endpoint.dial(to)
        except DialError as bad:
            self.failures.append(str(bad))
            return
        if self.winner is None:
            self.winner = stream
            self.tasks.cancel_scope.cancel()
        else:
            self._endpoint.let_go(stream.link)

    def take(self, message: Found, *, near: bool) -> None:
        """Take the resolver's answer."""
        self.nat = message.nat
        if message.status != FOUND or message.seen is None:
            many = message.status == TOO_MANY
            self.refused = "asked too often" if many else "the resolver does not know this key"
        else:
            for place in (*message.local, message.seen):
                if is_target(place.endpoint, near=near):
                    self.add(place.endpoint)
        self.found.set()


class Meeting:
    """The resolver's side of a node. Without a resolver it dials what it is given."""

    def __init__(
        self,
        endpoint: UdpEndpoint,
        identity: Identity,
        clock: Clock,
        entropy: Entropy,
        local: Callable[[str], Sequence[Where]] = lambda _: (),
    ) -> None:
        """`local`: where neighbours reach this node, by a resolver's address; for it alone."""
        self._endpoint = endpoint
        self._identity = identity
        self._clock = clock
        self._entropy = entropy
        self._local = local
        self._near = False
        self._puncher = Puncher(near=False)
        self._races: dict[bytes, _Race] = {}
        self._poked = anyio.Event()
        self.binding: Binding | None = None
        """None while no resolver is known."""
        self.unbound_at = clock.now()
        """Since when this node is not bound, where it is not."""
        self.news = anyio.Event()
        """Set, and another one put in its place, when the resolver sees this node elsewhere."""
        endpoint.control = self._take

    def use(self, resolver: Endpoint) -> None:
        """Bind at a resolver from now on, and at no other one."""
        if self.binding is not None and self.binding.resolver == resolver:
            return
        self.leave()
        self._near = is_loopback(resolver[0])
        self._puncher = Puncher(near=self._near)
        local = partial(self._local, resolver[0])
        self.binding = Binding(self._identity, resolver, local, self._entropy.bytes)
        self._poked.set()

    @property
    def is_bound(self) -> bool:
        """Whether a resolver can be asked for keys."""
        return self.binding is not None and self.binding.session is not None

    # --- the binding -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Hold the binding, for ever."""
        while True:
            binding = self.binding
            was = (binding.session is None, binding.seen) if binding else (True, None)
            if binding is not None:
                self._send(binding.tick(self._clock.now() + ROUNDING_S))  # timers come early
            self._poked = anyio.Event()
            with anyio.move_on_after(binding.next_at - self._clock.now() if binding else None):
                await self._poked.wait()
            if binding is not None and binding is self.binding:
                self._tell(binding, *was)

    def _tell(self, binding: Binding, was_unbound: bool, was_seen: Endpoint | None) -> None:
        if (binding.session is None, binding.seen) == (was_unbound, was_seen):
            return
        host, port = binding.resolver
        if binding.session is None:
            self.unbound_at = self._clock.now()
            log.warning("sudph is not bound any more resolver=%s:%d", host, port)
        else:
            log.info(
                "sudph bound resolver=%s:%d seen=%s:%d", host, port, *(binding.seen or ("", 0))
            )
        self.news.set()
        self.news = anyio.Event()

    def leave(self) -> None:
        """Tell the resolver that this node goes."""
        if self.binding is not None:
            self._send(self.binding.leave())

    def _send(self, datagrams: Sequence[tuple[bytes, Endpoint]]) -> None:
        for data, to in datagrams:
            self._endpoint.send(data, to)

    # --- control datagrams -----------------------------------------------------------------------

    def _take(self, data: bytes, sender: Endpoint) -> None:
        counters = self._endpoint.counters
        try:
            message = decode(data)
        except DecodeError as bad:
            counters[f"control_{bad.reason}"] += 1
            return
        if isinstance(message, Punch):
            counters["punch_received"] += 1
            race = self._races.get(message.request)
            if race is not None and is_target(sender, near=self._near):
                race.punched(sender)
        elif isinstance(message, DialBack):
            self._punch(message, sender)
        elif isinstance(message, Found):
            race = self._races.get(message.request)
            if race is not None and self.binding and sender == self.binding.resolver:
                race.take(message, near=self._near)
        else:
            self._take_binding(message, sender)

    def _take_binding(self, message: Message, sender: Endpoint) -> None:
        if self.binding is not None:
            was = self.binding.next_at
            self._send(self.binding.take(message, sender, self._clock.now()))
            if self.binding.next_at != was:  # most answers change nothing
                self._poked.set()

    def _punch(self, message: DialBack, sender: Endpoint) -> None:
        if self.binding is None or not self.binding.is_ours(message, sender):
            self._endpoint.counters["dial_back_foreign"] += 1
            return
        targets = [place.endpoint for place in (message.seen, *message.local)]
        punch = encode(Punch(message.request))
        for target in self._puncher.allowed(targets, self._clock.now()):
            self._endpoint.counters["punch_sent"] += 1
            self._endpoint.send(punch, target)

    # --- dialling --------------------------------------------------------------------------------

    async def dial(
        self, remote: PubKey, known: Sequence[Endpoint], *, limit_s: float
    ) -> SudphStream:
        """Open a connection to a key. Raises `DialError` with what was tried."""
        request = self._entropy.bytes(8)
        race = self._races[request] = _Race(self._endpoint)
        try:
            with anyio.move_on_after(limit_s) as limit:
                async with anyio.create_task_group() as race.tasks:
                    for to in known:
                        race.add(to)
                    if self.binding is not None:
                        await self._resolve(self.binding, race, request, remote)
        except BaseException:  # given up in the moment in which somebody answered
            if race.winner is not None:
                self._endpoint.let_go(race.winner.link)
            raise
        finally:
            del self._races[request]
        if race.winner is not None:
            return race.winner
        raise DialError(self._why(race, remote, late=limit.cancelled_caught))

    async def _resolve(self, binding: Binding, race: _Race, request: bytes, remote: PubKey) -> None:
        """Ask where the key is and let it punch, again and again, until a candidate answers."""
        for _ in range(RESOLVES_MAX):
            if binding.session is not None:
                question = Resolve(binding.session, request, remote)
                self._endpoint.send(encode(question), binding.resolver)
            await anyio.sleep(RESOLVE_S)
            if race.refused:
                return

    def _why(self, race: _Race, remote: PubKey, *, late: bool) -> str:
        tried = list(race.failures)
        binding = self.binding
        if race.refused:
            tried.append(race.refused)
        elif binding is not None and binding.session is None:
            tried.append("the resolver does not answer")
        elif late and binding is not None and race.found.is_set():
            own, other = NAT_WORDS[binding.nat], NAT_WORDS[min(race.nat, len(NAT_WORDS) - 1)]
            tried.append(f"punching failed: NAT here {own}, there {other}")
        if late and len(tried) == len(race.failures):
            tried.append(f"{short(remote)} does not answer")
        return "; ".join(tried) or f"no sudph address is known for {short(remote)}"
