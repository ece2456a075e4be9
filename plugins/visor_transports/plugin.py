"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_commands", "skycore_rpc_methods", "skycore_settings", "skycore_status"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """Limits of what is kept."""
    from visor_transports.settings import TransportsByHandSettings

    return TransportsByHandSettings


@hookimpl
def skycore_rpc_methods() -> hooktypes.RpcMethods:
    """tp.ls, tp.add and tp.rm."""
    from visor_transports.service import open_transport_methods

    return [open_transport_methods]


@hookimpl
def skycore_status() -> hooktypes.Status:
    """How many transports, and what was refused."""
    from visor_transports.service import open_transport_status

    return [open_transport_status]


@hookimpl
def skycore_commands() -> hooktypes.Commands:
    """The `skynode tp` commands."""
    from skycore.contracts.command import Command

    here = "visor_transports.commands"
    return [
        Command("tp ls", "List live transports.", f"{here}:ls"),
        Command("tp add", "Make a transport to a node, and keep it.", f"{here}:add"),
        Command("tp rm", "Close a transport, and forget it.", f"{here}:rm"),
    ]
