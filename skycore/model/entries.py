"""Entries: what the values of a Skywire network's records are.

Why maps with names: an entry is read by people, by `jq`, and by tools of other networks, and the
discovery services publish the same names. Keys inside an entry are opaque text: they may belong to
another network's suite, and nothing may be concluded from them (who speaks is an item's signer).
Every text and every list is bounded here; an entry of a set, besides, by what a block holds. Field
names: Skywire's discovery entries (docs/protocols/items.md).
"""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = [
    "AddressBind",
    "AddressEntry",
    "DmsgClient",
    "DmsgEntry",
    "DmsgServer",
    "DmsgServerEntry",
    "FullNodeAdvert",
    "Geo",
    "Host",
    "Key",
    "Name",
    "ServiceEntry",
    "Text",
    "TransportEntry",
]

Key = Annotated[str, Meta(min_length=1, max_length=256)]
"""A public key as text, of whatever suite."""
Text = Annotated[str, Meta(max_length=256)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Host = Annotated[str, Meta(max_length=300)]
"""A host, an address, or either with a port."""
Count = Annotated[int, Meta(ge=0, le=2**53)]
"""Small enough for every JSON reader."""
Stamp = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Unix nanoseconds."""
Few = Meta(max_length=64)
_UNKNOWN_MS = 0.0
Scalar = Text | int | float | bool | None


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Defaults are left out, so an entry has one encoding; a field we do not know is refused."""


class Geo(_Entry, frozen=True):
    """Where a service says it is."""

    lat: Annotated[float, Meta(ge=-90, le=90)] | None = None
    lon: Annotated[float, Meta(ge=-180, le=180)] | None = None
    country: Text = ""
    region: Text = ""


class TransportEntry(_Entry, frozen=True):
    """A transport of a visor. Both edges list it; both may be the same key."""

    t_id: uuid.UUID
    edges: tuple[Key, Key]
    type: Name
    label: Text = ""
    latency: Annotated[float, Meta(ge=0)] = _UNKNOWN_MS
    """Milliseconds; 0 is unknown."""

    def __post_init__(self) -> None:
        """Make any zero the default itself: msgspec leaves out what is it, not what equals it."""
        if self.latency == _UNKNOWN_MS and self.latency is not _UNKNOWN_MS:
            msgspec.structs.force_setattr(self, "latency", _UNKNOWN_MS)

    @property
    def set_key(self) -> bytes:
        """The transport's id tells entries apart."""
        return self.t_id.bytes


class ServiceEntry(_Entry, frozen=True):
    """A service of a visor, for example a VPN server."""

    address: Annotated[str, Meta(min_length=1, max_length=300)]
    """`key:port`."""
    type: Name
    version: Text = ""
    geo: Geo | None = None
    display_node_ip: bool = False
    local_ips: Annotated[tuple[Host, ...], Few] = ()
    info: Annotated[dict[Name, Scalar], Few] | None = None

    @property
    def set_key(self) -> bytes:
        """Type and address together tell services apart."""
        return f"{self.type}\0{self.address}".encode()


class DmsgClient(_Entry, frozen=True):
    """By which servers a DMSG client can be reached."""

    delegated_servers: Annotated[tuple[Key, ...], Few] = ()


class DmsgServer(_Entry, frozen=True):
    """What a DMSG server says in its own discovery entry."""

    address: Host
    available_sessions: Count = msgspec.field(name="availableSessions", default=0)
    server_type: Text = msgspec.field(name="serverType", default="")
    dht_bootstrap: bool = False
    """Whether it also answers DHT calls."""
    address_v6: Host = ""
    address_udp: Host = ""
    address_udp_v6: Host = ""
    address_ws: Host = ""


class DmsgEntry(_Entry, frozen=True):
    """A DMSG discovery entry: a client, a server, or (`static` alone) a key that is known."""

    static: Key
    version: Text = ""
    sequence: Count = 0
    timestamp: Stamp = 0
    client: DmsgClient | None = None
    client_type: Text = ""
    server: DmsgServer | None = None
    signature: Text = ""
    """The discovery's own, carried as it is; the item's signature is the one that counts."""
    protocol: Text = ""

    @property
    def delegated_servers(self) -> tuple[str, ...]:
        """Return the servers of a client; none for anything else."""
        return self.client.delegated_servers if self.client else ()


class AddressBind(_Entry, frozen=True):
    """Where one type of transport takes connections, as an address resolver has it."""

    port: Host = ""
    addresses: Annotated[tuple[Host, ...], Few] = ()
    """Local addresses."""
    remote_addr: Host = ""
    """As the resolver saw it: `host`, or `host:port` for sudph."""
    remote_addr_v6: Host = ""
    is_local: bool = False


class AddressEntry(_Entry, frozen=True):
    """Where a visor can be dialled, by type of transport, so that one bind never hides another.

    The flat fields are the resolver's older record, which has one bind and does not name its type.
    """

    pk: Text = ""
    stcpr: AddressBind | None = None
    sudph: AddressBind | None = None
    port: Host | Annotated[int, Meta(ge=0, le=65_535)] = ""
    addresses: Annotated[tuple[Host, ...], Few] = ()
    remote_addr: Host = ""
    remote_addr_v6: Host = ""
    is_local: bool = False


class FullNodeAdvert(_Entry, frozen=True):
    """A full node says that it is one. `pk` must be the subject of the item (C6)."""

    pk: Key
    stored_items: Count
    full_node: bool
    ts: Stamp


class DmsgServerEntry(_Entry, frozen=True):
    """A DMSG server says where it is."""

    pk: Key
    address: Host
    max_sessions: Count = 0
    server_type: Text | Annotated[tuple[Key, ...], Few] = ""
    dht_bootstrap: bool = False
