"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_settings", "skycore_transports"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """Return the section's model."""
    from transport_stcpr.settings import StcprSettings

    return StcprSettings


@hookimpl
def skycore_transports() -> hooktypes.Transports:
    """Return the transport type `stcpr`."""
    from transport_stcpr.service import open_stcpr

    return [open_stcpr]
