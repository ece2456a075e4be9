"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_services", "skycore_settings"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """How many may connect."""
    from rpc_local.settings import RpcLocalSettings

    return RpcLocalSettings


@hookimpl
def skycore_services() -> hooktypes.Services:
    """The control socket."""
    from rpc_local.service import open_control_socket

    return [open_control_socket]
