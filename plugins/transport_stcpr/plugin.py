"""What this plugin adds to a node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore.contracts.settings import PluginSettings
    from skycore.contracts.transport import TransportType
    from skycore.hookspecs import Factory

__all__ = ["skycore_settings", "skycore_transports"]


@hookimpl
def skycore_settings() -> type[PluginSettings]:
    """Return the section's model."""
    from transport_stcpr.settings import StcprSettings

    return StcprSettings


@hookimpl
def skycore_transports() -> Iterable[Factory[TransportType]]:
    """Return the transport type `stcpr`."""
    from transport_stcpr.service import open_stcpr

    return [open_stcpr]
