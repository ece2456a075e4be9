"""What this plugin adds to a node."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = ["skycore_services", "skycore_settings"]


@hookimpl
def skycore_settings() -> Any:
    """How many may connect."""
    from rpc_local.settings import RpcLocalSettings

    return RpcLocalSettings


@hookimpl
def skycore_services() -> Any:
    """The control socket."""
    from rpc_local.service import open_control_socket

    return [open_control_socket]
