"""What dials leave behind that came to nothing: no task, no stream, no entry, no memory.

Upstream's servers kept 600 KB of each (340 MB in hours), and 20,000 copy workers that waited for
ever. Every kind of failure is tried on its own, thousands of times, on virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
from collections import Counter
from pathlib import Path

import anyio
import pytest

from relay_dmsg.core.dials import make_answer
from relay_dmsg.core.messages import Code, Dial
from relay_dmsg.framing import read_message, send_message
from relay_dmsg.numbers import TO_SERVER
from relay_dmsg.server.sessions import Session
from relay_dmsg.splice import Splice
from skycore.errors import DialError, StreamError
from skycore.testing import sim_backend
from skycore.testing.streams import MemoryStream

COUNTED = (Splice, Session, MemoryStream, Dial, asyncio.Task)
FEW, MANY = 200, 10_000
GROWTH_MAX = 5 * 1024 * 1024
"""Bytes that 10,000 failures may leave of all kinds: transport.md's row."""


def census():
    """Return how many of each kind of thing are alive."""
    gc.collect()
    kinds = Counter(type(thing).__name__ for thing in gc.get_objects() if type(thing) in COUNTED)
    kinds["Task"] = len(asyncio.all_tasks())
    return kinds


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Ways:
    """Ways in which a dial fails; bob is a real client, carol and dave are played by hand."""

    def __init__(self, bench, relay):
        self.bench, self.relay = bench, relay

    async def open(self):
        bench, enter = self.bench, self.bench.stack.enter_async_context
        self.bob = await bench.client("bob", "server")
        self.carol = await enter(bench.taking("carol"))
        self.dave = await enter(bench.taking("dave"))
        self.controls = [await bench.attach("carol"), await bench.attach("dave")]
        self.alice = await bench.client("alice", "server")
        tasks = await enter(anyio.create_task_group())
        bench.stack.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(self.accept)
        self.tasks = tasks
        await bench.until(lambda: self.alice.can_ask and self.bob.can_ask)

    async def accept(self):
        """Dave accepts every dial, and holds what comes until it ends."""
        while True:
            self.tasks.start_soon(self.hold, await self.dave.accept())

    async def hold(self, stream):
        try:
            dial = await read_message(stream)
            await send_message(stream, make_answer(self.bench.who("dave"), dial, Code.ACCEPTED))
            data = await stream.receive()
            if data == b"reset there":
                stream.fail("lost")
                stream.other.fail("lost")
            while await stream.receive():
                pass
        except StreamError:
            pass
        finally:
            await stream.aclose()

    async def begin(self, turn, dst, **changes):
        """Send a dial by hand; return its stream."""
        src = f"peer{turn % 40}"
        stream = await self.bench.streams(src).dial(self.bench.key("server"), TO_SERVER)
        await send_message(stream, self.bench.signed(src, dst, **changes))
        return stream

    async def expect(self, stream, code):
        assert (await read_message(stream)).code == code
        await stream.aclose()

    async def ended(self, far):
        """The server ended what it had opened to the destination."""
        with anyio.fail_after(1), contextlib.suppress(StreamError):
            while await far.receive():
                pass
        await far.aclose()

    # --- the ways --------------------------------------------------------------------------------

    async def no_listener(self, turn):
        await self.expect(await self.begin(turn, "bob", port=80), Code.NO_LISTENER)

    async def not_attached(self, turn):
        await self.expect(await self.begin(turn, "nobody"), Code.NOT_ATTACHED)

    async def door_of_a_client(self, turn):
        with pytest.raises(DialError, match="NOT_ATTACHED"):
            await self.alice.dial(self.bench.key("nobody"), ())

    async def destination_dies(self, turn):
        """Before, or after, it has read the dial."""
        stream = await self.begin(turn, "carol")
        far = await self.carol.accept()
        if turn % 2:
            await read_message(far)
        far.fail("lost")
        far.other.fail("lost")
        await self.expect(stream, Code.NO_ANSWER)

    async def destination_is_silent(self, turn):
        stream = await self.begin(turn, "carol")
        far = await self.carol.accept()
        await read_message(far)
        await self.expect(stream, Code.NO_ANSWER)
        await self.ended(far)

    async def destination_answers_nonsense(self, turn):
        """Not signed, or signed by somebody else, or no answer at all."""
        stream = await self.begin(turn, "carol")
        far = await self.carol.accept()
        dial = await read_message(far)
        if turn % 2:
            await send_message(far, make_answer(self.bench.who("dave"), dial, Code.ACCEPTED))
        else:
            await far.send(b"\0\3\6\x91")
        await self.expect(stream, Code.NO_ANSWER)
        await self.ended(far)

    async def dialler_dies(self, turn):
        """While its request comes, while it is asked for, or after it was answered."""
        if turn % 3 == 0:
            key = self.bench.key("server")
            stream = await self.bench.streams("peer").dial(key, TO_SERVER)
            await stream.send(b"\1\0")
            stream.fail("lost")
            stream.other.fail("lost")
            return
        stream = await self.begin(turn, "carol")
        far = await self.carol.accept()
        dial = await read_message(far)
        stream.fail("lost")
        stream.other.fail("lost")
        if turn % 3 == 1:
            await send_message(far, make_answer(self.bench.who("carol"), dial, Code.ACCEPTED))
        else:
            await anyio.sleep(6)
        await self.ended(far)

    async def splice_is_reset(self, turn):
        """By the dialler, by the destination, or idle for too long."""
        stream = await self.begin(turn, "dave")
        assert (await read_message(stream)).code == Code.ACCEPTED
        if turn % 3 == 0:
            await stream.send(b"reset there")
            with pytest.raises(StreamError):
                while await stream.receive():
                    pass
                raise StreamError("over")
        elif turn % 3 == 1:
            stream.fail("lost")
            stream.other.fail("lost")
        elif turn % 60 == 2:
            await anyio.sleep(400)
        await stream.aclose()


HELPERS = ("open", "accept", "hold", "begin", "expect", "ended")
WAYS = [name for name in vars(Ways) if not name.startswith("_") and name not in HELPERS]


def entries(ways):
    """Return the sizes of all that a relay and its clients keep of dials."""
    relay, bob = ways.relay, ways.bob.client
    return {
        "splices": len(relay.splices),
        "places": relay.places.taken + len(relay.places),
        "requests": relay.requests.taken + len(relay.requests),
        "sessions": len(relay.sessions),
        "answering": len(bob.inbound._requests),
        "promised": ways.bob._promised + len(ways.bob._waiting),
        "reaching": len(ways.alice.client.reach._reaching),
        "streams": ways.bench.exchange.count_open(),
    }


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=48 * 3_600)


@pytest.mark.parametrize("turns", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
@pytest.mark.parametrize("way", WAYS)
async def test_t2482_a_dial_that_fails_leaves_nothing_behind(bench, way, turns):
    relay = await bench.server(dials_per_minute=0)
    ways = Ways(bench, relay)
    await ways.open()
    fail = getattr(ways, way)

    async def fail_often(count):
        for turn in range(count):
            await fail(turn)
            if turn % 500 == 499:
                await settle()

    async def settle():
        await anyio.sleep(30)
        gc.collect()

    await fail_often(turns // 10)  # what is made once is made now, and what a peak needs is there
    await settle()
    entered, alive, held = entries(ways), census(), resident()
    await fail_often(turns)
    await settle()
    assert entries(ways) == entered and census() == alive
    assert turns == FEW or resident() - held < GROWTH_MAX
    assert len(relay.sessions) == 4  # and nobody's session was lost by it
