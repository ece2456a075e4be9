"""One stream's state, as a plain record that the session keeps and its reader empties.

Why no methods that send: everything that reaches the wire is decided in one file, `yamux.py`.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Any

from skycore.model.limits import STREAM_WINDOW

__all__ = ["Channel", "Event", "What"]

SMALL_CHUNK = 256
CHUNKS_KEPT = 64


class What(IntEnum):
    """What happened to a channel."""

    OPENED = 1
    """The peer opened it: accept it or refuse it."""
    READABLE = 2
    """There is data, or the end of it."""
    WRITABLE = 3
    """The peer granted credit."""
    FAILED = 4
    """It is over; `problem` says why."""


class Channel:
    """Both directions of a stream: what may be sent, what came, and who has ended what."""

    __slots__ = (
        "abandoned",
        "credit",
        "due",
        "ended_here",
        "ended_there",
        "id",
        "ours",
        "pending",
        "problem",
        "receive_window",
        "send_window",
        "since",
        "tag",
        "unacked",
        "unread",
        "unread_bytes",
    )

    def __init__(self, stream_id: int, *, ours: bool, due: int) -> None:
        self.id = stream_id
        """0 until our SYN leaves: ids must rise on the wire, not in the order of dialling."""
        self.ours = ours
        self.due = due
        """Flags that the next frame carries: our SYN, or the ACK of theirs."""
        self.unacked = ours
        """Ours, and the peer has not shown yet that it took it."""
        self.pending = not ours
        """Theirs, and nobody has accepted it yet."""
        self.send_window = STREAM_WINDOW
        self.receive_window = STREAM_WINDOW
        self.credit = 0
        """Bytes read since the peer was last given credit."""
        self.unread: deque[bytes | memoryview] = deque()
        self.unread_bytes = 0
        self.since = 0.0
        """When its reader was last up to date, or took some: monotonic seconds."""
        self.ended_here = False
        self.ended_there = False
        self.abandoned = False
        """Closed by our user while the peer had not ended: data that still comes is refused."""
        self.problem = ""
        self.tag: Any = None
        """Whatever the shell wants to find again."""

    def put(self, chunk: bytes) -> None:
        """Keep a chunk. Crumbs are joined, so overhead stays in proportion to the bytes."""
        unread = self.unread
        unread.append(chunk)
        self.unread_bytes += len(chunk)
        if len(unread) >= CHUNKS_KEPT and self.unread_bytes < len(unread) * SMALL_CHUNK:
            whole = b"".join(unread)
            unread.clear()
            unread.append(whole)

    def take(self, max_bytes: int) -> bytes:
        """Return up to `max_bytes` of what is unread; there must be some."""
        unread = self.unread
        first = unread.popleft()
        if len(first) > max_bytes:
            view = memoryview(first)
            unread.appendleft(view[max_bytes:])
            data = bytes(view[:max_bytes])
        elif not unread:
            data = bytes(first)
        else:
            parts, size = [first], len(first)
            while unread and size + len(unread[0]) <= max_bytes:
                size += len(unread[0])
                parts.append(unread.popleft())
            data = b"".join(parts)
        self.unread_bytes -= len(data)
        return data


Event = tuple[What, Channel]
