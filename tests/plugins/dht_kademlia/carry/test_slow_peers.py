"""A peer that answers everything, always just in time, costs a bounded time."""

import anyio

from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.core.messages import FEATURES, Blocks, Nodes, Pong, Stored, Value
from dht_kademlia.put.hints import hand_over
from dht_kademlia.put.repair import Repair
from skycore.model.numbers import DhtMethod

ALL = (0, (1 << 256) - 1)


def puppet(network, replies, late_s):
    """Let n1 answer by method, those of `late_s` so many seconds late."""
    codec = MsgpackCodec()
    known = {DhtMethod.PING: Pong(1, FEATURES, "regular"), DhtMethod.FIND_NODE: Nodes(())}

    async def speak(stream, method, request):
        await anyio.sleep(late_s.get(method, 0))
        reply = (known | replies)[method]
        await stream.send(codec.encode(method, reply(request) if callable(reply) else reply))

    return network.puppet("n1", speak)


SLOW = {DhtMethod.GET_VALUE: Value((), ()), DhtMethod.PUT_VALUE: Stored(0)}
LATE_S = dict.fromkeys(SLOW, 9.0)


def test_a_slow_contact_does_not_hold_up_repair(virtual, make_network, make):
    async def story():
        network = make_network()
        async with (
            puppet(network, SLOW, LATE_S),
            network.node("n0", repair_interval_s=0) as alice,
        ):
            for i in range(40):  # each is asked about before it is sent
                await alice.items.admit([make(f"u{i}", v=b"x" * 3_000)], sender=b"")
            await alice.node.probe(network.contact_of("n1"))
            began = anyio.current_time()
            done = await Repair(alice.node).walk(*ALL)
            assert anyio.current_time() - began < 130
            assert len(done.silent) == 1

    virtual(story)


def test_a_slow_contact_does_not_hold_up_what_others_are_owed(virtual, make_network, make):
    async def story():
        network = make_network()
        public = network.contact_of("n1").public
        async with (
            puppet(network, SLOW, LATE_S),
            network.node("n0", repair_interval_s=0) as alice,
        ):
            node = alice.node
            await node.probe(network.contact_of("n1"))
            for i in range(40):
                item = make(f"u{i}", v=b"x" * 3_000)
                await alice.items.admit([item], sender=b"")
                node.hints.owe(public, item.target, node.clock.now())
            await anyio.sleep(10)
            node.returned[public] = None
            began = anyio.current_time()
            await hand_over(node)
            assert anyio.current_time() - began < 130
            assert len(node.hints) == 40  # still owed: it did not answer to the end

    virtual(story)


def test_a_holder_that_sends_a_block_a_question_is_left(virtual, make_network, record, tags):
    async def story():
        network = make_network()
        item, blocks = record("u1", tags(2_000))
        replies = {
            DhtMethod.GET_VALUE: Value((item,), ()),
            # with junk that makes it look as if there had been no room for more
            DhtMethod.GET_BLOCKS: lambda asked: Blocks(
                (blocks[asked.hashes[0]], *[b"\2" * 8_000] * 262)
            ),
        }
        async with (
            puppet(network, replies, {DhtMethod.GET_BLOCKS: 29.0}),
            network.node("n2", gate={}, full_node=True, repair_interval_s=0) as honest,
            network.node("n0", gate={}, seeds=("n2",), repair_interval_s=0) as alice,
        ):
            given = list(blocks.values())
            await honest.items.admit([item], sender=item.signer, blocks=given)
            await alice.node.probe(network.contact_of("n1"))
            began = anyio.current_time()
            found = await alice.dht.get(item.subject, item.salt)
            assert found.value == tags(2_000)
            assert anyio.current_time() - began < 90

    virtual(story)
