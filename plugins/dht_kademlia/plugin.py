"""dht_kademlia: items at the nodes closest to them, found in a few calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from skycore import hookimpl

if TYPE_CHECKING:
    from dht_kademlia.settings import KademliaSettings

__all__: list[str] = []


@hookimpl
def skycore_settings() -> type[KademliaSettings]:
    from dht_kademlia.settings import KademliaSettings

    return KademliaSettings


@hookimpl
def skycore_services() -> Iterable[Any]:
    from dht_kademlia.node import Kademlia
    from dht_kademlia.service import open_kademlia
    from skycore import Provider

    return [Provider(Kademlia, open_kademlia)]


@hookimpl
def skycore_dht() -> Iterable[Any]:
    from dht_kademlia.service import open_dht

    return [open_dht]


@hookimpl
def skycore_mirrors() -> Iterable[Any]:
    from dht_kademlia.service import open_dht_mirror

    return [open_dht_mirror]


@hookimpl
def skycore_rpc_methods() -> Iterable[Any]:
    from dht_kademlia.service import open_dht_rpc

    return [open_dht_rpc]


@hookimpl
def skycore_status() -> Iterable[Any]:
    from dht_kademlia.service import open_dht_status

    return [open_dht_status]
