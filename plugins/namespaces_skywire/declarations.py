"""The six namespaces of a Skywire network.

Why the lifetimes differ: what a visor says of itself (its transports, addresses, services) is wrong
minutes after it is gone, so it lives 5 minutes and is kept alive by leases; what a discovery
service mirrors was checked by that service and lives 2 hours. Source: docs/protocols/items.md.
"""

from __future__ import annotations

from typing import Any, Final

from namespaces_skywire.checks import (
    own_addresses,
    own_advert,
    own_entry,
    own_server,
    own_services,
    own_transports,
)
from skycore.contracts.namespace import Form, Namespace
from skycore.model.entries import (
    AddressEntry,
    DmsgEntry,
    DmsgServerEntry,
    FullNodeAdvert,
    ServiceEntry,
    TransportEntry,
)
from skycore.model.items import ItemClass

__all__ = ["ADDR", "ALL", "DMSG", "DMSG_SERVER", "FULLNODE", "SVC", "TP"]

_QUICK_S: Final = 300
_SLOW_S: Final = 7_200
_QUICK = {
    ItemClass.OWNER: _QUICK_S,
    ItemClass.DELEGATE: _SLOW_S,
    ItemClass.MIRROR: _SLOW_S,
}
_SLOW = dict.fromkeys((ItemClass.OWNER, ItemClass.DELEGATE, ItemClass.MIRROR), _SLOW_S)


def _set_key(entry: Any) -> bytes:
    key: bytes = entry.set_key
    return key


DMSG: Final = Namespace(
    salt=b"dmsg",
    version=1,
    schema=DmsgEntry,
    form=Form.SINGLE,
    lifetimes_s=_SLOW,
    summary="DMSG discovery: a client and its servers, or a server",
    check=own_entry,
)
TP: Final = Namespace(
    salt=b"tp",
    version=1,
    schema=TransportEntry,
    form=Form.SET,
    lifetimes_s=_QUICK,
    summary="the transports of a visor",
    key=_set_key,
    check=own_transports,
)
SVC: Final = Namespace(
    salt=b"svc",
    version=1,
    schema=ServiceEntry,
    form=Form.SET,
    lifetimes_s=_QUICK,
    summary="the services of a visor",
    key=_set_key,
    check=own_services,
)
ADDR: Final = Namespace(
    salt=b"addr",
    version=1,
    schema=AddressEntry,
    form=Form.SINGLE,
    lifetimes_s=_QUICK,
    summary="where a visor can be dialled",
    check=own_addresses,
)
FULLNODE: Final = Namespace(
    salt=b"fullnode",
    version=1,
    schema=FullNodeAdvert,
    form=Form.SINGLE,
    lifetimes_s={ItemClass.OWNER: _SLOW_S},
    summary="a full node's own advert",
    check=own_advert,
)
DMSG_SERVER: Final = Namespace(
    salt=b"dmsg-server",
    version=1,
    schema=DmsgServerEntry,
    form=Form.SINGLE,
    lifetimes_s=_SLOW,
    summary="where a DMSG server is",
    check=own_server,
)
ALL: Final = (DMSG, TP, SVC, ADDR, FULLNODE, DMSG_SERVER)
