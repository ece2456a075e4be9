"""Peers that lie about blocks, and older ones that know none: each spoils its own item only."""

from contextlib import asynccontextmanager

import anyio
import pytest

from dht_kademlia.carry.fetch import admit_from
from dht_kademlia.carry.push import ROUNDS_MAX, push
from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.core.messages import (
    Batch,
    Blocks,
    ErrorCode,
    ErrorReply,
    FindNode,
    GetBlocks,
    GetItems,
    GetValue,
    Nodes,
    Outcomes,
    Page,
    Pong,
    PutValue,
    Stored,
    Value,
)
from skycore.contracts.store import Outcome
from skycore.model.limits import BLOCKS_BYTES_MAX
from skycore.testing.fakes import identity

CODEC = MsgpackCodec()
QUIET = {"repair_interval_s": 0, "full_nodes_max": 0, "check_interval_s": 1e6}


def usual(request):
    match request:
        case FindNode():
            return Nodes(())
        case GetValue():
            return Value((), ())
        case _:
            return Pong(1, (), "full")


@asynccontextmanager
async def peer(network, answer, name="n9"):
    """A peer that says what `answer(request, how many before)` returns, or what is usual."""
    asked = []

    async def speak(stream, method, request):
        reply = answer(request, len(asked)) or usual(request)
        if not isinstance(reply, Pong):
            asked.append(request)
        error = isinstance(reply, ErrorReply)
        await stream.send(CODEC.encode(0 if error else method, reply))

    async with network.puppet(name, speak):
        yield network.contact_of(name), asked


def drip(blocks):
    """One block an answer, and each time the same."""
    return lambda request: Blocks(tuple(b for b in blocks.values())[:1])


LIES = {
    "nothing": (lambda blocks: lambda request: Blocks(()), "does not have its blocks"),
    "other blocks": (
        lambda blocks: lambda request: Blocks((b"x" * 900, b"y" * 4_000)),
        "nobody asked for",
    ),
    "the leaves without what leads to them": (
        lambda blocks: lambda request: Blocks(tuple(blocks.values())[20:]),
        "nobody asked for",
    ),
    "flipped bits": (
        lambda blocks: lambda request: Blocks(tuple(b[:-1] + b"?" for b in blocks.values())),
        "nobody asked for",
    ),
    "the same block again and again": (drip, "blocks"),
    "too much": (
        lambda blocks: lambda request: Blocks((bytes(3 * 1024 * 1024),)),
        "nobody asked for",
    ),
    "an error": (lambda blocks: lambda request: ErrorReply(ErrorCode.SERVER, "no"), "no"),
    "it is older (C51)": (
        lambda blocks: lambda request: ErrorReply(ErrorCode.METHOD_UNKNOWN, "unsupported"),
        "it is older",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_c16_c51_a_peer_without_the_blocks_ends_that_item_only(
    virtual, make_network, record, make, tags, lie
):
    how, why = LIES[lie]

    async def story():
        network = make_network()
        hub, blocks = record("u1", tags(2_000))
        small = make("u2")

        def answer(request, before):
            if isinstance(request, GetItems):
                return Page((hub, small), (), False, b"")
            return how(blocks)(request) if isinstance(request, GetBlocks) else None

        async with (
            peer(network, answer) as (mallory, asked),
            network.node("n1", gate={}, **QUIET) as bob,
        ):
            report = await bob.dht.sync(mallory.public)
            assert (report.stored, report.refused, report.complete) == (1, 1, True)
            assert any(why in reason for reason in report.reasons)
            assert not await bob.items.get(hub.target)
            assert len(asked) <= 2 + ROUNDS_MAX

    virtual(story)


def test_an_honest_drip_still_gets_there(virtual, make_network, record, tags):
    """A peer that sends a few blocks an answer is slow, not lying."""

    async def story():
        network = make_network()
        hub, blocks = record("u1", tags(1_000))

        def answer(request, before):
            if isinstance(request, GetBlocks):
                return Blocks(tuple(blocks[name] for name in request.hashes if name in blocks)[:9])
            return None

        async with (
            peer(network, answer) as (slow, _),
            network.node("n1", gate={}, **QUIET) as bob,
        ):
            (outcome,) = await admit_from(bob.node, slow, [(hub, None)])
            assert outcome.code == Outcome.STORED
            (stored,) = await bob.items.get(hub.target)
            assert await bob.items.value(stored) == tags(1_000)

    virtual(story)


HUNGRY = {
    "names the same for ever": lambda put, root: (root,),
    "names what is not of the value": lambda put, root: (b"?" * 32,),
    "names none (C51: it is older)": lambda put, root: (),
    "names more than exist": lambda put, root: (root, *(b"%032d" % n for n in range(900))),
}


@pytest.mark.parametrize("hunger", HUNGRY)
@pytest.mark.parametrize("together", [1, 3])
def test_a_peer_that_is_never_satisfied_draws_little(
    virtual, make_network, record, make, tags, hunger, together
):
    async def story():
        network = make_network()
        value = tags(5_000)
        hub, blocks = record("u1", value)
        root = next(iter(blocks))
        others = [make(f"u{n}") for n in range(2, together + 1)]

        def one(put):
            if put.item != hub:
                return Stored(0)
            return Stored(Outcome.MISSING_BLOCKS, 0, "", HUNGRY[hunger](put, root))

        def answer(request, before):
            match request:
                case PutValue():
                    return one(request)
                case Batch():
                    return Outcomes(tuple(one(put) for put in request.puts))
            return None

        async with (
            peer(network, answer) as (mallory, asked),
            network.node("n1", gate={}, **QUIET) as bob,
        ):
            before = network.exchange.bytes_moved
            loads = [PutValue(item) for item in (hub, *others)]
            said = await push(bob.node, mallory, loads, blocks=blocks)
            assert [s.code for s in said] == [Outcome.MISSING_BLOCKS] + [0] * len(others)
            assert said[0].text.startswith("not stored: it")
            assert network.exchange.bytes_moved - before <= 4 * len(value)
            assert len(asked) <= ROUNDS_MAX + 1

    virtual(story)


def test_c51_a_report_says_which_replica_is_older(virtual, make_network, record, tags):
    async def story():
        network = make_network()

        def answer(request, before):
            if isinstance(request, PutValue):
                return Stored(Outcome.MISSING_BLOCKS)
            return None

        async with (
            peer(network, answer, "n0"),
            network.node("n1", seeds=("n0",), gate={}, **QUIET) as bob,
            network.node("n2", seeds=("n1",), gate={}, **QUIET),
        ):
            await anyio.sleep(1)
            item, blocks = record("n1", tags(500))
            report = await bob.dht.put(item, blocks=blocks)
            said = {r.peer: r for r in report.replicas}
            assert said[identity("n0").public].code == Outcome.MISSING_BLOCKS
            assert "it may be older" in said[identity("n0").public].text
            assert said[identity("n2").public].code == Outcome.STORED
            assert report.stored == 2

    virtual(story)


def test_a_reader_passes_over_a_holder_that_lies(virtual, make_network, record, tags):
    """The head comes from a liar first, with junk for blocks; the blocks from who has them."""

    async def story():
        network, value = make_network(), tags(5_000)
        hub, blocks = record("u1", value)
        junk = (b"x" * 4_000,) * 3

        def answer(request, before):
            match request:
                case GetValue():
                    return Value((hub,), (), False, (), junk)
                case GetBlocks():
                    return Blocks(junk)
            return None

        async with (
            peer(network, answer, "n0"),
            network.node("n1", seeds=("n0",), gate={}, **QUIET) as bob,
            network.node("n2", seeds=("n0", "n1"), gate={}, **QUIET) as carol,
        ):
            await anyio.sleep(1)
            await bob.items.admit([hub], sender=b"x", blocks=list(blocks.values()))
            found = await carol.dht.get(hub.subject, b"tags")
            assert (found.item, found.value) == (hub, value)

    virtual(story)


def test_what_a_peer_may_draw_in_one_answer_is_bounded(virtual, make_network, record):
    async def story():
        network = make_network()
        value = b"".join(n.to_bytes(4, "big") for n in range(2_000_000))
        item, blocks = record("u1", value, salt=b"blob")
        async with (
            network.node("n0", full_node=True, gate={}, **QUIET) as alice,
            network.node("n1", gate={}, **QUIET) as bob,
        ):
            await alice.items.admit([item], sender=b"x", blocks=list(blocks.values()))
            contact = network.contact_of("n0")
            before = network.exchange.bytes_moved
            reply = await bob.node.ask(contact, 7, GetBlocks(tuple(blocks)[:1], True))
            assert sum(map(len, reply.blocks)) <= BLOCKS_BYTES_MAX
            assert len(reply.blocks) > 400
            reply = await bob.node.ask(contact, 7, GetBlocks(tuple(blocks)[:1]))
            assert reply.blocks == (next(iter(blocks.values())),)
            reply = await bob.node.ask(contact, 7, GetBlocks((bytes(32), b"short")))
            assert reply.blocks == ()
            reply = await bob.node.ask(contact, 3, GetValue(item.target, b"", 2**40))
            assert sum(map(len, reply.blocks)) <= BLOCKS_BYTES_MAX
            reply = await bob.node.ask(contact, 3, GetValue(item.target, b"", -1))
            assert (reply.items, reply.blocks) == ((item,), ())
            assert network.exchange.bytes_moved - before <= 5 * 1024 * 1024

    virtual(story)
