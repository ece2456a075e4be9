"""What `dmsg_client` adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["dmsg_client"]


class _Client:
    """Reached through relays, and reaching others through them."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        from relay_dmsg.settings import DmsgClientSettings

        return DmsgClientSettings

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        from relay_dmsg.client.service import SERVICES

        return SERVICES

    @hookimpl
    def skycore_transports(self) -> hooktypes.Transports:
        from relay_dmsg.client.service import open_type

        return [open_type]

    @hookimpl
    def skycore_discovery(self) -> hooktypes.Discovery:
        from relay_dmsg.client.service import open_source

        return [open_source]

    @hookimpl
    def skycore_status(self) -> hooktypes.Status:
        from relay_dmsg.client.service import open_status

        return [open_status]


dmsg_client = _Client()
