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
    return _factories().SERVICES


@hookimpl
def skycore_dht() -> Any:
    return [_factories().open_dht]


@hookimpl
def skycore_mirrors() -> Any:
    return [_factories().open_dht_mirror]


@hookimpl
def skycore_discovery() -> Any:
    return [_factories().open_dht_source]


@hookimpl
def skycore_rpc_methods() -> Any:
    return _factories().RPC_METHODS


@hookimpl
def skycore_status() -> Any:
    return [_factories().open_dht_status]


@hookimpl
def skycore_commands() -> Any:
    from dht_kademlia.cli.menu import COMMANDS

    return COMMANDS
