"""What `dmsg_client` adds to a node."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = ["dmsg_client"]


class _Client:
    """Reached through relays, and reaching others through them."""

    @hookimpl
    def skycore_settings(self) -> Any:
        from relay_dmsg.settings import DmsgClientSettings

        return DmsgClientSettings

    @hookimpl
    def skycore_services(self) -> Any:
        from relay_dmsg.client.service import SERVICES

        return SERVICES

    @hookimpl
    def skycore_transports(self) -> Any:
        from relay_dmsg.client.service import open_type

        return [open_type]

    @hookimpl
    def skycore_discovery(self) -> Any:
        from relay_dmsg.client.service import open_source

        return [open_source]

    @hookimpl
    def skycore_status(self) -> Any:
        from relay_dmsg.client.service import open_status

        return [open_status]


dmsg_client = _Client()
