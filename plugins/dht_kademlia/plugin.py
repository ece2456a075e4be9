"""dht_kademlia: items at the nodes closest to them, found in a few calls."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__: list[str] = []


def _factories() -> Any:
    from dht_kademlia import service

    return service


@hookimpl
def skycore_settings() -> Any:
    from dht_kademlia.settings import KademliaSettings

    return KademliaSettings


@hookimpl
def skycore_services() -> Any:
    from dht_kademlia.node import Kademlia
    from dht_kademlia.sync.adverts import open_adverts
    from skycore import Provider

    return [Provider(Kademlia, _factories().open_kademlia), open_adverts]


@hookimpl
def skycore_dht() -> Any:
    return [_factories().open_dht]


@hookimpl
def skycore_mirrors() -> Any:
    return [_factories().open_dht_mirror]


@hookimpl
def skycore_rpc_methods() -> Any:
    from dht_kademlia.rpc import live, namespaces

    return [_factories().open_dht_rpc, namespaces.open_dht_namespaces_rpc, live.open_dht_live_rpc]


@hookimpl
def skycore_status() -> Any:
    return [_factories().open_dht_status]


@hookimpl
def skycore_commands() -> Any:
    from dht_kademlia.cli.menu import COMMANDS

    return COMMANDS
