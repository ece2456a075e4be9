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
    """Bytes that may wait unread for one service of one peer. Over it, streams that were not read
    for `stalled_s` are reset, and all count on `unread_bytes_node_max`."""

    unread_bytes_node_max: int = Field(default=256 * 1024 * 1024, ge=262_144)
    """Bytes that may wait unread on the whole node. Over it, a peer that holds more than
    `unread_bytes_max` loses the stream that is furthest behind."""

    stalled_s: float = Field(default=10.0, ge=0.1)
    """Seconds without a read after which a stream counts as one that nobody reads."""

    accept_queue_max: int = Field(default=4_096, ge=1)
    """Streams of all peers together that may wait for one service to accept them."""
