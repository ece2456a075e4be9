"""Dialling through relays, honest and hostile, and being dialled through them."""

from __future__ import annotations

import types

import anyio
import pytest

from relay_dmsg.core.dials import make_answer
from relay_dmsg.core.messages import Answer, Attached, Code, Dial, decode, encode
from relay_dmsg.framing import read_message, send_message
from relay_dmsg.numbers import KIND, TO_CLIENT, TO_SERVER
from skycore.errors import DialError, SkycoreError, StreamError
from skycore.model.addresses import Address
from skycore.testing.contracts.relay import RelayTypeContract


async def pair(bench, **settings):
    """A relay, and alice and bob attached to it."""
    relay = await bench.server(**settings)
    alice = await bench.client("alice", "server")
    bob = await bench.client("bob", "server")
    await bench.until(lambda: alice.can_ask and bob.can_ask)
    return relay, alice, bob


class TestRelayType(RelayTypeContract):
    """Alice and the one whom the suite calls remote are attached; carol knows nobody."""

    @pytest.fixture
    async def relay_lab(self, bench):
        relay = await bench.server()
        near, far = [await bench.client(name, "server") for name in ("alice", "remote")]
        alone = await bench.client("carol")
        await bench.until(lambda: near.can_ask and far.can_ask)

        async def lose_relay():
            bench.exchange.stop(bench.key("server"))

        yield types.SimpleNamespace(
            near=near, far=far, alone=alone, relay=bench.key("server"), lose_relay=lose_relay
        )
        await anyio.sleep(10)
        assert not (relay.splices or relay.places.taken or relay.requests.taken)


async def test_alice_reaches_bob_by_his_address_or_by_asking(bench):
    relay, alice, bob = await pair(bench)
    (address,) = bob.addresses
    assert address == Address(KIND, f"{bench.key('server').hex()}@10.0.0.9:1")
    for addresses in (bob.addresses, ()):
        near = await alice.dial(bench.key("bob"), addresses)
        far = await bob.accept()
        await near.send(b"hello")
        assert await far.receive() == b"hello"
        await near.aclose()
        await far.aclose()
    await bench.until(lambda: not relay.splices)


async def test_an_error_names_what_each_server_answered(bench):
    await pair(bench)
    alice = await bench.client("carol", "server")
    await bench.until(lambda: alice.can_ask)
    elsewhere = Address(KIND, f"{bench.key('gone').hex()}@10.0.0.8:1")
    here = Address(KIND, f"{bench.key('server').hex()}@10.0.0.9:1")
    with pytest.raises(DialError) as caught:
        await alice.dial(bench.key("nobody"), (elsewhere, here))
    text = str(caught.value)
    assert "NOT_ATTACHED" in text and bench.key("gone").hex()[:8] in text


async def test_a_bad_address_spoils_no_good_one(bench):
    _, alice, bob = await pair(bench)
    bad = Address(KIND, f"{bench.key('server').hex()}@nowhere")
    stream = await alice.dial(bench.key("bob"), (bad, *bob.addresses))
    await stream.aclose()


async def test_a_server_is_never_dialled_through_another(bench):
    _, alice, _ = await pair(bench)
    with pytest.raises(DialError, match="directly"):
        await alice.dial(bench.key("server"), ())


async def test_no_session_and_no_address_is_said(bench):
    carol = await bench.client("carol")
    assert not carol.can_ask and not carol.addresses
    with pytest.raises(DialError, match="no relay"):
        await carol.dial(bench.key("bob"), ())


async def test_no_more_wait_to_be_taken_than_may(bench):
    """A full accept queue is told before anything is accepted (upstream: after)."""
    await bench.server()
    alice = await bench.client("alice", "server")
    bob = await bench.client("bob", "server", waiting_max=8)
    await bench.until(lambda: alice.can_ask and bob.can_ask)
    near = [await alice.dial(bench.key("bob"), ()) for _ in range(8)]
    with pytest.raises(DialError, match="BUSY"):
        await alice.dial(bench.key("bob"), ())
    await (await bob.accept()).aclose()
    near.append(await alice.dial(bench.key("bob"), ()))
    for stream in near:
        await stream.aclose()


# --- a hostile relay -----------------------------------------------------------------------------


class Hostile:
    """A server that attaches whoever comes; `on_dial` is what it does with a dial."""

    def __init__(self, bench, tasks):
        self.bench, self.tasks = bench, tasks
        self.on_dial = None
        self.dials = []

    async def run(self, *, task_status):
        async with self.bench.streams("evil").listen(TO_SERVER) as listener:
            task_status.started()
            while True:
                self.tasks.start_soon(self.take, await listener.accept())

    async def take(self, stream):
        try:
            message = await read_message(stream)
            if isinstance(message, Dial):
                self.dials.append(message)
                await self.on_dial(stream, message)
            else:
                await send_message(stream, Attached(1))
                await anyio.sleep_forever()
        except StreamError:
            pass

    async def hand_to(self, name, dial):
        """Hand a dial to a client; return its answer, None for none."""
        stream = await self.bench.streams("evil").dial(self.bench.key(name), TO_CLIENT)
        await send_message(stream, dial)
        try:
            return stream, await read_message(stream)
        except SkycoreError:
            return stream, None


@pytest.fixture
async def evil(bench):
    tasks = await bench.stack.enter_async_context(anyio.create_task_group())
    bench.stack.callback(tasks.cancel_scope.cancel)
    evil = Hostile(bench, tasks)
    await tasks.start(evil.run)
    evil.alice = await bench.client("alice", "evil")
    evil.bob = await bench.client("bob", "evil")
    await bench.until(lambda: evil.alice.can_ask and evil.bob.can_ask)
    return evil


LIES = {
    "accepted, unsigned": lambda bench, dial: Answer(0),
    "accepted, by itself": lambda bench, dial: make_answer(bench.who("evil"), dial, Code.ACCEPTED),
    "accepted, garbage": lambda bench, dial: Answer(0, "", bytes(64)),
    "accepted, for another dial": lambda bench, dial: make_answer(
        bench.who("bob"), bench.signed("alice", "bob"), Code.ACCEPTED
    ),
    "a refusal made acceptance": lambda bench, dial: Answer(
        0, "", make_answer(bench.who("bob"), dial, Code.BUSY).signature
    ),
    "not an answer": lambda bench, dial: Attached(1),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_relay_that_lies_in_answers_is_caught(bench, evil, lie):
    async def answer(stream, dial):
        await send_message(stream, LIES[lie](bench, dial))

    evil.on_dial = answer
    with pytest.raises(DialError) as caught:
        await evil.alice.dial(bench.key("bob"), ())
    assert "answer" in str(caught.value) or "accepted" in str(caught.value)


async def test_a_relay_that_is_silent_costs_its_limit_and_no_more(bench, evil):
    async def nothing(stream, dial):
        await anyio.sleep_forever()

    evil.on_dial = nothing
    began = anyio.current_time()
    with pytest.raises(DialError, match="no answer"):
        await evil.alice.dial(bench.key("bob"), ())
    assert anyio.current_time() - began <= 5.1


async def test_a_relay_that_lies_in_refusals_is_named_as_who_said_it(bench, evil):
    async def refuse(stream, dial):
        await send_message(stream, Answer(Code.NO_LISTENER, "bob says no\n\x1b[31m"))

    evil.on_dial = refuse
    with pytest.raises(DialError, match="the server refuses") as caught:
        await evil.alice.dial(bench.key("bob"), ())
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


async def test_a_relay_that_replays_a_dial_is_caught(bench, evil):
    """R7: each dial counts once, for one destination, for a minute."""

    async def forward(stream, dial):
        evil.tasks.start_soon(one, stream, dial)

    async def one(stream, dial):
        _, answer = await evil.hand_to("bob", dial)
        await send_message(stream, answer)

    evil.on_dial = forward
    await evil.alice.dial(bench.key("bob"), ())
    (dial,) = evil.dials
    _, again = await evil.hand_to("bob", dial)
    assert again.code == Code.REPLAYED
    _, elsewhere = await evil.hand_to("alice", dial)
    assert elsewhere.code == Code.BAD_REQUEST
    await anyio.sleep(200)
    _, later = await evil.hand_to("bob", dial)
    assert later.code == Code.STALE
    assert evil.bob.client.counters["dials_accepted"] == 1


async def test_a_relay_cannot_make_up_a_dial(bench, evil):
    _, mine = await evil.hand_to("bob", bench.signed("evil", "bob"))
    assert mine.code == Code.ACCEPTED  # in its own name it may: the handshake says who it is
    honest = bench.signed("alice", "bob")
    changed = Dial(honest.request.replace(b"test", b"tusk"), honest.signature)
    _, answer = await evil.hand_to("bob", changed)
    assert answer.code == Code.BAD_REQUEST
    _, port = await evil.hand_to("bob", bench.signed("alice", "bob", port=80))
    assert port.code == Code.NO_LISTENER and "80" in port.reason


async def test_1000_bad_dials_from_a_server_and_no_session_lost(bench, evil):
    good = encode(bench.signed("alice", "bob"))
    for turn in range(1_000):
        stream = await bench.streams("evil").dial(bench.key("bob"), TO_CLIENT)
        broken = bytearray(good)
        broken[2 + turn % (len(good) - 2)] ^= 1 + turn % 255
        await stream.send(bytes(broken) if turn % 3 else good[: 1 + turn % 100])
        await stream.aclose()
    await anyio.sleep(10)
    assert evil.bob.can_ask
    _, answer = await evil.hand_to("bob", bench.signed("alice", "bob"))
    assert answer.code == Code.ACCEPTED and decode(good[2:])


async def test_who_is_no_server_of_ours_hands_us_nothing(bench, evil):
    stream = await bench.streams("stranger").dial(bench.key("bob"), TO_CLIENT)
    await send_message(stream, bench.signed("alice", "bob"))
    assert await stream.receive() == b""
    assert evil.bob.client.counters["dials_dropped"] == 1
