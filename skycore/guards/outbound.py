"""The dialling side: every way to a key in order, and a lookup where none leads there.

Why apart from the manager: which address is tried, for how long and what is learnt from it is one
question; which links live is another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import anyio

from skycore.contracts.security import SecureChannel, Security
from skycore.contracts.transport import TransportType
from skycore.errors import DialError, TransportError
from skycore.guards.addresses import AddressBook
from skycore.guards.dials import Dial
from skycore.guards.inbound import close_stream, host_of
from skycore.guards.links import Link
from skycore.guards.resolving import Resolver
from skycore.model.addresses import Address, Contact
from skycore.model.keys import PubKey, short

__all__ = ["Outbound"]

Way = tuple[TransportType, Address]


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
        welcome: Callable[[str, str, SecureChannel], Link],
        known_limit_s: float,
    ) -> None:
        self._types = types
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
        if self._ways(remote) or (look_up and self._resolver.has_sources):
            return
        raise _failed(remote, {})

    def _ways(self, remote: bytes) -> list[Way]:
        """Return what can be tried, type by type, the best address of each first."""
        return self._to(self._book.find(remote))

    async def dial(self, remote: PubKey, dial: Dial) -> Link:
        """Try every address until one leads to exactly this key. Raises `DialError`.

        Where somebody can be asked, known addresses have a part of the time; those that it did not
        suffice for come last.
        """
        tried: dict[Address, str] = {}
        ways = self._ways(remote)
        can_ask = self._resolver.has_sources
        with anyio.move_on_after(self._known_limit_s if can_ask else None):
            link = await self._try(remote, dial, ways, tried)
            if link is not None:
                return link
        error = _failed(remote, tried)
        if can_ask and dial.known_failed(error):
            found = await self._resolver.look_up(remote)
            if found.addresses:
                self._book.learn(Contact(remote, found.addresses))
            ways = [*self._to(found.addresses), *ways]
            link = await self._try(remote, dial, [w for w in ways if w[1] not in tried], tried)
            if link is not None:
                return link
            error = _failed(remote, tried, found.said)
        self._counters["dials_failed"] += 1
        raise error

    def _to(self, addresses: Sequence[Address]) -> list[Way]:
        return [(t, a) for name, t in self._types.items() for a in addresses if a.kind == name]

    async def _try(
        self, remote: PubKey, dial: Dial, ways: Sequence[Way], tried: dict[Address, str]
    ) -> Link | None:
        for kind, address in ways:
            tried[address] = "no answer in time"
            try:
                channel = await self._secure(kind, remote, address)
            except TransportError as bad:
                self._book.failed(remote, address)
                tried[address] = str(bad)
                continue
            self._book.worked(remote, address)
            try:
                return self._welcome(kind.name, dial.label, channel)
            except TransportError:
                await close_stream(channel)
                raise
        return None

    async def _secure(self, kind: TransportType, remote: PubKey, address: Address) -> SecureChannel:
        stream = await kind.dial(remote, (address,))
        host = host_of(stream)
        try:
            channel = await self._security.outbound(stream, remote, self._listening())
        except BaseException:
            await close_stream(stream)
            raise
        self._learn(channel, host)
        return channel


def _failed(remote: PubKey, tried: Mapping[Address, str], said: str = "") -> DialError:
    """Say what was tried, and what was `said` of where else the key might be."""
    if not tried:
        return DialError(
            f"no address is known for {short(remote)}" + (f" ({said})" if said else ""),
            hint=f"skynode tp add {remote.hex()} --address host:port",
        )
    each = [f"{a.kind} {a.endpoint}: {why}" for a, why in tried.items()]
    return DialError(f"cannot reach {short(remote)}: " + "; ".join(each + [said] * bool(said)))
