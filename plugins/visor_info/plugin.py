"""What this plugin adds to a node."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = ["skycore_commands", "skycore_rpc_methods", "skycore_settings"]


@hookimpl
def skycore_settings() -> Any:
    """How long parts may take to answer."""
    from visor_info.settings import VisorInfoSettings

    return VisorInfoSettings


@hookimpl
def skycore_rpc_methods() -> Any:
    """Overview, Health and Summary."""
    from visor_info.service import open_info

    return [open_info]


@hookimpl
def skycore_commands() -> Any:
    """The commands under `skynode visor`."""
    from skycore.contracts.command import Command

    here = "visor_info.commands"
    return [
        Command("visor info", "Show what the node is, and how it is.", f"{here}:info"),
    ]
