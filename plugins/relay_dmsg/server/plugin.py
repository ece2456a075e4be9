"""What `dmsg_server` adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["dmsg_server"]


class _Server:
    """A relay for others."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        from relay_dmsg.settings import DmsgServerSettings

        return DmsgServerSettings

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        from relay_dmsg.server.service import SERVICES

        return SERVICES

    @hookimpl
    def skycore_status(self) -> hooktypes.Status:
        from relay_dmsg.server.service import open_status

        return [open_status]


dmsg_server = _Server()
