"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_settings", "skycore_status", "skycore_transports"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """Return the section's model."""
    from transport_sudph.settings import SudphSettings

    return SudphSettings


@hookimpl
def skycore_transports() -> hooktypes.Transports:
    """Return the transport type `sudph`."""
    from transport_sudph.service import open_sudph

    return [open_sudph]


@hookimpl
def skycore_status() -> hooktypes.Status:
    """Return what SUDPH says of itself."""
    from transport_sudph.status import open_status

    return [open_status]
