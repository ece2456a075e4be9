"""dht_kademlia: items at the nodes closest to them, found in a few calls."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__: list[str] = []


def _factories() -> Any:
    return import_module("dht_kademlia.service")


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    model: hooktypes.Settings = _factories().KademliaSettings
    return model


@hookimpl
def skycore_services() -> hooktypes.Services:
    return list(_factories().SERVICES)


@hookimpl
def skycore_dht() -> hooktypes.Dht:
    return [_factories().open_dht]


@hookimpl
def skycore_mirrors() -> hooktypes.Mirrors:
    return [_factories().open_dht_mirror]


@hookimpl
def skycore_discovery() -> hooktypes.Discovery:
    return [_factories().open_dht_source]


@hookimpl
def skycore_rpc_methods() -> hooktypes.RpcMethods:
    return list(_factories().RPC_METHODS)


@hookimpl
def skycore_status() -> hooktypes.Status:
    return [_factories().open_dht_status]


@hookimpl
def skycore_commands() -> hooktypes.Commands:
    from dht_kademlia.cli.menu import COMMANDS

    return COMMANDS
