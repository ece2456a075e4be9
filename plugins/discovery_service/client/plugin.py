"""What the client role adds to a node: the plugin `discovery_service`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["discovery_service"]


class _Client:
    """Registers what this node offers; reads what others do."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        from discovery_service.client.settings import ServiceSettings

        return ServiceSettings

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        from discovery_service.client.service import PROVIDERS

        return PROVIDERS

    @hookimpl
    def skycore_discovery(self) -> hooktypes.Discovery:
        from discovery_service.client.service import open_source

        return [open_source]

    @hookimpl
    def skycore_status(self) -> hooktypes.Status:
        from discovery_service.client.service import open_status

        return [open_status]

    @hookimpl
    def skycore_rpc_methods(self) -> hooktypes.RpcMethods:
        from discovery_service.client.listing import open_methods

        return [open_methods]

    @hookimpl
    def skycore_commands(self) -> hooktypes.Commands:
        from skycore.contracts.command import Command

        return [Command("svc ls", "List services.", "discovery_service.client.commands:ls")]


discovery_service = _Client()
