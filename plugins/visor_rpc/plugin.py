"""What this plugin adds to a node."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = [
    "skycore_rpc_methods",
    "skycore_services",
    "skycore_settings",
    "skycore_status",
]


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
