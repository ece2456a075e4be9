"""A server that stops says so: to its clients, and to everybody who might dial it later."""

from __future__ import annotations

import contextlib

import anyio
import pytest

from relay_dmsg.core.messages import Answer, Code, Refused
from relay_dmsg.framing import read_message, send_message
from relay_dmsg.numbers import TO_SERVER
from skycore.errors import StreamError


@contextlib.asynccontextmanager
async def server(bench, **settings):
    """A server that can be stopped before the test ends."""
    whole, bench.stack = bench.stack, contextlib.AsyncExitStack()
    async with bench.stack as short:
        bench.stack = short
        relay = await bench.server(**settings)
        bench.stack = whole
        yield relay


async def test_c24_a_server_that_stops_takes_its_record_back(bench):
    """Else visors would dial it until its lease ends: two hours."""
    async with server(bench, advertise="relay.example:7777"):
        await anyio.sleep(20)
        assert [fact.v is None for fact in bench.published.facts] == [False]
    last = bench.published.facts[-1]
    assert (last.salt, last.v) == (b"dmsg-server", None) and len(bench.published.facts) == 2
    await anyio.sleep(1_000)
    assert len(bench.published.facts) == 2


async def test_c24_what_was_never_told_is_not_taken_back(bench, monkeypatch):
    monkeypatch.setattr("relay_dmsg.server.telling.told_address", lambda *_: "")
    async with server(bench):
        await anyio.sleep(20)
    assert not bench.published.facts


async def test_c24_a_record_on_its_way_does_not_come_after_its_end(bench):
    """A slow publication, and the stop in the middle of it."""
    publish = bench.published.publish

    async def slow(fact, *, cas=None):
        await anyio.sleep(1)
        return await publish(fact, cas=cas)

    bench.published.publish = slow
    async with server(bench, advertise="relay.example:7777"):
        await anyio.sleep(0.5)
    assert [fact.v is None for fact in bench.published.facts] == [False, True]


async def test_a_publisher_that_hangs_delays_the_stop_by_seconds(bench):
    async with server(bench, advertise="relay.example:7777"):
        await anyio.sleep(10)

        async def hang(fact, *, cas=None):
            await anyio.sleep_forever()

        bench.published.publish = hang
        began = anyio.current_time()
    assert anyio.current_time() - began <= 2.5


async def test_clients_are_told_and_who_comes_meanwhile_is_refused(bench):
    async with server(bench) as relay:
        control = await bench.attach("bob")
        await relay.stop()
        said = await read_message(control)
        assert isinstance(said, Refused) and said.code == Code.STOPPING
        stream = await bench.streams("carol").dial(bench.key("server"), TO_SERVER)
        await send_message(stream, bench.signed("carol", "bob"))
        answer = await read_message(stream)
        assert isinstance(answer, Answer) and answer.code == Code.STOPPING
        with pytest.raises(StreamError):
            while await control.receive():
                pass
            raise StreamError("ended")
        await bench.until(lambda: not len(relay.sessions))


async def test_t4998_a_client_that_does_not_read_delays_the_stop_by_a_second(bench):
    """Upstream held a lock for four seconds while it closed (#4998)."""
    async with server(bench) as relay:
        for n in range(20):
            control = await bench.attach(f"mute {n}")
            session = relay.sessions.find(bench.key(f"mute {n}"))
            session.stream.send = lambda data: anyio.sleep_forever()
            assert control.answer
        began = anyio.current_time()
    assert anyio.current_time() - began <= 1.1


async def test_a_client_that_is_told_goes_elsewhere_at_once(bench):
    await bench.server("one")
    alice = await bench.client("alice", "gone", "one", sessions_max=2, sessions_min=1)
    sessions = alice.client.keeper.sessions
    await bench.until(lambda: set(sessions) == {bench.key("one")})
    gone = alice.client.servers.find(bench.key("gone"))
    async with server(bench, name="gone"):
        await bench.until(lambda: len(sessions) == 2, limit_s=130)
    await bench.until(lambda: bench.key("gone") not in sessions, limit_s=1)
    assert "STOPPING" in gone.trouble
    assert bench.key("one") in sessions
