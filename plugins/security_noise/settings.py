"""Settings of the secure channel."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from skycore.contracts.settings import PluginSettings
from skycore.model.limits import FEATURE_NAME_MAX, FEATURES_MAX

__all__ = ["NoiseSettings"]

FeatureName = Annotated[str, StringConstraints(min_length=1, max_length=FEATURE_NAME_MAX)]


class NoiseSettings(PluginSettings):
    """What an operator may choose. Bounds of the wire are not settings: see model/limits.py."""

    features: tuple[FeatureName, ...] = Field(default=(), max_length=FEATURES_MAX)
    """Names of optional features that this node tells its peers in its signed Hello."""

    key_pairs_max: int = Field(default=32, ge=8, le=4096)
    """Ephemeral key pairs kept ready, refilled in the background by 8 at a time."""

    exchange_keys_max: int = Field(default=1024, ge=0, le=1_000_000)
    """Identities whose exchange key is remembered: 64 bytes each, and saves a redial 30 µs."""
