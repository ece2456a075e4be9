"""Services, and what of them may be told to whom.

Why `public` and `steady`: the addresses inside a visor's house are its own business unless it says
otherwise, and a figure that moves by itself (latency, connections) would make every record a new
one each time it is told (L9).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from skycore.model.entries import ServiceEntry

__all__ = ["ALIASES", "ANY_TYPE", "public", "service_of", "steady"]

ALIASES: Final = {"proxy": "skysocks"}
"""Older names, understood by who reads."""
ANY_TYPE: Final = "*"
"""Of our servers: services of all types."""
_FIELDS: Final = frozenset(ServiceEntry.__struct_fields__)
_MOVING: Final = frozenset(("latency", "uptime", "connections"))


def service_of(row: Mapping[str, Any]) -> ServiceEntry:
    """Return a service told as JSON; fields that we do not know are left alone, null is nothing.

    Raises `msgspec.ValidationError`.
    """
    known = {name: row[name] for name in row.keys() & _FIELDS if row[name] is not None}
    return msgspec.convert(known, ServiceEntry)


def public(entry: ServiceEntry) -> ServiceEntry:
    """Return what anybody may see: without local addresses, unless the service shows them."""
    if entry.display_node_ip or not entry.local_ips:
        return entry
    return msgspec.structs.replace(entry, local_ips=())


def steady(entry: ServiceEntry) -> ServiceEntry:
    """Return what is published: what anybody may see, without what moves by itself."""
    shown = public(entry)
    if not shown.info or not _MOVING & shown.info.keys():
        return shown
    kept = {name: value for name, value in shown.info.items() if name not in _MOVING}
    return msgspec.structs.replace(shown, info=kept or None)
