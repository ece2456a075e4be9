"""What the client role adds to a node: the plugin `discovery_transport`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["discovery_transport"]


class _Client:
    """Registers a node's own transports, and reads others'."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        """Which service, and how often."""
        from discovery_transport.client.settings import TransportDiscoverySettings

        return TransportDiscoverySettings

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        """The service as this node asks it, and the loops that make its transports known."""
        from discovery_transport.client.service import PROVIDED
        from skycore import Provider

        return [Provider(contract, factory) for contract, factory in PROVIDED.items()]

    @hookimpl
    def skycore_discovery(self) -> hooktypes.Discovery:
        """What the service knows."""
        from discovery_transport.client.service import open_source

        return [open_source]

    @hookimpl
    def skycore_rpc_methods(self) -> hooktypes.RpcMethods:
        from discovery_transport.client.service import open_listing

        return [open_listing]

    @hookimpl
    def skycore_status(self) -> hooktypes.Status:
        from discovery_transport.client.service import open_status

        return [open_status]

    @hookimpl
    def skycore_commands(self) -> hooktypes.Commands:
        from skycore.contracts.command import Command

        run = "discovery_transport.client.commands:all_transports"
        return [Command("tp all", "List the network's transports.", run)]


discovery_transport = _Client()
