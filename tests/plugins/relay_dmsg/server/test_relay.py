"""A relay, spoken to by hand: what it refuses, what it holds, and what it leaves behind."""

from __future__ import annotations

import random
import types

import anyio
import pytest

from relay_dmsg.core.dials import make_answer, make_dial
from relay_dmsg.core.messages import Answer, Attached, Code, Pulse, Refused, encode
from relay_dmsg.framing import read_message, send_message
from relay_dmsg.numbers import KIND, TO_SERVER
from relay_dmsg.server.service import open_status
from relay_dmsg.server.telling import told_address
from relay_dmsg.settings import DmsgServerSettings
from skycore.errors import StreamError
from skycore.model.addresses import Address
from skycore.model.entries import AddressBind


async def echo(listener, identity, codes=None):
    """Accept every dial and send back what comes."""

    async def one(stream):
        try:
            dial = await read_message(stream)
            code = next(codes) if codes else Code.ACCEPTED
            await send_message(stream, make_answer(identity, dial, code))
            while data := await stream.receive():
                await stream.send(data)
            await stream.send_eof()
        except StreamError:
            pass

    async with anyio.create_task_group() as tasks:
        while True:
            tasks.start_soon(one, await listener.accept())


@pytest.fixture
async def bob(bench):
    """Bob, attached by hand, echoes; and a relay."""
    relay = await bench.server()
    async with bench.taking("bob") as listener, anyio.create_task_group() as tasks:
        bob = await bench.attach("bob")
        tasks.start_soon(echo, listener, bench.who("bob"))
        yield types.SimpleNamespace(relay=relay, control=bob, listener=listener)
        tasks.cancel_scope.cancel()


def is_empty(relay):
    """Tell whether nothing of any dial is left."""
    return not (relay.splices or relay.places.taken or relay.requests.taken)


async def test_attach_and_stream(bench, bob):
    assert isinstance(bob.control.answer, Attached)
    stream, answer = await bench.dial("alice", "bob")
    assert answer.code == Code.ACCEPTED and answer.signature
    await stream.send(b"x" * 200_000)
    got = b""
    while len(got) < 200_000:
        got += await stream.receive()
    assert bob.relay.counters["bytes"] == 400_000
    await stream.send_eof()
    assert await stream.receive() == b""
    await bench.until(lambda: is_empty(bob.relay))


REFUSALS = {
    "nobody": ({"dst": "carol"}, Code.NOT_ATTACHED),
    "stale": ({"age_s": 61}, Code.STALE),
    "ahead": ({"age_s": -61}, Code.STALE),
    "to itself": ({"dst": "server"}, Code.BAD_REQUEST),
    "own": ({"dst": "alice"}, Code.BAD_REQUEST),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_every_refusal_has_a_code_and_a_reason(bench, bob, name):
    """Upstream's relays closed the stream and said nothing (transport.md 7.3)."""
    wish, code = REFUSALS[name]
    time_ns = bench.clock.wall_ns() - wish.get("age_s", 0) * 10**9
    began = anyio.current_time()
    _, answer = await bench.dial("alice", wish.get("dst", "bob"), time_ns=time_ns)
    assert answer.code == code and answer.reason and not answer.signature
    assert anyio.current_time() - began < 1
    assert bob.relay.counters[f"refused_{code.name.lower()}"] == 1
    await bench.until(lambda: is_empty(bob.relay))


async def test_a_dial_in_anothers_name_is_refused(bench, bob):
    """Who speaks is the transport's key (section 4: spoofed senders)."""
    stream = await bench.streams("mallory").dial(bench.key("server"), TO_SERVER)
    await send_message(stream, bench.signed("alice", "bob"))
    assert (await read_message(stream)).code == Code.BAD_REQUEST
    stream = await bench.streams("mallory").dial(bench.key("server"), TO_SERVER)
    await send_message(stream, make_dial(bench.who("mallory"), bench.request("alice", "bob")))
    assert (await read_message(stream)).code == Code.BAD_REQUEST


async def test_1000_bad_requests_and_no_session_lost(bench, bob):
    """One bad request of one peer ended the session of another (N, "session rot")."""
    relay, dice = bob.relay, random.Random(11)
    mine = await bench.attach("mallory")
    good = encode(bench.signed("mallory", "bob"))
    for turn in range(1_000):
        stream = await bench.streams("mallory").dial(bench.key("server"), TO_SERVER)
        if turn % 4 == 0:
            data = dice.randbytes(dice.randrange(1, 300))
        elif turn % 4 == 1:
            data = good[: dice.randrange(len(good))]
        elif turn % 4 == 2:
            broken = bytearray(good)
            broken[dice.randrange(2, len(good))] ^= dice.randrange(1, 256)
            data = bytes(broken)
        else:
            data = encode(dice.choice([Pulse(), Answer(0), Attached(1), Refused(3, "no")]))
        try:
            await stream.send(data)
            if turn % 5:
                await stream.send_eof()
        except StreamError:
            pass
        await stream.aclose()
    await anyio.sleep(10)
    assert len(relay.sessions) == 2 and is_empty(relay)
    stream, answer = await bench.dial("alice", "bob")
    assert answer.code == Code.ACCEPTED
    await mine.send(b"\0\1\xff" * 1_000)
    await anyio.sleep(1)
    assert len(relay.sessions) == 2  # nor does nonsense on a control stream, framed as it must be


@pytest.mark.parametrize("cycles", [1_000, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_1803_cycles_of_creation_and_deletion(bench, bob, cycles):
    """Upstream broke after about 334 (#1803, #1491, #2552)."""
    for turn in range(cycles):
        stream, answer = await bench.dial("alice" if turn % 2 else f"peer{turn % 50}", "bob")
        if answer.code == Code.LIMIT:
            await anyio.sleep(15)
            continue
        assert answer.code == Code.ACCEPTED, answer
        await stream.aclose()
        if turn % 10 == 0:
            await anyio.sleep(2)
    await bench.until(lambda: is_empty(bob.relay))
    assert len(bob.relay.sessions) == 1


async def test_failed_forwards_leave_nothing_behind(bench):
    """Each leaked 600 KB on the destination's side, 340 MB in hours."""
    relay = await bench.server(dials_per_minute=0)
    async with bench.taking("bob") as listener:
        await bench.attach("bob")
        held = []

        async def swallow():
            while True:
                held.append(await listener.accept())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(swallow)
            for turn in range(300):
                with anyio.move_on_after(0.01 if turn % 2 else 6):
                    _, answer = await bench.dial(f"peer{turn}", "bob")
                    assert answer.code == Code.NO_ANSWER and "answer" in answer.reason
            await anyio.sleep(10)
            tasks.cancel_scope.cancel()
        assert is_empty(relay) and len(held) == 300
        for stream in held:  # what was opened to the destination was closed
            with anyio.fail_after(1):
                while not await ended(stream):
                    pass
    bench.exchange.stop(bench.key("bob"))
    _, answer = await bench.dial("alice", "bob")
    assert answer.code in (Code.NO_ANSWER, Code.NOT_ATTACHED) and is_empty(relay)


async def test_3035_the_newest_session_wins(bench, bob):
    again = await bench.attach("bob")
    assert isinstance(await read_message(bob.control), Refused)
    await anyio.sleep(5)
    assert len(bob.relay.sessions) == 1
    _, answer = await bench.dial("alice", "bob")
    assert answer.code == Code.ACCEPTED
    await again.aclose()
    await bench.until(lambda: not len(bob.relay.sessions))


async def test_a_session_ends_with_its_control_stream(bench, bob):
    await bob.control.aclose()
    await bench.until(lambda: not len(bob.relay.sessions), limit_s=1)
    _, answer = await bench.dial("alice", "bob")
    assert answer.code == Code.NOT_ATTACHED


async def test_sessions_are_bounded_in_all_and_for_each_address(bench):
    relay = await bench.server(sessions_max=3, sessions_per_host_max=2)
    for name, host in (("a", "192.0.2.1"), ("b", "192.0.2.1"), ("c", "192.0.2.1"),
                       ("d", "192.0.2.2"), ("e", "192.0.2.3")):  # fmt: skip
        relay.links.links[bench.key(name)] = types.SimpleNamespace(type="stcpr", host=host)
    answers = {name: (await bench.attach(name)).answer for name in "abcde"}
    assert {n: type(a).__name__ for n, a in answers.items()} == {
        "a": "Attached", "b": "Attached", "c": "Refused", "d": "Attached", "e": "Refused",
    }  # fmt: skip
    assert (answers["c"].code, answers["e"].code) == (Code.LIMIT, Code.BUSY)
    assert relay.counters["refused"] == 2


async def test_no_relay_over_a_relay(bench):
    relay = await bench.server()
    relay.links.links[bench.key("alice")] = types.SimpleNamespace(type=KIND, host="")
    assert (await bench.attach("alice")).answer.code == Code.NOT_ALLOWED


async def test_another_version_is_told_so(bench):
    await bench.server()
    stream = await bench.streams("alice").dial(bench.key("server"), TO_SERVER)
    await stream.send(b"\0\4\1\x92\2\xa0")
    answer = await read_message(stream)
    assert isinstance(answer, Refused) and "version" in answer.reason


async def test_dials_are_bounded_a_minute(bench):
    relay = await bench.server(dials_per_minute=60)
    codes = [(await bench.dial("alice", "bob"))[1].code for _ in range(20)]
    assert codes.count(Code.NOT_ATTACHED) == 15 and codes[-1] == Code.LIMIT
    assert (await bench.dial("carol", "bob"))[1].code == Code.NOT_ATTACHED
    await anyio.sleep(10)
    assert (await bench.dial("alice", "bob"))[1].code == Code.NOT_ATTACHED
    assert relay.counters["refused_limit"] == 5


async def test_streams_are_bounded_for_a_key(bench):
    relay = await bench.server(streams_max=2)
    async with bench.taking("bob") as listener, anyio.create_task_group() as tasks:
        await bench.attach("bob")
        tasks.start_soon(echo, listener, bench.who("bob"))
        first, _ = await bench.dial("alice", "bob")
        await bench.dial("carol", "bob")
        _, refused = await bench.dial("dave", "bob")
        assert refused.code == Code.LIMIT
        await first.aclose()
        await bench.until(lambda: len(relay.splices) == 1)
        assert (await bench.dial("dave", "bob"))[1].code == Code.ACCEPTED
        tasks.cancel_scope.cancel()


async def test_2482_requests_under_way_are_bounded(bench, bob):
    """Half-open streams had no bound: 115,000 of them, 4.6 GB (#2482, #2497)."""
    carrier = bench.streams("mallory")
    silent = [await carrier.dial(bench.key("server"), TO_SERVER) for _ in range(100)]
    await anyio.sleep(1)
    assert bob.relay.requests.of(bench.key("mallory")) == 64
    assert (await read_message(silent[-1])).code == Code.LIMIT
    assert (await bench.dial("alice", "bob"))[1].code == Code.ACCEPTED
    await anyio.sleep(10)
    assert not bob.relay.requests.taken


async def test_attachments_count_as_dials_do(bench):
    """A key that attaches again and again wears itself out, nobody else."""
    relay = await bench.server(dials_per_minute=40)
    answers = [(await bench.attach("mallory")).answer for _ in range(20)]
    codes = [getattr(a, "code", 0) for a in answers]
    assert codes[:10] == [0] * 10 and codes[10:] == [Code.LIMIT] * 10
    assert isinstance((await bench.attach("bob")).answer, Attached)
    assert len(relay.sessions) == 2


async def test_what_a_status_says(bench, bob):
    async with open_status(bob.relay, DmsgServerSettings()) as source:
        await bench.dial("alice", "bob")
        said = await source.status()
    assert said.fields["sessions"] == 1 and said.fields["streams"] == 1
    assert said.fields["address"] == "10.0.0.1:7777"


async def test_2294_an_idle_stream_is_reaped(bench, bob):
    """20,000 copy workers waited for ever (#2294, #2296)."""
    idle, _ = await bench.dial("alice", "bob")
    busy, _ = await bench.dial("carol", "bob")
    for _ in range(32):
        await busy.send(b"x")
        await busy.receive()
        await anyio.sleep(10)
    assert len(bob.relay.splices) == 1 and bob.relay.counters["reaped"] == 1
    assert await ended(idle)


async def ended(stream):
    """Tell whether a stream is over."""
    try:
        return await stream.receive() == b""
    except StreamError:
        return True


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_the_end_of_either_side_is_passed_on(bench, bob, how):
    stream, _ = await bench.dial("alice", "bob")
    if how == "eof":
        await stream.send(b"last")
        await stream.send_eof()
        assert await stream.receive() == b"last" and await stream.receive() == b""
    else:
        stream.other.fail("lost")
    await bench.until(lambda: is_empty(bob.relay))


async def test_bytes_are_bounded_a_second(bench):
    relay = await bench.server(bytes_per_s=10_000)
    async with bench.taking("bob") as listener, anyio.create_task_group() as tasks:
        await bench.attach("bob")
        tasks.start_soon(echo, listener, bench.who("bob"))
        stream, _ = await bench.dial("alice", "bob")
        began = anyio.current_time()
        for _ in range(20):
            await stream.send(b"x" * 5_000)
            size = 0
            while size < 5_000:
                size += len(await stream.receive())
        assert anyio.current_time() - began >= 8  # 100,000 bytes each way, 10,000 at once
        assert relay.counters["bytes"] == 200_000
        tasks.cancel_scope.cancel()


async def test_3136_a_peer_that_does_not_read_delays_nobody(bench, bob):
    """No network call under shared state: upstream deadlocked its fleet (#3136, #3138)."""
    async with bench.taking("mute"):
        await bench.attach("mute")
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(bench.dial, "carol", "mute")
            await anyio.sleep(0.1)
            began = anyio.current_time()
            _, answer = await bench.dial("alice", "bob")
            assert answer.code == Code.ACCEPTED and anyio.current_time() - began < 0.1


async def test_forwarded_bytes_are_the_very_same(bench):
    await bench.server()
    async with bench.taking("bob") as listener:
        await bench.attach("bob")
        dial = bench.signed("alice", "bob")
        stream = await bench.streams("alice").dial(bench.key("server"), TO_SERVER)
        await send_message(stream, dial)
        assert await read_message(await listener.accept()) == dial


async def test_what_it_publishes(bench):
    await bench.server(advertise="relay.example:7777")
    await anyio.sleep(1_000)
    salts = {fact.salt for fact in bench.published.facts}
    assert salts == {b"dmsg-server"} and len(bench.published.facts) == 4  # now, and every 5 min
    assert b"relay.example:7777" in bench.published.facts[0].v


class Own:
    """What an address resolver told this node of itself."""

    def __init__(self, bind):
        self.bind = bind

    def find(self, kind):
        return self.bind if kind == "stcpr" else None


@pytest.mark.parametrize(
    ("advertise", "listening", "bind", "told"),
    [
        ("r.example:1", ["10.0.0.1:7"], None, "r.example:1"),
        ("", [":7", "10.0.0.1:7"], None, "10.0.0.1:7"),
        ("", [":7"], AddressBind("7", remote_addr="192.0.2.1"), "192.0.2.1:7"),
        ("", [":7", "nonsense"], None, ""),
    ],
)
def test_where_it_says_that_it_is(advertise, listening, bind, told):
    addresses = [Address("dmsg", "x@10.0.0.2:1"), *(Address("stcpr", e) for e in listening)]
    assert told_address(advertise, addresses, [Own(bind)]) == told
