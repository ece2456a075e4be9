"""The dialling side: every way to a key in order, and a lookup where none leads there.

Why apart from the manager: which address is tried, for how long and what is learnt from it is one
question; which links live is another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import anyio

from skycore.contracts.security import SecureChannel, Security
from skycore.contracts.transport import RelayType, TransportType
from skycore.errors import DialError, TransportError
from skycore.guards.addresses import AddressBook
from skycore.guards.dials import Dial
from skycore.guards.inbound import close_stream, host_of
from skycore.guards.links import Link
from skycore.guards.resolving import Resolved, Resolver
from skycore.model.addresses import Address, Contact
from skycore.model.keys import PubKey, short
from skycore.model.limits import HELLO_ADDRESSES_MAX

__all__ = ["Outbound"]

Way = tuple[TransportType, Address]
"""A type, and where; an empty endpoint is for a relay: whoever can be asked."""
HEAD_START_S: Final = 1.0
"""What direct ways have before relayed ones are tried beside them: a host behind a NAT that drops
what comes in lets a dial wait for its whole limit."""


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
        welcome: Callable[[str, str, SecureChannel, str], Link],
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

    def check_known(self, remote: PubKey, *, look_up: bool) -> None:
        """Raise `DialError` at once where there is no address and nobody to ask for one."""
        if self._ways(remote) or (look_up and self._can_look_up):
            return
        raise _failed(remote, {})

    def _ways(self, remote: bytes) -> list[Way]:
        """Return what can be tried, type by type, the best address of each first."""
        anybody: list[Way] = [(one, Address(one.name, "")) for one in self._relays if one.can_ask]
        return self._to(self._book.find(remote)) + anybody

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
        ways = self._ways(remote)
        can_ask = self._can_look_up
        with anyio.move_on_after(self._known_limit_s if can_ask else None):
            link = await self._try(remote, dial, ways, tried)
            if link is not None:
                return link
        error = _failed(remote, tried)
        if can_ask and dial.known_failed(error):
            found = await self._look_up(remote)
            ways = [*self._to(found.addresses), *ways]
            link = await self._try(remote, dial, [w for w in ways if w[1] not in tried], tried)
            if link is not None:
                return link
            error = _failed(remote, tried, found.said)
        self._counters["dials_failed"] += 1
        raise error

    def _to(self, addresses: Sequence[Address]) -> list[Way]:
        return [(t, a) for name, t in self._types.items() for a in addresses if a.kind == name]

    async def _look_up(self, remote: PubKey) -> Resolved:
        """Ask for addresses, and relays for those through whom they reach a key, all at once."""
        found = Resolved((), "")
        relayed: list[Address] = []

        async def ask_sources() -> None:
            nonlocal found
            found = await self._resolver.look_up(remote)

        async def ask_relay(relay: RelayType) -> None:
            relayed.extend(await relay.find(remote))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_sources)
            for relay in self._relays:
                tasks.start_soon(ask_relay, relay)
        return Resolved((*found.addresses, *relayed[:HELLO_ADDRESSES_MAX]), found.said)

    async def _try(
        self, remote: PubKey, dial: Dial, ways: Sequence[Way], tried: dict[Address, str]
    ) -> Link | None:
        """Try direct ways one by one, and relayed ones beside them after the head start."""
        direct = [way for way in ways if not isinstance(way[0], RelayType)]
        relayed = [way for way in ways if isinstance(way[0], RelayType)]
        if not direct or not relayed:
            return await self._one_by_one(remote, dial, ways, tried)
        links: list[Link] = []
        errors: list[TransportError] = []
        over = anyio.Event()

        async def go(some: Sequence[Way]) -> None:
            try:
                link = await self._one_by_one(remote, dial, some, tried)
            except TransportError as no_place:
                errors.append(no_place)
            else:
                links.extend([link] if link is not None else [])
            over.set()
            if links or errors:
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(go, direct)
            with anyio.move_on_after(HEAD_START_S):
                await over.wait()
            if not links and not errors:
                await go(relayed)
        if not links and errors:
            raise errors[0]
        return links[0] if links else None

    async def _one_by_one(
        self, remote: PubKey, dial: Dial, ways: Sequence[Way], tried: dict[Address, str]
    ) -> Link | None:
        for kind, address in ways:
            tried[address] = "no answer in time"
            try:
                channel, host = await self._secure(kind, remote, address)
            except TransportError as bad:
                self._book.failed(remote, address)
                tried[address] = str(bad)
                continue
            if address.endpoint:  # one that was looked up is learnt now, and not before
                self._book.learn(Contact(remote, (address,)))
            self._book.worked(remote, address)
            try:
                return self._welcome(kind.name, dial.label, channel, host)
            except TransportError:
                await close_stream(channel)
                raise
        return None

    async def _secure(
        self, kind: TransportType, remote: PubKey, address: Address
    ) -> tuple[SecureChannel, str]:
        stream = await kind.dial(remote, (address,) if address.endpoint else ())
        host = host_of(stream)
        try:
            channel = await self._security.outbound(stream, remote, self._listening())
        except BaseException:
            await close_stream(stream)
            raise
        self._learn(channel, host)
        return channel, host


def _failed(remote: PubKey, tried: Mapping[Address, str], said: str = "") -> DialError:
    """Say what was tried, and what was `said` of where else the key might be."""
    if not tried:
        return DialError(
            f"no address is known for {short(remote)}" + (f" ({said})" if said else ""),
            hint=f"skynode tp add {remote.hex()} --address host:port",
        )
    each = [f"{a.kind} {a.endpoint}".rstrip() + f": {why}" for a, why in tried.items()]
    return DialError(f"cannot reach {short(remote)}: " + "; ".join(each + [said] * bool(said)))
