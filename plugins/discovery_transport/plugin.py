"""What this folder adds to a node: `discovery_transport` and `discovery_transport_server`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discovery_transport.client.plugin import discovery_transport
from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["discovery_transport", "discovery_transport_server"]


class _Server:
    """Keeps what edges say of their transports, and answers for everybody."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        """Where to serve, whom to believe, how long entries live."""
        from discovery_transport.server.settings import TransportServerSettings

        return TransportServerSettings

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        """The tables in memory, and what keeps them in step with the DHT."""
        from discovery_transport.server import service
        from discovery_transport.server.desk import TransportDesk
        from skycore import Provider

        exchange = Provider(service.TransportExchange, service.open_exchange)
        return [Provider(TransportDesk, service.open_desk), exchange]

    @hookimpl
    def skycore_http_routes(self) -> hooktypes.HttpRoutes:
        """The routes."""
        from discovery_transport.server.service import open_routes

        return [open_routes]

    @hookimpl
    def skycore_status(self) -> hooktypes.Status:
        """How much is listed, and how requests ended."""
        from discovery_transport.server.service import open_status

        return [open_status]


discovery_transport_server = _Server()
