"""What this plugin adds to a node: the secure channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_security", "skycore_settings"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """Return the section's model."""
    from security_noise.settings import NoiseSettings

    return NoiseSettings


@hookimpl
def skycore_security() -> hooktypes.Security:
    """Return the Noise XK channel."""
    from security_noise.service import open_noise

    return [open_noise]
