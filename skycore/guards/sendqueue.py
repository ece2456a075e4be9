"""What a link has still to send: bounded, joined into few writes, control packets first."""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

import anyio

from skycore.errors import LocalProtocolError
from skycore.model.limits import PACKET_PAYLOAD_MAX, TRANSPORT_QUEUE_MAX
from skycore.model.packets import HEADER_BYTES

__all__ = ["SendQueue"]

BATCH_MAX: Final = 256 * 1024
"""Where a write stops to take more packets: how long a pong may have to wait."""
CALM: Final = TRANSPORT_QUEUE_MAX // 4

_HEAD = struct.Struct(">BIH")


class SendQueue:
    """Packets of one link. One task takes batches; anybody puts packets, without waiting."""

    __slots__ = ("_asleep", "_calm", "_pending", "_urgent", "_wake", "packets", "unsent")

    def __init__(self) -> None:
        self.unsent = 0
        """Bytes queued, or in the write that is under way."""
        self.packets = 0
        self._pending: deque[bytes] = deque()  # header, payload, header, payload, …
        self._urgent: deque[bytes] = deque()
        self._asleep = False
        self._wake = anyio.Event()
        self._calm: anyio.Event | None = None

    def put(self, packet_type: int, payload: bytes) -> bool:
        """Queue a packet on route 0; False where the queue is now over TRANSPORT_QUEUE_MAX."""
        size = len(payload)
        if size > PACKET_PAYLOAD_MAX:
            raise LocalProtocolError(f"a packet carries {PACKET_PAYLOAD_MAX} bytes at most")
        pending = self._pending
        pending.append(_HEAD.pack(packet_type, 0, size))
        pending.append(payload)
        self.packets += 1
        self.unsent += HEADER_BYTES + size
        if self._asleep:
            self._asleep = False
            self._wake.set()
        return self.unsent <= TRANSPORT_QUEUE_MAX

    def put_urgent(self, packet_type: int, payload: bytes) -> bool:
        """Queue a control packet, before everything that is not yet being written."""
        self._urgent.append(_HEAD.pack(packet_type, 0, len(payload)) + payload)
        self.packets += 1
        self.unsent += HEADER_BYTES + len(payload)
        if self._asleep:
            self._asleep = False
            self._wake.set()
        return self.unsent <= TRANSPORT_QUEUE_MAX

    async def wait_some(self) -> None:
        """Wait until there is something to take."""
        while not (self._urgent or self._pending):
            self._asleep, self._wake = True, anyio.Event()
            await self._wake.wait()

    def take(self) -> bytes:
        """Return whole packets, joined; `sent` must be told once they are written."""
        urgent, pending = self._urgent, self._pending
        if self.unsent <= BATCH_MAX:
            batch = b"".join((*urgent, *pending))
            urgent.clear()
            pending.clear()
            return batch
        parts: list[bytes] = []
        size = 0
        while urgent and size < BATCH_MAX:
            parts.append(urgent.popleft())
            size += len(parts[-1])
        while pending and size < BATCH_MAX:
            parts.append(pending.popleft())
            parts.append(pending.popleft())
            size += HEADER_BYTES + len(parts[-1])
        return b"".join(parts)

    def sent(self, size: int) -> None:
        """Learn that a batch is written."""
        self.unsent -= size
        if self._calm is not None and self.unsent < CALM:
            self.release()

    async def wait_calm(self) -> None:
        """Wait until less than a quarter of TRANSPORT_QUEUE_MAX is unsent, or `release`."""
        if self.unsent >= CALM:
            if self._calm is None:
                self._calm = anyio.Event()
            await self._calm.wait()

    def release(self) -> None:
        """Wake whoever waits for calm."""
        if self._calm is not None:
            self._calm.set()
            self._calm = None

    def clear(self) -> None:
        """Drop everything: the link is gone."""
        self._pending.clear()
        self._urgent.clear()
        self.unsent = 0
        self.release()
