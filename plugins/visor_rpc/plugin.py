"""What this plugin adds to a node."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__: list[str] = []


@hookimpl
def skycore_settings() -> Any:
    """Bounds and time limits."""
    from visor_rpc.settings import VisorRpcSettings

    return VisorRpcSettings


@hookimpl
def skycore_services() -> Any:
    """The registry, served to other nodes."""
    from skycore import Provider
    from visor_rpc.service import VisorRpc, open_visor_rpc

    return [Provider(VisorRpc, open_visor_rpc)]


@hookimpl
def skycore_rpc_methods() -> Any:
    """visor.tp_rpc: call another node through this one."""
    from visor_rpc.proxy import open_proxy

    return [open_proxy]


@hookimpl
def skycore_status() -> Any:
    """Streams, calls and refusals."""
    from visor_rpc.service import open_status

    return [open_status]


@hookimpl
def skycore_commands() -> Any:
    """The commands under `skynode visor`."""
    from skycore.contracts.command import Command

    here = "visor_rpc.commands"
    return [
        Command("visor tp-rpc", "Call a method of another node.", f"{here}:tp_rpc"),
    ]
