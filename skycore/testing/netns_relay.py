"""A bad line: moves frames between two devices, late, twice, broken, reordered or not at all.

Why in user space: it does what netem would, on kernels without it, and repeats from a seed. Run in
a namespace of its own: `python -m skycore.testing.netns_relay DEVICE DEVICE DELAY_MS JITTER_MS LOSS
DUPLICATE REORDER REORDER_MS CORRUPT SEED`, shares in percent. ARP passes untouched.

What is broken is one bit behind the header of a UDP datagram, and its checksum is taken away: else
the next kernel would drop it, and it were mere loss.
"""

from __future__ import annotations

import heapq
import random
import select
import socket
import sys
import time
from typing import Final

__all__ = ["broken", "main"]

ALL_FRAMES: Final = 0x0003
IPV4: Final = b"\x08\x00"
ARP: Final = b"\x08\x06"
UDP: Final = 17
IP: Final = 14
"""Where an Ethernet frame's packet begins."""
OUTGOING: Final = 4
FRAME_MAX: Final = 65_536
HELD_MAX: Final = 50_000
"""Frames under way over which the line loses what comes: memory is bounded."""
BATCH: Final = 256


def _open(device: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_FRAMES))
    sock.bind((device, 0))
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 4 * 1024 * 1024)
    return sock


class _Relay:
    """Two sockets, and the frames under way between them."""

    def __init__(self, devices: list[str], values: list[float], seed: int) -> None:
        self._sockets = [_open(device) for device in devices]
        self._delay, self._jitter, self._loss, self._twice = values[:4]
        self._late, self._by, self._broken = values[4:]
        self._dice = random.Random(seed)
        self._held: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._last = [0.0, 0.0]

    def run(self) -> None:
        """Move frames, for ever."""
        while True:
            wait = max(0.0, self._held[0][0] - time.monotonic()) if self._held else None
            ready, _, _ = select.select(self._sockets, (), (), wait)
            for sock in ready:
                self._read(sock, 1 - self._sockets.index(sock))
            now = time.monotonic()
            while self._held and self._held[0][0] <= now:
                _, _, to, frame = heapq.heappop(self._held)
                self._send(to, frame)

    def _read(self, sock: socket.socket, to: int) -> None:
        for _ in range(BATCH):
            try:
                frame, where = sock.recvfrom(FRAME_MAX)
            except BlockingIOError:
                return
            if where[2] == OUTGOING:  # what this relay itself has sent
                continue
            if frame[12:14] == ARP:
                self._send(to, frame)
            elif self._roll(self._loss) or len(self._held) >= HELD_MAX:
                continue
            else:
                if self._roll(self._broken):
                    frame = broken(frame, self._dice.random())
                self._hold(to, frame)
                if self._roll(self._twice):
                    self._hold(to, frame)

    def _roll(self, percent: float) -> bool:
        return bool(percent) and self._dice.random() * 100 < percent

    def _hold(self, to: int, frame: bytes) -> None:
        """Let a frame wait for its time; jitter alone never changes the order."""
        at = time.monotonic() + (self._delay + self._jitter * self._dice.random()) / 1_000
        at = self._last[to] = max(at, self._last[to])
        if self._roll(self._late):
            at += self._by * self._dice.random() / 1_000
        self._count += 1
        heapq.heappush(self._held, (at, self._count, to, frame))

    def _send(self, to: int, frame: bytes) -> None:
        try:
            self._sockets[to].send(frame)
        except OSError:  # a full queue, or a device that is down: lost
            return


def broken(frame: bytes, where: float) -> bytes:
    """Flip the bit at a share (0 to 1) of a UDP datagram's content; what is none stays as it is.

    It then says that it has no checksum (RFC 768: zero), so a kernel lets it through.
    """
    if len(frame) <= IP + 9 or frame[12:14] != IPV4 or frame[IP + 9] != UDP:
        return frame
    udp = IP + 4 * (frame[IP] & 0x0F)
    content = udp + 8
    size = int.from_bytes(frame[udp + 4 : udp + 6], "big") - 8
    if size <= 0 or len(frame) < content + size:
        return frame
    bit = int(where * size * 8)
    data = bytearray(frame)
    data[content + bit // 8] ^= 1 << bit % 8
    data[udp + 6 : content] = b"\0\0"
    return bytes(data)


def main(words: list[str]) -> None:
    """Run the relay of a command line; says `ready` once it can."""
    relay = _Relay(words[:2], [float(word) for word in words[2:9]], int(words[9]))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    relay.run()


if __name__ == "__main__":
    main(sys.argv[1:])
