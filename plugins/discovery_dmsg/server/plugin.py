"""What `discovery_dmsg_server` adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["discovery_dmsg_server"]


class _Server:
    """Keeps what keys say of their DMSG sessions, and answers for everybody."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        """Where to serve, whom to believe, how long entries live."""
        from discovery_dmsg.settings import DmsgServerSettings

        return DmsgServerSettings

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        """The table in memory, the ways to the DHT and back, and this node's own entry in it."""
        from discovery_dmsg.server.desk import DmsgDesk
        from discovery_dmsg.server.own import open_own
        from discovery_dmsg.server.service import open_desk
        from skycore import Provider
        from skycore.contracts.dmsg import DmsgPresence

        return [Provider(DmsgDesk, open_desk), Provider(DmsgPresence, open_own)]

    @hookimpl
    def skycore_http_routes(self) -> hooktypes.HttpRoutes:
        """The routes."""
        from discovery_dmsg.server.service import open_routes

        return [open_routes]

    @hookimpl
    def skycore_status(self) -> hooktypes.Status:
        """How much is listed and published."""
        from discovery_dmsg.server.service import open_status

        return [open_status]


discovery_dmsg_server = _Server()
