"""What `dmsg_client` adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore.hooktypes import (
        EntrySource,
        Factory,
        Iterable,
        PluginSettings,
        StatusSource,
        TransportType,
    )

__all__ = ["dmsg_client"]


class _Client:
    """Reached through relays, and reaching others through them."""

    @hookimpl
    def skycore_settings(self) -> type[PluginSettings]:
        from relay_dmsg.settings import DmsgClientSettings

        return DmsgClientSettings

    @hookimpl
    def skycore_services(self) -> Iterable[Factory[Any] | Any]:
        from relay_dmsg.client.service import SERVICES

        return SERVICES

    @hookimpl
    def skycore_transports(self) -> Iterable[Factory[TransportType]]:
        from relay_dmsg.client.service import open_type

        return [open_type]

    @hookimpl
    def skycore_discovery(self) -> Iterable[Factory[EntrySource]]:
        from relay_dmsg.client.service import open_source

        return [open_source]

    @hookimpl
    def skycore_status(self) -> Iterable[Factory[StatusSource]]:
        from relay_dmsg.client.service import open_status

        return [open_status]


dmsg_client = _Client()
