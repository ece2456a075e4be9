"""What the client role adds to a node: the plugin `discovery_address`."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = ["discovery_address"]


class _Client:
    """Tells resolvers and the DHT where this node is; asks for others."""

    @hookimpl
    def skycore_settings(self) -> Any:
        from discovery_address.client.settings import AddressSettings

        return AddressSettings

    @hookimpl
    def skycore_services(self) -> Any:
        from discovery_address.client.service import PROVIDERS

        return PROVIDERS

    @hookimpl
    def skycore_discovery(self) -> Any:
        from discovery_address.client.service import open_source

        return [open_source]

    @hookimpl
    def skycore_status(self) -> Any:
        from discovery_address.client.service import open_status

        return [open_status]


discovery_address = _Client()
