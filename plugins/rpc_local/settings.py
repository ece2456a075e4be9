"""Settings of rpc_local."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["RpcLocalSettings"]


class RpcLocalSettings(PluginSettings):
    """The control socket of this machine's user."""

    connections_max: int = Field(default=64, ge=1, le=1024)
    """How many programs may be connected at once."""
