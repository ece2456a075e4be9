"""The methods that keep a node in step: changes, reconcile, verify; and large values."""

import json
from contextlib import AsyncExitStack

import anyio
import msgspec
import pytest

from dht_kademlia.rpc.live import FOLLOWED_MAX, open_dht_live_rpc
from dht_kademlia.rpc.namespaces import open_dht_namespaces_rpc
from dht_kademlia.service import open_dht_rpc
from skycore import Live
from skycore.contracts.access import Level
from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.contracts.rpc import Caller, RpcContext
from skycore.errors import RpcError, SkycoreError
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.model.items import ItemClass, Kind, make_item, make_lease
from skycore.testing.contracts.rpc import RpcServiceContract
from skycore.testing.fakes import TEST_NETWORK, FakeClock, identity

LIFE_S = 3_600
NOTE = Namespace(b"note", 1, str, Form.SINGLE, dict.fromkeys(ItemClass, LIFE_S))
TAGS = Namespace(b"tags", 1, str, Form.SET, {ItemClass.OWNER: LIFE_S})
DECLARED = Namespaces((NOTE, TAGS))


class Desk:
    """One node and all its methods, called as over the wire."""

    def __init__(self, member, clock, services):
        self.member, self.clock, self.items = member, clock, member.items
        self.key = member.public.hex()
        self.methods = {m.name: m for service in services for m in service.methods}

    async def __call__(self, name, **params):
        method = self.methods[name]
        given = msgspec.json.decode(json.dumps(params), type=method.params)
        result = await method.call(given, RpcContext(Caller()))
        return msgspec.json.decode(msgspec.json.encode(result), type=method.result)

    def sign(self, name, v, *, seq=1, salt=b"note", kind=Kind.VALUE, life_s=1_800):
        """Sign a record of somebody else."""
        v = NOTE.encode(v) if v and salt == b"note" else v.encode()
        start = self.clock.wall_s()
        return make_item(
            TEST_NETWORK, identity(name).secret, salt=salt, seq=start * 10**9 + seq,
            until=start + (7 * 86_400 if kind == Kind.TOMBSTONE else life_s), v=v, kind=kind,
        )  # fmt: skip

    async def admit(self, *items):
        outcomes = await self.items.admit(items, sender=self.member.public)
        assert all(outcome.accepted for outcome in outcomes), outcomes


@pytest.fixture
def told(virtual, make_network):
    """Run a story between the desks of a full node and of a regular one that knows it."""

    def run(story, **settings):
        async def main():
            network = make_network()
            async with AsyncExitStack() as stack:
                enter = stack.enter_async_context
                desks = []
                for name, own in (("n0", {"full_node": True}), ("n1", {"seeds": ("n0",)})):
                    member = await enter(network.node(name, gate={}, **own, **settings))
                    publisher = await enter(
                        open_publisher(
                            PublisherSettings(), member.node.identity, member.items,
                            Live([member.mirror]), DECLARED, network.clock, member.files,
                        )
                    )  # fmt: skip
                    node, dht, clock = member.node, member.dht, network.clock
                    services = [
                        await enter(open_dht_rpc(dht, node, publisher, DECLARED, clock)),
                        await enter(open_dht_namespaces_rpc(DECLARED)),
                        await enter(open_dht_live_rpc(dht, node, DECLARED, clock)),
                    ]
                    desks.append(Desk(member, clock, services))
                await anyio.sleep(1)
                await story(*desks)

        virtual(main)

    return run


class TestMethods(RpcServiceContract):
    @pytest.fixture
    async def service(self):
        async with open_dht_live_rpc(None, None, DECLARED, FakeClock()) as service:
            yield service


def test_levels(told):
    async def story(full, visor):
        operate = {n for n, m in visor.methods.items() if m.level is Level.OPERATE}
        assert operate == {
            f"dht.{n}" for n in ("put", "delete", "sync", "reconcile", "full_node", "follow")
        }

    told(story)


# --- large values and versions -------------------------------------------------------------------


async def whole(desk, item):
    value = b""
    while True:
        piece = await desk(
            "dht.value", salt=item.salt, subject=item.subject, digest=item.digest,
            offset=len(value),
        )  # fmt: skip
        value += piece.piece
        if len(value) >= piece.total:
            return value


def test_a_large_set_is_listed_by_its_size_and_read_in_pieces(told):
    tags = sorted(f"tag {i:05d} " + "x" * 300 for i in range(5_000))

    async def story(full, visor):
        assert (await visor("dht.put", salt="tags", json=tags)).stored == 2
        (row,) = (await full("dht.list", salt="tags")).items
        assert (row.kind, row.entries, row.in_blocks, row.value) == ("manifest", 5_000, True, None)
        assert row.size == len(TAGS.encode(tags))
        assert len(row.value_hex) < 200
        got = (await full("dht.get", salt="tags", subject=visor.key)).item
        value = await whole(full, got)
        assert TAGS.decode(value) == tags
        (await visor("dht.put", salt="tags", json=tags[1:]))
        assert await whole(full, got) == value  # the version that was asked for, not a mix
        assert (await visor("dht.delete", salt="tags")).stored == 2
        gone = await full("dht.get", salt="tags", subject=visor.key)
        assert (gone.deleted, gone.item.size) == (True, 0)

    told(story)


def test_c47_versions_and_what_was_valid_when(told):
    async def story(full, visor):
        seqs = []
        for text in ("two", "three"):
            seqs.append((await visor("dht.put", salt="note", json=text)).seq)
            await anyio.sleep(10)
        seqs.append((await visor("dht.delete", salt="note")).seq)
        told_by = {"salt": "note", "subject": visor.key}
        versions = (await full("dht.history", **told_by)).versions
        assert [v.seq for v in versions] == seqs[::-1]
        assert [v.kind for v in versions] == ["tombstone", "value", "value"]
        assert all(v.value is None and not v.value_hex for v in versions)
        assert len((await full("dht.history", limit=2, **told_by)).versions) == 2
        for at, text in ((seqs[0], "two"), (str(int(seqs[1]) - 1), "two"), (seqs[1], "three")):
            (version,) = (await full("dht.history", at=at, **told_by)).versions
            assert version.value == text
        (gone,) = (await full("dht.history", at=str(int(seqs[2]) + 1), **told_by)).versions
        assert gone.kind == "tombstone"
        assert not (await full("dht.history", at="5", **told_by)).versions
        assert not (await full("dht.history", salt="note")).versions

    told(story)


def test_c47_a_large_version_is_read_long_after_it_was_replaced(told):
    tags = [f"{i:04d}" + "x" * 400 for i in range(100)]

    async def story(full, visor):
        first = await visor("dht.put", salt="tags", json=tags)
        await visor("dht.put", salt="tags", json=["few"])
        await anyio.sleep(400)
        told_by = {"salt": "tags", "subject": visor.key}
        (old,) = (await full("dht.history", at=first.seq, **told_by)).versions
        assert TAGS.decode(await whole(full, old)) == tags
        with pytest.raises(SkycoreError) as caught:
            await full("dht.value", digest="00" * 32, **told_by)
        assert caught.value.hint

    told(story)


# --- changes -------------------------------------------------------------------------------------


def test_changes_are_waited_for_and_none_is_missed(told):
    async def story(full, visor):
        nothing = await full("dht.changes", salt="note")
        assert (nothing.changes, nothing.has_more) == ([], False)
        heard = []

        async def listen(cursor):
            while len(heard) < 3:
                page = await full("dht.changes", salt="note", after=cursor, wait_s=20)
                heard.extend((c.what, c.item.value) for c in page.changes)
                cursor = page.cursor

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, nothing.cursor)
            await anyio.sleep(50)  # longer than one call may wait
            await visor("dht.put", salt="note", json="one")
            await visor("dht.put", salt="other", text="not asked for")
            await anyio.sleep(1)
            await visor("dht.put", salt="note", json="two")
            await anyio.sleep(1)
            await visor("dht.delete", salt="note")
        assert heard == [("stored", "one"), ("stored", "two"), ("deleted", None)]
        late = await full("dht.changes", salt="note", after=nothing.cursor, wait_s=20)
        assert [c.what for c in late.changes] == ["deleted"]  # fell behind: the newest of each

    told(story)


def test_changes_come_in_bounded_pages_and_renewals_where_wanted(told):
    async def story(full, visor):
        start = (await full("dht.changes")).cursor
        notes = [full.sign(f"u{i}", f"note {i}") for i in range(40)]
        await full.admit(*notes)
        seen, cursor = [], start
        while True:
            page = await full("dht.changes", after=cursor, limit=16)
            assert len(page.changes) <= 16
            seen += [c.item.subject for c in page.changes]
            cursor = page.cursor
            if not page.has_more:
                break
        assert sorted(seen) == sorted(i.subject.hex() for i in notes)
        (stored,) = await full.items.get(notes[0].target)
        until = full.clock.wall_s() + 3_000
        await full.items.renew(
            [make_lease(TEST_NETWORK, identity("u0").secret, stored, until)], sender=b""
        )
        quiet = await full("dht.changes", after=cursor)
        assert quiet.changes == []
        (renewed,) = (await full("dht.changes", after=cursor, renewals=True)).changes
        assert (renewed.what, renewed.item.until, renewed.item.leased) == ("renewed", until, True)

    told(story)


def test_a_cursor_of_another_store_begins_anew_and_says_so(told):
    async def story(full, visor):
        foreign = (await visor("dht.changes")).cursor
        page = await full("dht.changes", after=foreign, wait_s=20)
        assert page.is_reset
        assert not (await full("dht.changes", after=page.cursor)).is_reset

    told(story)


def test_a_regular_node_follows_for_as_long_as_it_is_asked_to(told):
    async def story(full, visor):
        assert not (await full("dht.follow")).is_following  # it is in step with all anyway
        assert (await visor("dht.follow", salt="note", for_s=60)).is_following
        await anyio.sleep(5)
        cursor = (await visor("dht.changes", salt="note")).cursor
        await full.admit(full.sign("u1", "hello"))
        page = await visor("dht.changes", salt="note", after=cursor, wait_s=5)
        assert [c.item.value for c in page.changes] == ["hello"]
        (watched,) = (await visor("dht.status")).watching
        assert (watched["salt"], watched["live"]) == ("note", True)
        await visor("dht.follow", salt="note", for_s=60)  # goes on, once
        await anyio.sleep(30)
        assert len((await visor("dht.status")).watching) == 1
        await anyio.sleep(60)
        assert (await visor("dht.status")).watching == []
        for i in range(FOLLOWED_MAX):
            await visor("dht.follow", salt=f"s{i}")
        with pytest.raises(RpcError):
            await visor("dht.follow", salt="one too many")

    told(story)


# --- comparing -----------------------------------------------------------------------------------


def test_c46_verify_names_what_differs_and_reconcile_repairs_it(told):
    async def story(full, visor):
        both = [full.sign(f"b{i}", "same") for i in range(50)]
        await full.admit(*both, full.sign("u1", "there only"), full.sign("u2", "old"))
        await visor.admit(*both, visor.sign("u3", "here only"), visor.sign("u2", "new", seq=2))
        (leased,) = await full.items.get(both[0].target)
        until = full.clock.wall_s() + 3_000
        lease = make_lease(TEST_NETWORK, identity("b0").secret, leased, until)
        await full.items.renew([lease], sender=b"")
        found = await visor("dht.verify", peer=full.key, salt="note")
        assert (found.equal, found.complete, found.different, found.leases) == (False, True, 3, 1)
        assert {(d.what, d.subject, d.salt) for d in found.differences} == {
            ("missing", identity("u1").public.hex(), "note"),
            ("different", identity("u2").public.hex(), "note"),
            ("extra", identity("u3").public.hex(), "note"),
        }
        dry = await visor("dht.reconcile", peer=full.key, salt="note", dry_run=True)
        assert (dry.different, dry.pulled, dry.pushed) == (4, 0, 0)
        done = await visor("dht.reconcile", peer=full.key, salt="note")
        assert (done.pulled, done.pushed, done.renewed, done.complete) == (1, 2, 1, True)
        after = await visor("dht.verify", peer=full.key, salt="note")
        assert (after.equal, after.different, after.leases) == (True, 0, 0)
        with pytest.raises(SkycoreError):
            await visor("dht.verify", peer=visor.key)
        with pytest.raises(SkycoreError):
            await visor("dht.verify", peer="ab" * 32)

    told(story, full_nodes_max=0)


def test_l23_facts_are_compared_by_content_whoever_signed_them(told):
    async def story(full, visor):
        tags = [f"{i:04d}" + "x" * 400 for i in range(100)]
        await visor("dht.put", salt="tags", json=tags)
        await full.admit(full.sign("u1", "same"), full.sign("u2", "else"))
        await full.admit(full.sign("u3", "", kind=Kind.TOMBSTONE))
        rows = [
            {"salt": "tags", "subject": visor.key, "json": tags[::-1]},
            *(
                {"salt": "note", "subject": identity(u).public.hex(), "json": "same"}
                for u in ("u1", "u2", "u3", "u4")
            ),
            {"salt": "note", "subject": identity("u5").public.hex(), "delete": True},
        ]
        found = await full("dht.verify_facts", facts=rows)
        assert found.same == 3
        assert [(u.what, u.subject) for u in found.unequal] == [
            (what, identity(name).public.hex())
            for what, name in (("different", "u2"), ("deleted", "u3"), ("missing", "u4"))
        ]

    told(story)


# --- full nodes, and publishing many -------------------------------------------------------------


def test_a_node_becomes_a_full_node_and_a_regular_one_again(told):
    async def story(full, visor):
        assert (await visor("dht.full_node", on=False)).before == "regular"
        now = await visor("dht.full_node", on=True)
        assert (now.mode, now.before, now.configured) == ("full", "regular", "regular")
        await full.admit(*(full.sign(f"u{i}", "x") for i in range(60)))
        await anyio.sleep(30)
        status = await visor("dht.status")
        assert (status.mode, status.complete, status.items["note"]) == ("full", True, 60)
        assert (await visor("dht.full_node", on=False)).mode == "regular"
        assert (await visor("dht.full_nodes")).full_nodes == []  # nobody advertises in this test

    told(story)


def test_listings_in_brief_and_of_our_own(told):
    async def story(full, visor):
        await visor("dht.put", salt="note", json="mine")
        await full.admit(*(full.sign(f"u{i}", "theirs") for i in range(300)))
        await visor("dht.sync")
        page = await visor("dht.list", salt="note", mine=True, brief=True)
        assert [(i.subject, i.value, i.value_hex) for i in page.items] == [(visor.key, None, "")]
        assert page.total == 301

    told(story)
