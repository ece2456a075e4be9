"""What `discovery_dmsg` adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["discovery_dmsg"]


class _Client:
    """Keeps a node's own DMSG entry registered, and reads others'."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        """Where to register, and how often."""
        from discovery_dmsg.client.settings import DmsgClientSettings

        return DmsgClientSettings

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        """The own entry, and who may say what it is."""
        from discovery_dmsg.client.service import SERVICES

        return SERVICES

    @hookimpl
    def skycore_discovery(self) -> hooktypes.Discovery:
        """The service as a source of entries."""
        from discovery_dmsg.client.service import open_source

        return [open_source]

    @hookimpl
    def skycore_rpc_methods(self) -> hooktypes.RpcMethods:
        from discovery_dmsg.client.service import open_servers_rpc

        return [open_servers_rpc]

    @hookimpl
    def skycore_status(self) -> hooktypes.Status:
        from discovery_dmsg.client.service import open_status

        return [open_status]

    @hookimpl
    def skycore_commands(self) -> hooktypes.Commands:
        """`skynode dmsg servers`."""
        from skycore.contracts.command import Command

        run = "discovery_dmsg.client.commands:servers"
        return [Command("dmsg servers", "List the network's DMSG servers.", run)]


discovery_dmsg = _Client()
