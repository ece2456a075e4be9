"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__: list[str] = []


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """Bounds and time limits."""
    from visor_rpc.settings import VisorRpcSettings

    return VisorRpcSettings


@hookimpl
def skycore_services() -> hooktypes.Services:
    """The registry, served to other nodes."""
    from skycore import Provider
    from visor_rpc.service import VisorRpc, open_visor_rpc

    return [Provider(VisorRpc, open_visor_rpc)]


@hookimpl
def skycore_rpc_methods() -> hooktypes.RpcMethods:
    """visor.tp_rpc: call another node through this one."""
    from visor_rpc.proxy import open_proxy

    return [open_proxy]


@hookimpl
def skycore_status() -> hooktypes.Status:
    """Streams, calls and refusals."""
    from visor_rpc.service import open_status

    return [open_status]


@hookimpl
def skycore_commands() -> hooktypes.Commands:
    """The commands under `skynode visor`."""
    from skycore.contracts.command import Command

    here = "visor_rpc.commands"
    return [
        Command("visor tp-rpc", "Call a method of another node.", f"{here}:tp_rpc"),
    ]
