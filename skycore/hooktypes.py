"""What each hook returns, named after it, for the annotations in plugins' hooks.

Why: so mypy checks what a plugin hands in. Imported under `if TYPE_CHECKING` alone, so that
importing plugin.py stays free. The specs (hookspecs.py) say the same; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from skycore.contracts import (
    access,
    command,
    dht,
    discovery,
    http,
    namespace,
    registry,
    rpc,
    security,
    settings,
    status,
    store,
    streams,
    transport,
)
from skycore.hookspecs import Factory

__all__ = [
    "Access",
    "Commands",
    "Dht",
    "Discovery",
    "HttpRoutes",
    "Mirrors",
    "Namespaces",
    "Registries",
    "RpcMethods",
    "Security",
    "Services",
    "Settings",
    "Status",
    "Stores",
    "Streams",
    "Transports",
]

Settings: TypeAlias = type[settings.PluginSettings]
Stores: TypeAlias = Iterable[Factory[store.ItemStore]]
Mirrors: TypeAlias = Iterable[Factory[dht.Mirror]]
Transports: TypeAlias = Iterable[Factory[transport.TransportType]]
Security: TypeAlias = Iterable[Factory[security.Security]]
Streams: TypeAlias = Iterable[Factory[streams.Streams]]
Namespaces: TypeAlias = Iterable[namespace.Namespace]
Dht: TypeAlias = Iterable[Factory[dht.Dht]]
RpcMethods: TypeAlias = Iterable[Factory[rpc.RpcService]]
Access: TypeAlias = Iterable[Factory[access.AccessPolicy]]
Status: TypeAlias = Iterable[Factory[status.StatusSource]]
HttpRoutes: TypeAlias = Iterable[Factory[http.HttpRoutes]]
Discovery: TypeAlias = Iterable[Factory[discovery.EntrySource]]
Registries: TypeAlias = Iterable[Factory[registry.Registry]]
Services: TypeAlias = Iterable[Factory[Any] | Any]
Commands: TypeAlias = Iterable[command.Command]
