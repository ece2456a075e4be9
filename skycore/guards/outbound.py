"""The dialling side: every way to a key in order, and a lookup where none leads there.

Why apart from the manager: which address is tried, for how long and what is learnt from it is one
question; which links live is another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

import anyio
from anyio.abc import TaskGroup

from skycore.contracts.security import SecureChannel, Security
from skycore.contracts.transport import DIRECT, KeyedType, RelayType, TransportType
from skycore.errors import DialError, TransportError
from skycore.guards.addresses import AddressBook
from skycore.guards.dials import Dial
from skycore.guards.inbound import close_stream
from skycore.guards.lines import Line, line_of
from skycore.guards.links import Link
from skycore.guards.resolving import Resolved, Resolver
from skycore.model.addresses import Address, Contact, join_host_port
from skycore.model.keys import PubKey, short
from skycore.model.limits import HELLO_ADDRESSES_MAX

__all__ = ["Outbound", "kinds_of"]


def kinds_of(types: Mapping[str, TransportType], kind: str | None) -> Sequence[str]:
    """Return the names of the types that a caller's `kind` stands for."""
    if kind == DIRECT:
        return [name for name, one in types.items() if not isinstance(one, RelayType)]
    return tuple(types) if kind is None else (kind,)


class Way(NamedTuple):
    """A type, and where; without an address whoever can be asked is asked for the key."""

    kind: TransportType
    addresses: tuple[Address, ...]

    @property
    def names(self) -> tuple[Address, ...]:
        """By what a try is remembered."""
        return self.addresses or (Address(self.kind.name, ""),)


NEXT_TYPE_S: Final = 0.4
"""What a direct type has before the next one is tried beside it."""
HEAD_START_S: Final = 1.0
"""What direct ways have before relayed ones are tried beside them: a host behind a NAT that drops
what comes in lets a dial wait for its whole limit, and opening two NATs takes a second."""


class _Race:
    """Types that are tried beside each other."""

    def __init__(self, work: Callable[[Sequence[Way]], Awaitable[Link | None]]) -> None:
        self._work = work
        self._links: list[Link] = []
        self._errors: list[TransportError] = []
        self._running = 0
        self._ended = anyio.Event()
        self.tasks: TaskGroup

    async def run(self, ways: Sequence[Way], wait_s: float) -> None:
        """Begin with one more type: after the wait, or once nothing runs any more."""
        with anyio.move_on_after(wait_s):
            while self._running:
                self._ended = anyio.Event()
                await self._ended.wait()
        if not self._links and not self._errors:
            self._running += 1
            self.tasks.start_soon(self._go, ways)

    async def _go(self, ways: Sequence[Way]) -> None:
        try:
            link = await self._work(ways)
        except TransportError as no_place:
            self._errors.append(no_place)
        else:
            self._links.extend([link] if link is not None else [])
        self._running -= 1
        self._ended.set()
        if self._links or self._errors:
            self.tasks.cancel_scope.cancel()

    def result(self) -> Link | None:
        """Return the first link, and close what came in the same moment. Raises `TransportError`
        where there was no place for it.
        """
        for late in self._links[1:]:
            late.close("another type of transport was there first")
        if not self._links and self._errors:
            raise self._errors[0]
        return self._links[0] if self._links else None


class Outbound:
    """Makes channels to keys. `welcome` gives a channel its place as a link."""

    def __init__(
        self,
        types: Mapping[str, TransportType],
        security: Security,
        book: AddressBook,
        resolver: Resolver,
        counters: Counter[str],
        *,
        listening: Callable[[], Sequence[Address]],
        learn: Callable[[SecureChannel, str], None],
        welcome: Callable[[str, str, SecureChannel, Line], Link],
        known_limit_s: float,
    ) -> None:
        self._types = types
        self._relays = [one for one in types.values() if isinstance(one, RelayType)]
        self._security = security
        self._book = book
        self._resolver = resolver
        self._counters = counters
        self._listening = listening
        self._learn = learn
        self._welcome = welcome
        self._known_limit_s = known_limit_s

    def check_known(self, remote: PubKey, *, look_up: bool, kind: str | None = None) -> None:
        """Raise `DialError` at once where there is no address and nobody to ask for one."""
        if self._ways(remote, kind) or (look_up and self._can_look_up):
            return
        raise _failed(remote, {}, kind=kind)

    def _ways(self, remote: bytes, kind: str | None) -> list[Way]:
        """Return what can be tried, the best address of each type first.

        A relay that can be asked is one more way of its type; a direct type that can find keys is
        given all addresses at once, and needs none.
        """
        return self._to(self._book.find(remote), kind, by_key=True)

    @property
    def _can_look_up(self) -> bool:
        return self._resolver.has_sources or bool(self._relays)

    async def dial(self, remote: PubKey, dial: Dial) -> Link:
        """Try every address until one leads to exactly this key. Raises `DialError`.

        Where somebody can be asked, known addresses have a part of the time; those that it did not
        suffice for come last. What was looked up enters the book once it has worked: were it there
        before, each new lie would push out what is true, and end the wait between dials.
        """
        tried: dict[Address, str] = {}
        dial.so_far = tried
        ways = self._ways(remote, dial.kind)
        can_ask = self._can_look_up
        with anyio.move_on_after(self._known_limit_s if can_ask else None):
            link = await self._try(remote, dial, ways, tried)
            if link is not None:
                return link
        error = _failed(remote, tried, kind=dial.kind)
        if can_ask and dial.known_failed(error):
            async with dial.without_turn():
                found = await self._look_up(remote, dial)
            fresh = self._to([a for a in found.addresses if a not in tried], dial.kind)
            ways = [*fresh, *(way for way in ways if not tried.keys() & set(way.names))]
            link = await self._try(remote, dial, ways, tried)
            if link is not None:
                return link
            error = _failed(remote, tried, found.said, kind=dial.kind)
        self._counters["dials_failed"] += 1
        raise error

    def _to(
        self, addresses: Sequence[Address], only: str | None, *, by_key: bool = False
    ) -> list[Way]:
        found: list[Way] = []
        for name in kinds_of(self._types, only):
            kind = self._types[name]
            own = tuple(a for a in addresses if a.kind == name)
            asks = by_key and isinstance(kind, KeyedType) and kind.can_ask
            if isinstance(kind, KeyedType) and not isinstance(kind, RelayType):
                found += [Way(kind, own)] if own or asks else []
            else:
                found += [Way(kind, (address,)) for address in own]
                found += [Way(kind, ())] if asks else []
        return found

    async def _look_up(self, remote: PubKey, dial: Dial) -> Resolved:
        """Ask for addresses, and relays for those through whom they reach a key, all at once."""
        found = Resolved((), "")
        relayed: list[Address] = []

        async def ask_sources() -> None:
            nonlocal found
            found = await self._resolver.look_up(remote, is_urgent=dial.label == "user")

        async def ask_relay(relay: RelayType) -> None:
            relayed.extend(await relay.find(remote))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_sources)
            wanted = kinds_of(self._types, dial.kind)
            for relay in (one for one in self._relays if one.name in wanted):
                tasks.start_soon(ask_relay, relay)
        return Resolved((*found.addresses, *relayed[:HELLO_ADDRESSES_MAX]), found.said)

    async def _try(
        self, remote: PubKey, dial: Dial, ways: Sequence[Way], tried: dict[Address, str]
    ) -> Link | None:
        """Try types beside each other, in their order: each begins a moment after the one before
        it, or at once when all before it have failed. The first link wins, the others end.
        """
        race = _Race(lambda some: self._one_by_one(remote, dial, some, tried))
        async with anyio.create_task_group() as race.tasks:
            for kind in self._types.values():
                some = [way for way in ways if way.kind is kind]
                if some:
                    await race.run(some, HEAD_START_S if kind in self._relays else NEXT_TYPE_S)
        return race.result()

    async def _one_by_one(
        self, remote: PubKey, dial: Dial, ways: Sequence[Way], tried: dict[Address, str]
    ) -> Link | None:
        for way in ways:
            tried.update(dict.fromkeys(way.names, "no answer in time"))
            try:
                channel, line = await self._secure(way, remote)
            except TransportError as bad:
                for address in way.names:
                    self._book.failed(remote, address)
                tried.update(dict.fromkeys(way.names, str(bad)))
                continue
            self._it_worked(remote, way, line)
            try:
                return self._welcome(way.kind.name, dial.label, channel, line)
            except TransportError:
                await close_stream(channel)
                raise
        return None

    def _it_worked(self, remote: PubKey, way: Way, line: Line) -> None:
        """Learn the address that led there: one that was looked up enters the book now."""
        here = join_host_port(line.host, line.port) if line.host else ""
        for address in way.addresses:
            if len(way.addresses) == 1 or address.endpoint == here:
                self._book.learn(Contact(remote, (address,)))
                self._book.worked(remote, address)

    async def _secure(self, way: Way, remote: PubKey) -> tuple[SecureChannel, Line]:
        stream = await way.kind.dial(remote, way.addresses)
        line = line_of(stream)
        try:
            channel = await self._security.outbound(stream, remote, self._listening())
        except BaseException:
            await close_stream(stream)
            raise
        self._learn(channel, line.host)
        return channel, line


def _failed(
    remote: PubKey, tried: Mapping[Address, str], said: str = "", *, kind: str | None = None
) -> DialError:
    """Say what was tried, and what was `said` of where else the key might be."""
    if not tried:
        return DialError(
            f"no {kind + ' ' if kind else ''}address is known for {short(remote)}"
            + (f" ({said})" if said else ""),
            hint=f"skynode tp add {remote.hex()} --address host:port"
            + (f" --type {kind}" if kind not in (None, DIRECT) else ""),
        )
    each = [f"{a.kind} {a.endpoint}".rstrip() + f": {why}" for a, why in tried.items()]
    return DialError(f"cannot reach {short(remote)}: " + "; ".join(each + [said] * bool(said)))
