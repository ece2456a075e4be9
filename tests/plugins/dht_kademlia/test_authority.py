"""L15: who is neither the subject nor delegated is refused by name on every path, never served.

An accomplice, whose store takes anything, offers forged records as an honest full node would: in
answer to reads, syncs, comparisons and watches. The victim has a real gate.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from dht_kademlia.client import DHT_SERVICE
from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.core.messages import Batch, GetItems, GetValue, PutValue, Reconcile
from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.errors import InvalidSignatureError, NotAuthorisedError
from skycore.frames import FrameReader
from skycore.model.items import (
    ItemClass,
    Kind,
    StoredItem,
    item_digest,
    item_rank,
    item_signed_bytes,
    make_delegation,
    make_item,
    mutable_item_target,
)
from skycore.model.numbers import DhtMethod
from skycore.testing.fakes import START_NS, TEST_NETWORK, identity

CODEC = MsgpackCodec()
QUIET = {"repair_interval_s": 0, "reconcile_interval_s": 100_000, "full_nodes_max": 0}
SALT = b"note"
NOTE = Namespace(SALT, 1, str, Form.SINGLE, dict.fromkeys(ItemClass, 3_600))
TAGS = Namespace(b"tags", 1, str, Form.SET, {ItemClass.OWNER: 3_600})
NAMESPACES = Namespaces((NOTE, TAGS))
UNTIL = START_NS // 10**9 + 3_000
ALICE, MALLORY, BOB = (identity(name) for name in ("alice", "mallory", "bob"))
DENIED, UNSIGNED = NotAuthorisedError.code, InvalidSignatureError.code


FORGERY = NOTE.encode("forged")


def said(subject=ALICE, signer=MALLORY, *, salt=SALT, right=None, v=FORGERY,
         kind=Kind.VALUE):  # fmt: skip
    return make_item(TEST_NETWORK, signer.secret, subject=bytes(subject.public), salt=salt,
                     seq=START_NS, until=UNTIL, v=v, kind=kind, delegation=right)  # fmt: skip


def right(issuer, delegate=MALLORY, salt=SALT, until=UNTIL + 100):
    return make_delegation(TEST_NETWORK, issuer.secret, bytes(delegate.public), salt, until)


def forged():
    """Return forged records of alice, by what is wrong with each: item, its blocks, its code."""
    large = NAMESPACES.plant(b"tags", ALICE.public, TAGS.encode([f"{n:050}" for n in range(200)]))
    broken = msgspec.structs.replace(right(ALICE), sig=bytes(64))
    return {
        "no delegation": (said(), {}, DENIED),
        "delegated by himself": (said(right=right(MALLORY)), {}, DENIED),
        "delegated by a third": (said(right=right(BOB)), {}, DENIED),
        "delegated to another": (said(right=right(ALICE, BOB)), {}, DENIED),
        "delegated for another salt": (said(right=right(ALICE, salt=b"other")), {}, DENIED),
        "delegated once": (said(right=right(ALICE, until=START_NS // 10**9 - 1)), {}, DENIED),
        "a delegation not signed": (said(right=broken), {}, UNSIGNED),
        "a deletion": (said(v=b"", kind=Kind.TOMBSTONE), {}, DENIED),
        "a salt without delegates": (
            said(salt=b"undeclared", right=right(ALICE, salt=b"undeclared")), {}, DENIED,
        ),
        "in blocks": (
            said(salt=b"tags", v=large.manifest, kind=Kind.MANIFEST), large.blocks, DENIED,
        ),
    }  # fmt: skip


FORGED = forged()


def hold(member, item, blocks):
    """Put an item into a store that asks nothing, where an owner's would stand."""
    signed = item_signed_bytes(TEST_NETWORK, item)
    at = member.items._position = member.items._position + 1
    stored = StoredItem(
        item.target, int(ItemClass.OWNER), item_rank(item.seq, signed, item.sig),
        item_digest(signed), item, item.signer, START_NS, at, at,
    )  # fmt: skip
    member.items.held[item.target, int(ItemClass.OWNER)] = stored
    member.items.kept.update(blocks)
    member.items._touch()


async def call(network, peer, method, request):
    stream = await network.exchange.dial(identity("n7").public, peer.public, DHT_SERVICE)
    await stream.send(CODEC.encode(method, request))
    reply = CODEC.decode_reply(method, await FrameReader(stream, 2**22).read())
    await stream.aclose()
    return reply


async def nothing_is_served(network, victim, item):
    """Ask the victim itself, and over the wire in each of the ways to ask."""
    assert await victim.items.get(item.target) == ()
    assert await victim.dht.get(item.subject, item.salt, local=True) is None
    value = await call(network, victim, DhtMethod.GET_VALUE, GetValue(item.target))
    assert value.items == ()
    page = await call(network, victim, DhtMethod.GET_ITEMS, GetItems(None, None, 0, b"", 9, 10**6))
    assert all(one.subject != item.subject for one in page.items)
    asked = await call(network, victim, DhtMethod.RECONCILE, Reconcile(None, (), (item.target,)))
    assert asked.items == ()


@asynccontextmanager
async def two(network, full_node):
    """Open the accomplice, which is a full node, and the victim."""
    async with (
        network.node("n0", full_node=True, **QUIET) as accomplice,
        network.node("n1", seeds=("n0",), full_node=full_node, gate={}, **QUIET) as victim,
    ):
        await anyio.sleep(2)
        yield accomplice, victim


def refusals(victim):
    counted = victim.items.counters
    return counted.get("NotAuthorisedError", 0) + counted.get("InvalidSignatureError", 0)


WORDS = ("delegation", "may sign")


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("way", ["put", "batch"])
def test_l15_refused_by_name_when_it_is_put(virtual, make_network, way, what):
    item, blocks, code = FORGED[what]

    async def story():
        network = make_network()
        async with network.node("n1", full_node=True, gate={}, **QUIET) as victim:
            put = PutValue(item, blocks=tuple(blocks.values()))
            if way == "put":
                outcome = await call(network, victim, DhtMethod.PUT_VALUE, put)
            else:
                mine = PutValue(said(MALLORY))
                reply = await call(network, victim, DhtMethod.PUT_BATCH, Batch((put, mine)))
                outcome, good = reply.outcomes
                assert good.code == 0
            assert outcome.code == code
            assert any(word in outcome.text for word in WORDS)
            assert await victim.items.blocks(list(blocks)) == [None] * len(blocks)
            await nothing_is_served(network, victim, item)

    virtual(story)


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("way", ["sync", "reconcile", "watch", "get"])
def test_l15_not_believed_when_an_accomplice_offers_it(virtual, make_network, way, what):
    item, blocks, _ = FORGED[what]

    async def story():
        network = make_network()
        async with two(network, way != "watch") as (accomplice, victim):
            hold(accomplice, item, blocks)
            honest = said(BOB, BOB)
            hold(accomplice, honest, {})
            if way == "sync":
                report = await victim.dht.sync(accomplice.public)
                assert (report.stored, report.refused) == (1, 1)
                assert any(word in report.reasons[0] for word in WORDS)
            elif way == "reconcile":
                report = await victim.dht.reconcile(accomplice.public)
                assert (report.pulled, report.refused) == (1, 1)
                assert any(word in report.reasons[0] for word in WORDS)
            elif way == "get":
                assert await victim.dht.get(item.subject, item.salt, age_max_s=0) is None
                found = await victim.dht.get(honest.subject, SALT, age_max_s=0)
                assert found.item == honest
            else:
                async with victim.dht.watch(None) as changes:
                    with anyio.fail_after(60):
                        while (await anext(changes)).item != honest:
                            pass
                    await anyio.sleep(1)
            if way != "get":  # a read asks the judge, nothing is handed in
                assert refusals(victim) >= 1
                assert [s.item for s in await victim.items.get(honest.target)] == [honest]
            await nothing_is_served(network, victim, item)

    virtual(story)


def test_l15_the_same_with_a_right_to_it_is_taken(virtual, make_network):
    """What was refused above was refused for the signer's sake alone."""

    async def story():
        network = make_network()
        async with network.node("n1", full_node=True, gate={}, **QUIET) as victim:
            for item in (said(ALICE, ALICE), said(right=right(ALICE))):
                outcome = await call(network, victim, DhtMethod.PUT_VALUE, PutValue(item))
                assert outcome.code == 0, outcome
            held = await victim.items.get(mutable_item_target(ALICE.public, SALT))
            assert [s.item_class for s in held] == [ItemClass.OWNER, ItemClass.DELEGATE]

    virtual(story)
