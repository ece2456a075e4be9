"""Whoever takes all that he may, from one key, one address or many: others hardly notice."""

from __future__ import annotations

import asyncio
import contextlib
import types

import anyio
import pytest

from relay_dmsg.core.dials import make_answer
from relay_dmsg.core.messages import Answer, Attached, Code, Refused
from relay_dmsg.framing import read_message, send_message
from relay_dmsg.numbers import KIND, TO_SERVER
from relay_dmsg.splice import CHUNK_MAX
from skycore.errors import SkycoreError, StreamError
from skycore.testing.streams import BUFFER_MAX


async def taken(listener, identity, streams):
    """Accept every dial, and read nothing."""
    while True:
        stream = await listener.accept()
        await send_message(stream, make_answer(identity, await read_message(stream), Code.ACCEPTED))
        streams.append(stream)


@pytest.fixture
async def tasks(bench):
    tasks = await bench.stack.enter_async_context(anyio.create_task_group())
    bench.stack.callback(tasks.cancel_scope.cancel)
    return tasks


async def attached(bench, tasks, name):
    """Attach somebody by hand who accepts all and reads nothing; return the streams he has."""
    streams = []
    listener = await bench.stack.enter_async_context(bench.taking(name))
    await bench.attach(name)
    tasks.start_soon(taken, listener, bench.who(name), streams)
    return streams


def at(relay, bench, host, *names):
    """Let names be at a host, as the network shows it."""
    for name in names:
        relay.links.links[bench.key(name)] = types.SimpleNamespace(type="stcpr", host=host)


async def silent(bench, name, count):
    carrier = bench.streams(name)
    return [await carrier.dial(bench.key("server"), TO_SERVER) for _ in range(count)]


async def answered_s(bench, src, dst):
    """Dial; return the code and how long it took."""
    began = anyio.current_time()
    stream, answer = await bench.dial(src, dst)
    await stream.aclose()
    return answer.code, anyio.current_time() - began


async def test_t2482_keys_of_one_address_share_an_eighth_of_the_requests(bench, tasks, monkeypatch):
    monkeypatch.setattr("relay_dmsg.server.relay.REQUESTS_NODE_MAX", 512)
    relay = await bench.server()
    await attached(bench, tasks, "bob")
    names = [f"flood {n}" for n in range(10)]
    at(relay, bench, "2001:db8::1", *names[:5])
    at(relay, bench, "2001:db8::2", *names[5:])  # the same /64
    for name in names:
        await silent(bench, name, 30)
    await anyio.sleep(0.1)
    assert relay.requests.taken == 64
    code, took = await answered_s(bench, "alice", "bob")
    assert code == Code.ACCEPTED and took < 0.1
    await anyio.sleep(10)
    assert not relay.requests.taken


@pytest.mark.parametrize("count", [1_500, pytest.param(50_000, marks=pytest.mark.soak)])
async def test_t2482_half_open_streams_are_bounded_in_all(bench, monkeypatch, count):
    """115,000 tasks and 4.6 GB upstream (#2482, #2497): here as many as there are places."""
    if count < 10_000:
        monkeypatch.setattr("relay_dmsg.server.relay.REQUESTS_NODE_MAX", 512)
        monkeypatch.setattr("relay_dmsg.server.relay.GOODBYES_NODE_MAX", 128)
    places, goodbyes = (512, 128) if count < 10_000 else (4_096, 1_024)
    relay = await bench.server()
    await anyio.sleep(1)
    before, per_key = len(asyncio.all_tasks()), max(100, count // 100)
    for n in range(count // per_key):
        name = f"flood {n}"
        at(relay, bench, f"10.0.{n // 200}.{n % 200}", name)
        await silent(bench, name, per_key)
        await anyio.sleep(0)
        assert len(asyncio.all_tasks()) - before <= places + goodbyes + per_key
    await anyio.sleep(0.1)
    assert len(asyncio.all_tasks()) - before <= places + goodbyes
    await anyio.sleep(10)
    assert len(asyncio.all_tasks()) == before and not len(relay.requests)


async def test_t2299_streams_of_one_address_are_an_eighth_of_all(bench, tasks):
    relay = await bench.server(streams_node_max=160, streams_max=8, dials_per_minute=0)
    for n in range(8):
        await attached(bench, tasks, f"there {n}")
    names = [f"flood {n}" for n in range(6)]
    at(relay, bench, "192.0.2.1", *names)
    codes = []
    for name in names:
        for n in range(8):
            _, answer = await bench.dial(name, f"there {n}")
            codes.append(answer.code)
    assert codes.count(Code.ACCEPTED) == 20 and set(codes) == {Code.ACCEPTED, Code.LIMIT}
    at(relay, bench, "192.0.2.2", "alice")
    assert (await answered_s(bench, "alice", "there 0"))[0] == Code.ACCEPTED


async def test_t1803_a_key_that_dials_without_end_delays_nobody(bench, tasks):
    relay = await bench.server()
    await attached(bench, tasks, "bob")
    codes = []

    async def dial():
        try:
            stream, answer = await bench.dial("mallory", "bob")
        except SkycoreError:
            codes.append("ended")  # so many refusals are not kept until they are read
        else:
            codes.append(answer.code)
            await stream.aclose()

    for _ in range(400):
        tasks.start_soon(dial)
    await anyio.sleep(0.002)
    took = [await answered_s(bench, f"peer{n}", "bob") for n in range(20)]
    assert {code for code, _ in took} == {Code.ACCEPTED} and max(s for _, s in took) < 0.1
    await bench.until(lambda: len(codes) == 400)
    assert 0 < codes.count(Code.ACCEPTED) <= 150 and codes.count(Code.LIMIT) >= 64
    assert len(relay.sessions) == 1


async def test_t3035_sessions_of_one_address_push_out_nobody(bench):
    """Keys by the thousand from one address: its share, and not one session of anybody else's."""
    relay = await bench.server(sessions_max=64, sessions_per_host_max=16)
    honest = [f"honest {n}" for n in range(40)]
    for n, name in enumerate(honest):
        at(relay, bench, f"192.0.2.{n}", name)
        assert isinstance((await bench.attach(name)).answer, Attached)
    answers = []
    for n in range(300):
        at(relay, bench, "198.51.100.1", f"flood {n}")
        stream = await bench.attach(f"flood {n}")
        answers.append(stream.answer)
        if not isinstance(stream.answer, Attached):
            await stream.aclose()
    assert sum(isinstance(a, Attached) for a in answers) == 16
    assert {a.code for a in answers if isinstance(a, Refused)} == {Code.LIMIT}
    assert all(relay.sessions.find(bench.key(name)) for name in honest)


async def test_t5049_a_reader_that_is_slow_holds_a_window_and_delays_nobody(bench, tasks):
    """What he does not read is felt by who sends to him, and kept nowhere on the way."""
    relay = await bench.server()
    far = await attached(bench, tasks, "bob")
    slow, _ = await bench.dial("alice", "bob")
    quick, _ = await bench.dial("carol", "bob")
    sent = 0

    async def pour():
        nonlocal sent
        with contextlib.suppress(StreamError):
            while True:
                await slow.send(bytes(CHUNK_MAX))
                sent += CHUNK_MAX

    tasks.start_soon(pour)
    await anyio.sleep(60)
    assert sent <= 2 * (BUFFER_MAX + 2 * CHUNK_MAX)
    began = anyio.current_time()
    await quick.send(b"hello")
    assert await far[1].receive() == b"hello" and anyio.current_time() - began < 0.1
    await anyio.sleep(400)
    assert not relay.splices and relay.counters["reaped"] == 2
    assert not relay.places.taken


async def test_t3152_a_silent_destination_is_told_at_once_and_not_dialled(bench, tasks):
    """Its session may outlive an outage: a relay must not go and look for it meanwhile."""
    relay = await bench.server()
    await attached(bench, tasks, "bob")
    dials = bench.exchange.dials
    relay.links.find = lambda remote: None
    _, answer = await bench.dial("alice", "bob")
    assert answer.code == Code.NO_ANSWER and "silent" in answer.reason
    assert bench.exchange.dials == dials + 1  # the one to the relay itself
    assert not relay.links.ensured


async def test_a_destination_cannot_speak_in_the_relays_name(bench, tasks):
    """An answer without a signature would stand for the relay's own."""
    await bench.server()
    async with bench.taking("bob") as listener:
        await bench.attach("bob")

        async def lie():
            stream = await listener.accept()
            await read_message(stream)
            await send_message(stream, Answer(Code.NOT_ATTACHED, "the relay says no"))

        tasks.start_soon(lie)
        _, answer = await bench.dial("alice", "bob")
    assert answer.code == Code.NO_ANSWER and "not its own" in answer.reason


async def test_no_dial_through_another_relay(bench, tasks):
    relay = await bench.server()
    await attached(bench, tasks, "bob")
    relay.links.links[bench.key("alice")] = types.SimpleNamespace(type=KIND, host="")
    _, answer = await bench.dial("alice", "bob")
    assert answer.code == Code.NOT_ALLOWED and relay.counters["refused_not_allowed"] == 1


async def test_t2294_who_is_made_to_wait_for_his_bytes_is_not_idle(bench, tasks):
    """Many streams of one key share its rate: each waits for long, and none is reaped for it."""
    relay = await bench.server(bytes_per_s=1_000, idle_s=60)
    far = await attached(bench, tasks, "bob")
    for _ in range(4):
        stream, answer = await bench.dial("alice", "bob")
        assert answer.code == Code.ACCEPTED
        await stream.send(bytes(CHUNK_MAX))
    await anyio.sleep(90)
    assert len(relay.splices) == 4 and not relay.counters["reaped"]
    for end in far:
        assert await end.receive()
    await anyio.sleep(4 * CHUNK_MAX / 1_000 + 120)
    assert relay.counters["reaped"] == 4
