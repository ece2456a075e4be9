"""What an operator may move: how much one peer may hold of this node."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["VStreamSettings"]


class VStreamSettings(PluginSettings):
    """Bounds of streams over transports. What both ends must agree on is not a setting."""

    streams_max: int = Field(default=1_024, ge=1, le=65_536)
    """Streams that one peer, and as many that this node, may have open for one service."""

    unread_bytes_max: int = Field(default=16 * 1024 * 1024, ge=262_144)
    """Bytes that may wait unread for one service of one peer; over it the stream that nobody reads
    is reset."""

    accept_queue_max: int = Field(default=4_096, ge=1)
    """Streams of all peers together that may wait for one service to accept them."""
