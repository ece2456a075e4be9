"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_commands", "skycore_rpc_methods", "skycore_settings"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """How long parts may take to answer."""
    from visor_info.settings import VisorInfoSettings

    return VisorInfoSettings


@hookimpl
def skycore_rpc_methods() -> hooktypes.RpcMethods:
    """Overview, Health and Summary."""
    from visor_info.service import open_info

    return [open_info]


@hookimpl
def skycore_commands() -> hooktypes.Commands:
    """The commands under `skynode visor`."""
    from skycore.contracts.command import Command

    here = "visor_info.commands"
    return [
        Command("visor info", "Show what the node is, and how it is.", f"{here}:info"),
    ]
