"""What the client role adds to a node: the plugin `discovery_address`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["discovery_address"]


class _Client:
    """Tells resolvers and the DHT where this node is; asks for others."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        from discovery_address.client.settings import AddressSettings

        return AddressSettings

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        from discovery_address.client.service import PROVIDERS

        return PROVIDERS

    @hookimpl
    def skycore_discovery(self) -> hooktypes.Discovery:
        from discovery_address.client.service import open_source

        return [open_source]

    @hookimpl
    def skycore_status(self) -> hooktypes.Status:
        from discovery_address.client.service import open_status

        return [open_status]


discovery_address = _Client()
