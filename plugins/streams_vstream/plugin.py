"""Streams over transports: one yamux session per packet type, flow-controlled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_settings", "skycore_streams"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """Bounds per peer."""
    from streams_vstream.settings import VStreamSettings

    return VStreamSettings


@hookimpl
def skycore_streams() -> hooktypes.Streams:
    """The carrier named `transport`."""
    from streams_vstream.service import open_vstream

    return [open_vstream]
