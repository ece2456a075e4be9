"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__: list[str] = []


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """The two lists."""
    from access_whitelist.settings import WhitelistSettings

    return WhitelistSettings


@hookimpl
def skycore_services() -> hooktypes.Services:
    """The lists in force, which the policy and the methods below share."""
    from access_whitelist.service import Whitelist, open_whitelist
    from skycore import Provider

    return [Provider(Whitelist, open_whitelist)]


@hookimpl
def skycore_access() -> hooktypes.Access:
    """ALLOW for listed keys; no opinion on others, which means no."""
    from access_whitelist.service import open_policy

    return [open_policy]


@hookimpl
def skycore_rpc_methods() -> hooktypes.RpcMethods:
    """whitelist.list, whitelist.add and whitelist.remove."""
    from access_whitelist.methods import open_methods

    return [open_methods]


@hookimpl
def skycore_commands() -> hooktypes.Commands:
    """The commands under `skynode visor whitelist`."""
    from skycore.contracts.command import Command

    here = "access_whitelist.commands"
    return [
        Command("visor whitelist ls", "List who may call this node.", f"{here}:ls"),
        Command("visor whitelist add", "Let a key call this node.", f"{here}:add"),
        Command("visor whitelist rm", "Let a key call it no more.", f"{here}:rm"),
    ]
