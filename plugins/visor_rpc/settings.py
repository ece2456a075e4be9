"""Settings of visor_rpc."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["VisorRpcSettings"]


class VisorRpcSettings(PluginSettings):
    """RPC from other nodes, and to them."""

    running_max: int = Field(default=16, ge=1, le=1024)
    """How many calls of one peer run at once; more wait their turn."""
    open_max: int = Field(default=256, ge=1, le=4096)
    """How many calls of one peer may be open, waiting ones included; over it: TooManyRequests."""
    refusing_max: int = Field(default=256, ge=1, le=4096)
    """How many streams of unlisted keys are told so at once; more are closed without a word."""
    quiet_s: float = Field(default=60.0, ge=1)
    """A peer's stream without a whole call, or whose answer is not read, is closed after this."""
    call_timeout_s: float = Field(default=10.0, ge=1)
    """How long `visor.tp_rpc` waits for a sign of the other node: a transport and an answer, or
    news of its progress, seconds."""
