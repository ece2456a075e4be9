"""What this folder adds to a node: `discovery_service` and `discovery_service_server`."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = ["discovery_service", "discovery_service_server"]


class _Client:
    """Registers what this node offers; reads what others do."""

    @hookimpl
    def skycore_settings(self) -> Any:
        from discovery_service.client.settings import ServiceSettings

        return ServiceSettings

    @hookimpl
    def skycore_services(self) -> Any:
        from discovery_service.client.service import PROVIDERS

        return PROVIDERS

    @hookimpl
    def skycore_discovery(self) -> Any:
        from discovery_service.client.service import open_source

        return [open_source]

    @hookimpl
    def skycore_status(self) -> Any:
        from discovery_service.client.service import open_status

        return [open_status]

    @hookimpl
    def skycore_rpc_methods(self) -> Any:
        from discovery_service.client.listing import open_methods

        return [open_methods]

    @hookimpl
    def skycore_commands(self) -> Any:
        from skycore.contracts.command import Command

        return [Command("svc ls", "List services.", "discovery_service.client.commands:ls")]


class _Server:
    """A list of services."""

    @hookimpl
    def skycore_settings(self) -> Any:
        from discovery_service.server.settings import ServiceServerSettings

        return ServiceServerSettings

    @hookimpl
    def skycore_services(self) -> Any:
        from discovery_service.server.service import PROVIDERS

        return PROVIDERS

    @hookimpl
    def skycore_http_routes(self) -> Any:
        from discovery_service.server.service import open_routes

        return [open_routes]

    @hookimpl
    def skycore_status(self) -> Any:
        from discovery_service.server.service import open_status

        return [open_status]


discovery_service, discovery_service_server = _Client(), _Server()
