"""What every carrier of streams must do. Inherit `StreamsContract` and give it `pair`.

```
class TestMine(StreamsContract):
    @pytest.fixture
    async def pair(self):
        async with two_nodes() as (alice, bob):
            yield StreamsPair(alice.streams, bob.streams, alice.key, bob.key, bob.unplug)
```
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.lowlevel
import pytest

from skycore.contracts.streams import Service, Stream, StreamListener, Streams
from skycore.errors import DialError, PluginConflictError, StreamError
from skycore.model.keys import PubKey

__all__ = ["ECHO", "StreamsContract", "StreamsPair"]

ECHO = Service("echo", 200, 4_200)
LIMIT_S = 20.0


@dataclass(frozen=True)
class StreamsPair:
    """Two nodes that reach each other, and a third key that nobody has."""

    alice: Streams
    bob: Streams
    alice_key: PubKey
    bob_key: PubKey
    lose: Callable[[], Awaitable[None]]
    """Break whatever connects the two now; a new dial may connect them again."""
    nobody: PubKey | None = None


async def _echo(stream: Stream) -> None:
    while data := await stream.receive():
        await stream.send(data)
    await stream.send_eof()


async def _read_all(stream: Stream) -> bytes:
    parts = []
    while data := await stream.receive():
        parts.append(data)
    return b"".join(parts)


async def _settle() -> None:
    """Let everybody run until nobody has anything to do, on any reasonable carrier."""
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def _opened(pair: StreamsPair) -> AsyncIterator[tuple[Stream, Stream]]:
    """One stream from alice to bob, and both ends of it; one byte has crossed."""
    with anyio.fail_after(LIMIT_S):
        async with pair.bob.listen(ECHO) as listener:
            near = await pair.alice.dial(pair.bob_key, ECHO)
            await near.send(b"!")
            far = await listener.accept()
            assert await far.receive() == b"!"
            try:
                yield near, far
            finally:
                await near.aclose()
                await far.aclose()


class StreamsContract:
    """The promises of `contracts.streams`, one test each."""

    @pytest.fixture
    async def pair(self) -> AsyncIterator[StreamsPair]:
        """Override: yield two nodes."""
        raise NotImplementedError
        yield

    async def test_each_end_knows_the_other_by_its_key(self, pair: StreamsPair) -> None:
        """Identity is the carrier's, both ways."""
        async with _opened(pair) as (near, far):
            assert near.remote == pair.bob_key
            assert far.remote == pair.alice_key

    async def test_bytes_cross_both_ways_in_order(self, pair: StreamsPair) -> None:
        """More than any window, echoed while it is being sent."""
        data = bytes(i * 7 & 255 for i in range(600_000))
        async with _opened(pair) as (near, far), anyio.create_task_group() as tasks:
            tasks.start_soon(_echo, far)

            async def write() -> None:
                await near.send(data)
                await near.send_eof()

            tasks.start_soon(write)
            assert await _read_all(near) == data

    async def test_directions_end_on_their_own(self, pair: StreamsPair) -> None:
        """A side that has ended still receives."""
        async with _opened(pair) as (near, far):
            await near.send_eof()
            assert await far.receive() == b""
            assert await far.receive() == b""
            await far.send(b"late")
            await far.send_eof()
            assert await _read_all(near) == b"late"

    async def test_sending_after_the_end_is_an_error(self, pair: StreamsPair) -> None:
        """Ending twice is once; sending after it is refused."""
        async with _opened(pair) as (near, _far):
            await near.send_eof()
            await near.send_eof()
            with pytest.raises(StreamError):
                await near.send(b"more")

    async def test_receive_returns_at_most_what_was_asked(self, pair: StreamsPair) -> None:
        """Nothing is lost by asking for little."""
        async with _opened(pair) as (near, far):
            await near.send(b"abcdefgh")
            await near.send_eof()
            got = b""
            while data := await far.receive(3):
                assert 1 <= len(data) <= 3
                got += data
            assert got == b"abcdefgh"

    async def test_a_full_window_makes_the_sender_wait(self, pair: StreamsPair) -> None:
        """Memory of the reader is bounded; nothing is dropped once it reads."""
        data = bytes(4 * 1024 * 1024)
        async with _opened(pair) as (near, far), anyio.create_task_group() as tasks:
            done = anyio.Event()

            async def write() -> None:
                await near.send(data)
                await near.send_eof()
                done.set()

            tasks.start_soon(write)
            await _settle()
            assert not done.is_set()
            assert len(await _read_all(far)) == len(data)

    async def test_a_stalled_reader_delays_nobody_else(self, pair: StreamsPair) -> None:
        """F19: one stream's reader sleeps, another stream works."""
        async with _opened(pair) as (stalled, _), anyio.create_task_group() as tasks:
            tasks.start_soon(stalled.send, bytes(2 * 1024 * 1024))
            await _settle()
            with anyio.fail_after(LIMIT_S):
                async with pair.alice.listen(ECHO) as listener:
                    near = await pair.bob.dial(pair.alice_key, ECHO)
                    await near.send(b"hello")
                    far = await listener.accept()
                    assert await far.receive() == b"hello"
                    await near.aclose()
                    await far.aclose()
            tasks.cancel_scope.cancel()

    async def test_both_ends_open_at_once(self, pair: StreamsPair) -> None:
        """Ids never collide: 40 streams each way, opened together (O15)."""
        sums = {"alice": 0, "bob": 0}

        async def serve(listener: StreamListener) -> None:
            async with anyio.create_task_group() as workers:
                for _ in range(40):
                    workers.start_soon(_echo, await listener.accept())

        async def call(name: str, streams: Streams, key: PubKey, number: int) -> None:
            stream = await streams.dial(key, ECHO)
            word = f"{name} {number}".encode()
            await stream.send(word)
            await stream.send_eof()
            assert await _read_all(stream) == word
            await stream.aclose()
            sums[name] += 1

        with anyio.fail_after(LIMIT_S):
            async with (
                pair.alice.listen(ECHO) as to_alice,
                pair.bob.listen(ECHO) as to_bob,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(serve, to_alice)
                tasks.start_soon(serve, to_bob)
                for number in range(40):
                    tasks.start_soon(call, "alice", pair.alice, pair.bob_key, number)
                    tasks.start_soon(call, "bob", pair.bob, pair.alice_key, number)
        assert sums == {"alice": 40, "bob": 40}

    async def test_close_never_waits_and_the_peer_learns(self, pair: StreamsPair) -> None:
        """Closing with unread data and a blocked peer: at once, twice, and the peer is freed."""
        async with _opened(pair) as (near, far), anyio.create_task_group() as tasks:
            freed = anyio.Event()

            async def write() -> None:
                with pytest.raises(StreamError):
                    await near.send(bytes(8 * 1024 * 1024))
                freed.set()

            tasks.start_soon(write)
            await _settle()
            await far.aclose()
            await far.aclose()
            await freed.wait()
            with pytest.raises(StreamError):
                await far.receive()
            with pytest.raises(StreamError):
                await far.send(b"x")

    async def test_close_wakes_its_own_reader(self, pair: StreamsPair) -> None:
        """Another task that reads the stream does not hang."""
        async with _opened(pair) as (near, _far), anyio.create_task_group() as tasks:

            async def read() -> None:
                with pytest.raises(StreamError):
                    await near.receive()

            tasks.start_soon(read)
            await _settle()
            await near.aclose()

    async def test_what_was_sent_before_close_arrives(self, pair: StreamsPair) -> None:
        """An answer followed by a close is an answer, though the request was not read."""
        async with _opened(pair) as (near, far):
            await near.send(b"a request that nobody reads")
            await _settle()
            await far.send(b"refused")
            await far.aclose()
            assert await _read_all(near) == b"refused"

    async def test_loss_fails_all_streams_and_a_new_dial_works(self, pair: StreamsPair) -> None:
        """T4936: nobody stays blocked when the link dies."""
        async with _opened(pair) as (near, far):

            async def read(stream: Stream) -> None:
                with pytest.raises(StreamError):
                    await stream.receive()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, near)
                tasks.start_soon(read, far)
                await _settle()
                await pair.lose()
            with pytest.raises(StreamError):
                await near.send(b"x")
        async with _opened(pair) as (near, far):
            await near.send(b"again")
            assert await far.receive() == b"again"

    async def test_nobody_listens(self, pair: StreamsPair) -> None:
        """The dialler is told, at the latest when it reads."""
        with anyio.fail_after(LIMIT_S), pytest.raises((StreamError, DialError)):
            stream = await pair.alice.dial(pair.bob_key, ECHO)
            await stream.send(b"anybody?")
            assert await stream.receive() != b""

    async def test_a_service_is_listened_for_once(self, pair: StreamsPair) -> None:
        """Taken is an error by name; free again after the context."""
        async with pair.bob.listen(ECHO):
            with pytest.raises(PluginConflictError):
                async with pair.bob.listen(ECHO):
                    pass
        async with _opened(pair):
            pass

    async def test_cancelled_calls_lose_nothing(self, pair: StreamsPair) -> None:
        """`accept` and `receive` that were given up leave stream and data to the next call."""
        with anyio.fail_after(LIMIT_S):
            async with pair.bob.listen(ECHO) as listener:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(listener.accept)
                    await _settle()
                    tasks.cancel_scope.cancel()
                near = await pair.alice.dial(pair.bob_key, ECHO)
                await near.send(b"1")
                far = await listener.accept()
                assert await far.receive() == b"1"
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(far.receive)
                    await _settle()
                    tasks.cancel_scope.cancel()
                await near.send(b"2")
                assert await far.receive() == b"2"
                await near.aclose()
                await far.aclose()

    async def test_a_key_that_nobody_has(self, pair: StreamsPair) -> None:
        """DialError, and soon."""
        if pair.nobody is None:
            pytest.skip("this carrier has no unreachable key")
        with anyio.fail_after(LIMIT_S), pytest.raises(DialError):
            await pair.alice.dial(pair.nobody, ECHO)
