"""Transports: established links between two keys, and the types of way to make one.

Why `send` does not wait: packets of many streams share one link, and one writer task seals what
has gathered since its last turn in as few frames as possible. Back-pressure is `drain`, and the
windows of the streams above.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from anyio import TypedAttributeSet, typed_attribute
from anyio.abc import ByteStream

from skycore.contracts.security import Hello
from skycore.model.addresses import Address, Contact
from skycore.model.keys import PubKey

__all__ = [
    "DIRECT",
    "Addresses",
    "KeyedType",
    "LineAttribute",
    "Listener",
    "PacketHandler",
    "RefusalHandler",
    "RelayType",
    "Transport",
    "TransportDown",
    "TransportType",
    "TransportUp",
    "Transports",
]

DIRECT: Final = "direct"
"""In place of a type's name: any type that is no relay. No type is called so."""


@dataclass(frozen=True)
class TransportUp:
    """Event: a transport is live."""

    id: uuid.UUID
    remote: PubKey
    type: str
    dialled: bool
    label: str


@dataclass(frozen=True)
class TransportDown:
    """Event: a transport that was live is gone."""

    id: uuid.UUID
    remote: PubKey
    type: str
    reason: str


class Listener(Protocol):
    """Where a transport type takes connections."""

    @property
    def addresses(self) -> Sequence[Address]:
        """To tell others, as of now; an empty host in an endpoint means "as you see me"."""
        ...

    async def accept(self) -> ByteStream:
        """Return the next raw connection."""
        ...


class TransportType(Protocol):
    """One way to reach a node. Moves bytes; knows nothing of keys beyond whom to dial."""

    name: str

    async def dial(self, remote: PubKey, addresses: Sequence[Address]) -> ByteStream:
        """Open a raw connection. `addresses` are those of this type, best first; may be empty.

        Raises `DialError` with what was tried.
        """
        ...

    def listen(self) -> AbstractAsyncContextManager[Listener]:
        """Take connections while the context lasts. Raises `TransportError` for a taken port."""
        ...


class LineAttribute(TypedAttributeSet):
    """What a type's raw connection may know of its line, as anyio's typed attributes."""

    loss: float = typed_attribute()
    """Share of what was sent that was lost on the way, from 0 to 1, since the connection stands."""
    ended: bool = typed_attribute()
    """Whether the other side is known to have ended it, read or not."""
    watched: bool = typed_attribute()
    """Whether the type ends the connection itself, within a minute, once the other side is gone:
    then unanswered pings do not. Such a type outlives outages that a person would call short."""


@runtime_checkable
class KeyedType(TransportType, Protocol):
    """A type that may find a key by itself. It is given all its addresses in one dial."""

    @property
    def can_ask(self) -> bool:
        """Whether `dial` may be tried without an address: somebody is there to be asked."""
        ...


@runtime_checkable
class RelayType(KeyedType, Protocol):
    """A type whose connections lead through somebody else: the last resort.

    Direct types are tried first and have a head start; a direct link is used where both are live.
    """

    async def find(self, remote: PubKey) -> Sequence[Address]:
        """Look up through whom a key may be reached. Raises nothing; quick, or bounded.

        Never asked for a dial that must not look anything up.
        """
        ...


class Transport(Protocol):
    """A live, authenticated link. Who speaks on it is `remote`, never what a payload says."""

    id: uuid.UUID
    remote: PubKey
    type: str
    dialled: bool
    """Whether we made the connection: decides stream id parity."""
    label: str
    """"user", "automatic" or "ephemeral" (closed after 60 s idle, never registered anywhere)."""
    peer_keeps: bool
    """Whether the peer said, with a ping, that its label for it is not "ephemeral"."""
    remote_hello: Hello
    host: str
    """The other end's host as the network shows it; empty where that has no name."""
    opened_at: float
    rtt_s: float | None
    bytes_sent: int
    bytes_received: int

    @property
    def loss(self) -> float | None:
        """Share of what was sent that was lost on the way; None where the type does not know."""
        ...

    @property
    def is_silent(self) -> bool:
        """Whether the other end has answered no ping for some 20 s: it is gone, or cut off for now.

        Nobody is given such a transport any more; who uses it may wait, or go another way.
        """
        ...

    async def wait_silent(self) -> None:
        """Wait until it is silent, or closed."""
        ...

    @property
    def closed(self) -> str:
        """Why it is closed; empty while it is open."""
        ...

    def send(self, packet_type: int, payload: bytes) -> None:
        """Queue one packet on route 0. Raises `TransportClosedError`.

        Over TRANSPORT_QUEUE_MAX unsent bytes the transport is closed: its peer does not read.
        """
        ...

    async def drain(self) -> None:
        """Wait until less than a quarter of TRANSPORT_QUEUE_MAX is unsent. Or closed."""
        ...

    async def aclose(self, reason: str) -> None:
        """Close, with the reason for people."""
        ...


class PacketHandler(Protocol):
    """Whoever claimed a packet type. Both are called from the link's reader: neither may wait."""

    def packet(self, transport: Transport, payload: bytes) -> None:
        """Take one packet of the claimed type. Raise `RemoteProtocolError` to close the link."""
        ...

    def closed(self, transport: Transport) -> None:
        """Learn that a transport is gone."""
        ...


@runtime_checkable
class RefusalHandler(Protocol):
    """What a PacketHandler may add: hearing that the peer does not serve its packet type."""

    def refused(self, transport: Transport, reason: str) -> None:
        """Learn that the peer answered one of our packets with an Error. May not wait."""
        ...


class Addresses(Protocol):
    """The address book: bounded, newest knowledge first, forgets what never worked."""

    def learn(self, contact: Contact, *, pinned: bool = False) -> None:
        """Remember where a key may be dialled; pinned ones (config, `tp add`) are kept."""
        ...

    def find(self, public: bytes) -> tuple[Address, ...]:
        """Return what is known, best first."""
        ...

    def forget(self, public: bytes) -> None:
        """Drop what is known of a key, pinned too."""
        ...


class Transports(Protocol):
    """The transport manager: dials, secures, keeps one live link per peer and type, dispatches."""

    addresses: Addresses

    @property
    def counters(self) -> Mapping[str, int]:
        """Return what happened since the start; a refusal counts under its error's name, too."""
        ...

    @property
    def types(self) -> Sequence[str]:
        """Return the names of the types that there are, those tried first before others."""
        ...

    def all(self) -> Sequence[Transport]:
        """Return the live transports."""
        ...

    def find(self, remote: bytes, kind: str | None = None) -> Transport | None:
        """Return the best live transport to a key that is not silent; `kind` as in `ensure`."""
        ...

    def listening(self) -> Sequence[Address]:
        """Return where this node takes connections."""
        ...

    async def ensure(
        self,
        remote: PubKey,
        label: str = "ephemeral",
        *,
        look_up: bool = True,
        kind: str | None = None,
    ) -> Transport:
        """Return the live transport to a key, or make one; parallel calls share one dial.

        Where no address is known, or all known ones failed, the sources of `addr` records are
        asked; not with `look_up=False`, which is for what such a source needs itself: it never
        waits for somebody else's lookup either. `kind` is one of `types`, or `DIRECT`: then a
        transport of another type does not do, and none is made. Raises `DialError` where nothing
        leads there.
        """
        ...

    async def close(self, transport_id: uuid.UUID, reason: str) -> bool:
        """Close a transport; False where there is none with this id."""
        ...

    def claim(self, packet_type: int, handler: PacketHandler) -> AbstractContextManager[None]:
        """Receive a packet type while the context lasts. Raises `PluginConflictError` if taken."""
        ...

    def on_change(
        self, callback: Callable[[Transport, bool], None]
    ) -> AbstractContextManager[None]:
        """Be told of each transport that comes up (True) or goes (False)."""
        ...
