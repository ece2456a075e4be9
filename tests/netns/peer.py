"""A program with one SUDPH connection: sends and gets so many bytes, and says how it went.

`peer.py listen PORT SIZE PAUSE KEEPALIVE IDLE`, `peer.py dial HOST PORT SIZE PAUSE KEEPALIVE IDLE`.
It prints a line for each thing that happens, the last one as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time

import anyio

from skycore.model.addresses import Address
from skycore.runtime.clock import RealClock
from skycore.runtime.network import RealNetwork
from skycore.testing.fakes import SeededEntropy, identity
from transport_sudph.service import open_sudph
from transport_sudph.settings import SudphSettings

PORT = 7_777


def content(name, size):
    return hashlib.shake_128(name.encode()).digest(size)


def say(text):
    print(text, flush=True)


async def exchange(stream, own, other, size, pause_s):
    """Send `size` bytes and read as many at once; return the seconds, after a quiet time."""
    if pause_s:
        await stream.send(b"!")
        await stream.receive(1)
        await anyio.sleep(pause_s)
    say("started")
    began = time.monotonic()
    expected = content(other, size)

    async def read():
        got = bytearray()
        while len(got) < size:
            got += await stream.receive()
            if len(got) > size // 4 and not told:
                told.append(1)
                say("quarter")
        assert bytes(got[:size]) == expected, "bytes differ"
        rest.extend(got[size:])
        say("received")

    told, rest = [], bytearray()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        tasks.start_soon(stream.send, content(own, size))
    await stream.send(b".")
    assert bytes(rest or await stream.receive(1)) == b"."
    return time.monotonic() - began


async def main(mode, *words):
    host = words[0] if mode == "dial" else ""
    port, size, pause, keepalive, idle = words[-5:]
    settings = SudphSettings(
        listen=f"0.0.0.0:{port if mode == 'listen' else PORT}",
        keepalive_s=float(keepalive),
        idle_s=float(idle),
    )
    name, other = ("bob", "alice") if mode == "listen" else ("alice", "bob")
    entropy = SeededEntropy(time.monotonic_ns())
    async with open_sudph(settings, identity(name), RealClock(), entropy, RealNetwork()) as sudph:
        if mode == "listen":
            async with sudph.listen() as listener:
                say("ready")
                stream = await listener.accept()
                await report(sudph, stream, name, other, int(size), float(pause))
        else:
            to = [Address("sudph", f"{host}:{port}")]
            stream = await sudph.dial(identity(other).public, to)
            say("ready")
            await report(sudph, stream, name, other, int(size), float(pause))


async def report(sudph, stream, own, other, size, pause_s):
    began = time.monotonic()
    try:
        seconds = await exchange(stream, own, other, size, pause_s)
        said = {"ok": True, "seconds": seconds}
        await anyio.sleep(0.5)  # the last acknowledgement
    except BaseExceptionGroup as group:
        said = {"ok": False, "error": repr(group.exceptions[0]), "after": time.monotonic() - began}
    link = stream.link
    numbers = ("rtt_s", "lost", "sent", "retransmitted", "mtu")
    said |= {
        n: getattr(link, n) for n in numbers if isinstance(getattr(link, n, None), int | float)
    }
    said["peer"] = link.peer
    said["ignored"] = sudph.endpoint.counters["datagram_ignored"]
    say(json.dumps(said))


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
