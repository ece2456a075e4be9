"""The methods: what people ask a node's DHT."""

import random
from typing import Annotated

import msgspec
import pytest

from dht_kademlia.rpc.records import DhtMethods
from dht_kademlia.status import DhtStatus, salt_text
from skycore.contracts.access import Level
from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.contracts.publish import Published
from skycore.contracts.rpc import Caller, RpcContext
from skycore.contracts.status import Health
from skycore.errors import NamespaceError, RpcError
from skycore.model.items import ItemClass, Kind, make_item
from skycore.model.limits import RPC_FRAME_MAX, VALUE_MAX
from skycore.testing.fakes import TEST_NETWORK, identity


class Card(msgspec.Struct, array_like=True):
    name: str
    size: Annotated[int, msgspec.Meta(ge=0)] = 0


CARDS = Namespace(b"card", 1, Card, Form.SINGLE, {ItemClass.OWNER: 7_200})


class Publishing:
    """Signs with the node's key and puts: enough of a publisher."""

    def __init__(self, member, clock):
        self._member, self._clock, self._seq = member, clock, 2**60

    async def publish(self, fact, *, cas=None):
        self._seq += 1
        item = make_item(
            TEST_NETWORK,
            self._member.node.identity.secret,
            salt=fact.salt,
            seq=self._seq,
            until=self._clock.wall_s() + 3_000,
            v=fact.v or b"",
            kind=Kind.TOMBSTONE if fact.v is None else Kind.VALUE,
        )
        report = await self._member.dht.put(item, cas=cas)
        return Published(item.seq, False, (report,))


@pytest.fixture
def told(virtual, make_network):
    """Run a story with `call(name, **params)` on one of two connected nodes."""

    def run(story):
        async def main():
            network = make_network()
            async with (
                network.node("n0", full_node=True, full_nodes_max=0) as alice,
                network.node("n1", seeds=("n0",)) as bob,
            ):
                import anyio

                await anyio.sleep(1)
                service = DhtMethods(
                    bob.dht,
                    bob.node,
                    Publishing(bob, network.clock),
                    Namespaces([CARDS]),
                    network.clock,
                )
                methods = {method.name: method for method in service.methods}
                heard = []
                context = RpcContext(Caller(), lambda *what: heard.append(what))

                async def call(name, **params):
                    method = methods[name]
                    result = await method.call(msgspec.convert(params, method.params), context)
                    assert isinstance(result, method.result)
                    return msgspec.convert(
                        msgspec.json.decode(msgspec.json.encode(result)), method.result
                    )

                call.methods, call.heard = methods, heard
                await story(call, alice, bob)

        virtual(main)

    return run


def test_levels(told):
    async def story(call, alice, bob):
        levels = {name: method.level for name, method in call.methods.items()}
        operate = {name for name, level in levels.items() if level is Level.OPERATE}
        assert operate == {"dht.put", "dht.delete", "dht.sync"}
        assert set(levels) - operate == {
            f"dht.{name}" for name in ("status", "get", "value", "history", "list", "peers")
        }

    told(story)


def test_put_get_delete(told):
    async def story(call, alice, bob):
        put = await call("dht.put", salt="note", text="hello")
        assert (put.stored, int(put.seq) > 2**53) == (2, True)
        got = await call("dht.get", salt="note")
        assert (got.found, got.item.value, got.item.seq) == (True, "hello", put.seq)
        assert (got.item.item_class, got.item.signer) == ("owner", bob.public.hex())
        assert (await call("dht.delete", salt="note")).stored == 2
        got = await call("dht.get", salt="note")
        assert (got.found, got.deleted, got.item.kind) == (False, True, "tombstone")
        missing = await call("dht.get", salt="note", subject=alice.public.hex())
        assert (missing.found, missing.deleted, missing.item) == (False, False, None)

    told(story)


def test_values_as_text_hex_and_json(told):
    async def story(call, alice, bob):
        await call("dht.put", salt="card", json=["ace", 3])
        assert (await call("dht.get", salt="card")).item.value == ["ace", 3]
        await call("dht.put", salt="hex:00ff", hex="fffe")
        got = await call("dht.get", salt="hex:00ff")
        assert (got.item.value, got.item.value_hex, got.item.salt) == (None, "fffe", "hex:00ff")
        for bad in ({}, {"text": "a", "hex": "00"}, {"json": 1}, {"hex": "xy"}, {"cas": "1x"}):
            with pytest.raises(RpcError) as caught:
                await call("dht.put", salt="note", **({"text": "v"} if "cas" in bad else {}), **bad)
            assert caught.value.code == -32602
        with pytest.raises(NamespaceError):
            await call("dht.put", salt="card", json=[5])
        with pytest.raises(RpcError):
            await call("dht.get", salt="x" * 300)

    told(story)


def test_cas_as_text(told):
    async def story(call, alice, bob):
        put = await call("dht.put", salt="note", text="one", cas="0")
        refused = await call("dht.put", salt="note", text="two", cas="7")
        assert refused.stored == 0
        again = await call("dht.put", salt="note", text="two", cas=put.seq)
        assert again.stored == 2

    told(story)


def test_c52_a_listing_isolates_bad_values_and_counts_exactly(told, make):
    async def story(call, alice, bob):
        good = [make(f"u{i}", salt=b"card", v=CARDS.encode(Card(f"c{i}"))) for i in range(1_205)]
        bad = make("v1", salt=b"card", v=b"\xc1no card", seq=2**62)
        await bob.items.admit([*good, bad, make("v2", salt=b"other")], sender=b"")
        after, seen, broken, pages = "", set(), [], 0
        while True:
            page = await call("dht.list", salt="card", limit=500, after=after)
            assert page.total == 1_206
            seen |= {i.target for i in page.items}
            broken += page.bad
            after, pages = page.next, pages + 1
            if not after:
                break
        assert (len(seen), len(broken), pages) == (1_205, 1, 3)
        assert broken[0].target == bad.target.hex()
        everything = await call("dht.list", limit=1)
        assert (everything.total, len(everything.items) + len(everything.bad)) == (1_207, 1)

    told(story)


def test_sync_reports_progress(told, make):
    async def story(call, alice, bob):
        await alice.items.admit([make(f"u{i}") for i in range(30)], sender=b"")
        result = await call("dht.sync", peer=alice.public.hex(), salt="t")
        assert (result.stored, result.complete, result.peer) == (30, True, alice.public.hex())
        assert call.heard[-1] == (30, 30, "items received")
        assert (await call("dht.sync")).held == 30

    told(story)


def test_status_and_peers(told, make):
    async def story(call, alice, bob):
        await call("dht.put", salt="note", text="hello")
        await call("dht.get", salt="nothing")
        status = await call("dht.status")
        assert (status.mode, status.peers, status.items) == ("regular", 1, {"note": 1})
        assert status.lookups["miss"] == 1
        assert status.replicas_per_put == 2.0
        (peer,) = (await call("dht.peers")).peers
        assert peer.public == alice.public.hex()
        said = await DhtStatus(bob.node).status()
        assert said.health is Health.OK
        assert said.summary == "regular node, 1 peers, 1 items"
        msgspec.json.encode(said.fields)
        bob.node.table.remove(alice.public)
        assert (await DhtStatus(bob.node).status()).health is Health.DEGRADED

    told(story)


def test_salts_as_text():
    assert salt_text(b"tp") == "tp"
    assert salt_text(b"\xff\x00") == "hex:ff00"
    assert salt_text(b"hex:00") == "hex:6865783a3030"
    assert identity("u1").public


def test_l17_a_listing_of_ten_thousand_in_shuffled_seq_is_complete(told, make):
    async def story(call, alice, bob):
        seqs = random.Random(1).sample(range(1, 10**6), 10_000)
        items = [make("u1", seq=seq % 999 + 1, salt=b"%d" % seq) for seq in seqs]
        await bob.items.admit(items, sender=b"")
        after, seen = "", []
        while True:
            page = await call("dht.list", limit=1_000, after=after, brief=True)
            seen += [item.salt for item in page.items]
            after = page.next
            if not after:
                break
        assert page.total == 10_000
        assert len(seen) == 10_000
        assert set(seen) == {str(seq) for seq in seqs}

    told(story)


def test_c23_a_listing_of_the_largest_values_fits_its_frames(told, make):
    async def story(call, alice, bob):
        await bob.items.admit([make(f"u{i}", v=b"\1" * VALUE_MAX) for i in range(40)], sender=b"")
        after, count = "", 0
        while True:
            page = await call("dht.list", limit=500, after=after)
            assert len(msgspec.json.encode(page)) < RPC_FRAME_MAX
            count += len(page.items)
            after = page.next
            if not after:
                break
        assert count == 40

    told(story)
