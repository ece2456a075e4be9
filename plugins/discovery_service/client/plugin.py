"""What the client role adds to a node: the plugin `discovery_service`."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = ["discovery_service"]


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


discovery_service = _Client()
