"""What the server role adds to a node: the plugin `discovery_address_server`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["discovery_address_server"]


class _Server:
    """An address resolver."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        from discovery_address.server.settings import AddressServerSettings

        return AddressServerSettings

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        from discovery_address.server.service import PROVIDERS

        return PROVIDERS

    @hookimpl
    def skycore_http_routes(self) -> hooktypes.HttpRoutes:
        from discovery_address.server.service import open_routes

        return [open_routes]

    @hookimpl
    def skycore_status(self) -> hooktypes.Status:
        from discovery_address.server.service import open_status

        return [open_status]


discovery_address_server = _Server()
