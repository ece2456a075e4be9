"""Settings of access_whitelist."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["WhitelistSettings"]


class WhitelistSettings(PluginSettings):
    """Keys that may call this node. Nobody else may; with empty lists nobody remote may at all."""

    hypervisors: tuple[str, ...] = ()
    """Public keys of managers, lower-case hex: they may call everything (admin)."""
    whitelist: tuple[str, ...] = ()
    """Public keys of others, lower-case hex: "KEY" may read, "KEY:operate" and "KEY:admin" more."""
    keys_max: int = Field(default=1024, ge=1, le=10_000)
    """How many keys may be added at run time."""
