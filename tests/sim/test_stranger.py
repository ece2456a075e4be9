"""C48: a record type of one's own is a namespace in a plugin of at most 100 lines.

The plugin is a distribution of its own, found by its entry point. Two nodes have it; the full node
and a visor between them do not, and keep what they do not understand: one store, one port, one set
of counters for the known and the unknown.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import anyio
import msgspec
import pytest

from skycore.contracts.dht import Dht
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.store import ItemKey, Items
from skycore.errors import NamespaceError, RpcError
from skycore.model.items import Kind, make_item, mutable_item_target
from skycore.model.limits import SET_INLINE_MAX
from skycore.model.trie import plant_set
from skycore.testing.contracts.namespace import Declared, NamespaceContract
from skycore.testing.world import PORT

PLUGIN = Path(__file__).parent / "stranger" / "bookmarks.py"
SALT = b"bookmarks"
ME = Caller()


@pytest.fixture
def bookmarks(tmp_path, monkeypatch):
    """Install the plugin for the time of a test; return its module."""
    shutil.copy(PLUGIN, tmp_path)
    info = tmp_path / "bookmarks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bookmarks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[skycore.plugins]\nbookmarks = bookmarks\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("bookmarks")
    del sys.modules["bookmarks"]


class TestBookmarks(NamespaceContract):
    @pytest.fixture
    def declared(self, bookmarks):
        return Declared(
            bookmarks.BOOKMARKS,
            bodies=[[link(1), link(2)], []],
            wrong=[[{"url": "x"}], [{"title": "no url"}], link(1), [link(1) | {"more": 1}]],
            large=[link(n) for n in range(200)],
        )


def link(n):
    return {"url": f"https://example.org/{n}", "title": f"Number {n}"}


async def start(world):
    """Start a full node and a visor without the plugin, and two visors with it, all met."""
    keeper = await world.full_node()
    (carol,) = await world.spawn("visor")
    alice, bob = await world.spawn("visor", n=2, settings={"node": {"enable": ["bookmarks"]}})
    nodes = [keeper, carol, alice, bob]
    await world.until(lambda: all(n.get(Dht).peer_count == 3 for n in nodes), limit_s=120)
    return nodes


async def held_at(node, subject):
    return await node.get(Items).get(mutable_item_target(subject, SALT))


def test_c48_the_plugin_has_a_hundred_lines_at_most():
    assert len(PLUGIN.read_text().splitlines()) <= 100


async def test_c48_a_strangers_record_goes_through_nodes_that_do_not_know_it(world, bookmarks):
    keeper, carol, alice, bob = nodes = await start(world)
    for start_at in range(0, 300, 100):  # 3 times more, merged with what is there
        links = [link(n) for n in range(start_at, start_at + 100)]
        await alice.get(Rpc).call(ME, "bookmarks.add", {"links": links})
    for node in (keeper, carol):
        (stored,) = await held_at(node, alice.public)
        assert stored.item.kind == Kind.MANIFEST
        assert len(await node.get(Items).value(stored)) > SET_INLINE_MAX
        assert len(await node.get(Items).tree(stored.item)) > 3
        with pytest.raises(RpcError, match="there is no method"):
            await node.get(Rpc).call(ME, "bookmarks.of", {"key": alice.public.hex()})
    await world.stop(alice)
    keys = [ItemKey(s.target, s.item_class) for s in await held_at(bob, alice.public)]
    await bob.get(Items).drop(keys)  # what is read comes from those who do not know it
    read = await bob.get(Rpc).call(ME, "bookmarks.of", {"key": alice.public.hex()})
    assert sorted(row["url"] for row in read["links"]) == sorted(link(n)["url"] for n in range(300))
    # leases of it work like anybody's: a lifetime later it is still there
    await world.start(alice)
    value = await keeper.get(Items).value((await held_at(keeper, alice.public))[0])
    for _ in range(5):
        await alice.get(Publisher).publish(Fact(SALT, value))
        await anyio.sleep(1_800)
    (stored,) = await held_at(keeper, alice.public)
    assert stored.lease is not None
    for node in nodes:  # one store, one port, one set of counters
        usage = await node.get(Items).usage()
        assert usage[SALT].items == 1
        assert {SALT, b"fullnode", b"addr", b"dmsg", b"dmsg-server"} >= set(usage)
        assert b"addr" not in usage or usage[b"addr"].items <= len(world.nodes)
        assert set(world.network.machine(node.address).listeners) == {PORT}
        assert node.get(Items).counters["stored"] >= 1


async def test_c48_what_does_not_fit_is_refused_on_every_way_where_it_is_declared(world, bookmarks):
    keeper, carol, _, bob = await start(world)
    here = bob.get(Items)
    refused = NamespaceError.code

    def counted():
        return here.counters.get("NamespaceError", 0)

    def junk(node, value, salt=SALT, kind=Kind.VALUE):
        me = node.node.identity
        return make_item(me.network, me.secret, salt=salt, seq=node.clock.wall_ns(),
                         until=node.clock.wall_s() + 7_000, v=value, kind=kind)  # fmt: skip

    # by its own hand: publish, and import
    for value in (b"junk", b"\x92\x02\x90", bookmarks.BOOKMARKS.from_json([link(1) | {"by": "x"}])):
        with pytest.raises(NamespaceError):
            await bob.get(Publisher).publish(Fact(SALT, value))
    for body in ("junk", [{"url": "x"}], [link(1) | {"by": "00" * 32}]):
        fact = {"salt": SALT.decode(), "json": body}
        with pytest.raises((RpcError, NamespaceError)):
            await bob.get(Rpc).call(ME, "publish.facts", {"facts": [fact]})
    # from a peer that does not know it: put, put in blocks, batch
    entries = [(b"%d" % n, msgspec.msgpack.encode({"url": "x" * 60})) for n in range(100)]
    tree = plant_set(1, entries, 5 + sum(len(e) for _, e in entries))
    for item, blocks in (
        (junk(carol, b"inline"), None),
        (junk(carol, tree.manifest, kind=Kind.MANIFEST), tree.blocks),
    ):
        before = counted()
        report = await carol.get(Dht).put(item, blocks=blocks)
        codes = {r.peer: r.code for r in report.replicas}
        assert codes[bob.public] == refused
        assert codes[keeper.public] == 0
        assert counted() == before + 1
    reports = await carol.get(Dht).put_many([junk(carol, b"in a batch"), junk(carol, b"x", b"any")])
    codes = [{r.peer: r.code for r in report.replicas} for report in reports]
    assert [row[bob.public] for row in codes] == [refused, 0]
    assert [row[keeper.public] for row in codes] == [0, 0]
    # from who keeps it as it is: sync, reconcile
    report = await bob.get(Dht).sync(keeper.public, SALT)
    assert (report.stored, report.refused) == (0, 1)
    assert "bookmarks" in report.reasons[0]
    report = await bob.get(Dht).reconcile(keeper.public, SALT)
    assert (report.pulled, report.refused) == (0, 1)
    # and a read does not believe it either
    assert await held_at(bob, carol.public) == ()
    assert await bob.get(Dht).get(carol.public, SALT, age_max_s=0) is None
    assert len(await held_at(keeper, carol.public)) == 1


async def test_c48_two_devices_of_one_key_lose_no_link(world, bookmarks):
    """The merge rule is the set's: what both add is there, whoever was quicker."""
    _, _, alice, bob = await start(world)
    await world.stop(bob)
    bob.secret, bob.public = alice.secret, alice.public
    await world.start(bob)
    await world.until(lambda: bob.get(Dht).peer_count >= 2, limit_s=120)

    async def add(node, numbers):
        for n in numbers:
            await node.get(Rpc).call(ME, "bookmarks.add", {"links": [link(n)]})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(add, alice, range(8))
        tasks.start_soon(add, bob, range(8, 16))
    read = await bob.get(Rpc).call(ME, "bookmarks.of", {"key": alice.public.hex()})
    assert sorted(row["url"] for row in read["links"]) == sorted(link(n)["url"] for n in range(16))
