"""publish.facts and publish.mirrored, on a gate over the memory store."""

from __future__ import annotations

from contextlib import asynccontextmanager

import msgspec
import pytest

from publish_rpc.service import CHUNK, MirroredParams, PublishParams, open_publish_rpc
from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.contracts.rpc import Caller, RpcContext
from skycore.errors import RpcError
from skycore.events import Events
from skycore.guards.gate import GateSettings, open_gate
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.jsonrpc.facts import FACTS_MAX, FactRow
from skycore.model.delegation_token import encode_delegation
from skycore.model.items import ItemClass, Kind, make_delegation, mutable_item_target
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.runtime.memory import MemoryFiles
from skycore.testing.contracts.rpc import RpcServiceContract
from skycore.testing.fakes import FakeClock, InlineWorkers, SeededEntropy, identity
from skycore.wiring import Live
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings

AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(AUTHORITY))
CLASSES = (ItemClass.OWNER, ItemClass.MIRROR)
DECLARED = Namespaces([Namespace(b"note", 1, str, Form.SINGLE, dict.fromkeys(CLASSES, 3_600))])


class Desk:
    def __init__(self, items, me, service, told):
        self.items = items
        self.me = me
        self.told = told
        self.methods = {method.name: method for method in service.methods}

    async def publish(self, *rows, delegations=()):
        facts = [msgspec.convert(row, FactRow) for row in rows]
        context = RpcContext(Caller(), lambda *done: self.told.append(done))
        params = PublishParams(facts, list(delegations))
        return await self.methods["publish.facts"].call(params, context)

    async def mirrored(self, after=""):
        params = MirroredParams("note", after)
        return await self.methods["publish.mirrored"].call(params, RpcContext(Caller()))


@asynccontextmanager
async def desk(*mirrors):
    clock, me = FakeClock(), identity("me", NETWORK)
    async with (
        open_memory_store(MemoryStoreSettings(), SeededEntropy()) as store,
        open_gate(GateSettings(), store, me, DECLARED, clock, InlineWorkers(), Events()) as items,
        open_publisher(
            PublisherSettings(), me, items, Live([]), DECLARED, clock, MemoryFiles()
        ) as publisher,
        open_publish_rpc(publisher, DECLARED, items, Live(mirrors), me) as service,
    ):
        yield Desk(items, me, service, [])


def token(me):
    until = FakeClock().wall_s() + 86_400
    return encode_delegation(make_delegation(NETWORK, AUTHORITY, me.public, b"note", until))


class TestMethods(RpcServiceContract):
    @pytest.fixture
    async def service(self):
        async with desk() as one:
            yield type("Service", (), {"methods": tuple(one.methods.values())})()


async def test_l6_a_batch_publishes_and_deletes():
    async with desk() as one:
        put = await one.publish({"salt": "note", "json": "here"})
        assert (put.published, put.deleted, put.queued) == (1, 0, 0)
        done = await one.publish({"salt": "note", "delete": True})
        assert (done.published, done.deleted, done.refused) == (0, 1, 0)
        (gone,) = await one.items.get(mutable_item_target(one.me.public, b"note"))
        assert gone.item.kind == Kind.TOMBSTONE
        for bad in ({"salt": "note"}, {"salt": "note", "json": "x", "delete": True}):
            with pytest.raises(RpcError):
                await one.publish(bad)
        with pytest.raises(RpcError, match="no active plugin declares"):
            await one.publish({"salt": "elsewhere", "json": "x"})


async def test_l9_what_has_not_changed_is_said_so():
    async with desk() as one:
        rows = [{"salt": "note", "json": "same"}]
        assert (await one.publish(*rows)).unchanged == 0
        assert (await one.publish(*rows)).unchanged == 1


async def test_whom_this_node_mirrors_page_by_page(monkeypatch):
    monkeypatch.setattr("publish_rpc.service.CHUNK", 8)
    monkeypatch.setattr("publish_rpc.service.SUBJECTS_MAX", 20)
    async with desk() as one:
        subjects = [identity(f"v{i}", NETWORK).public.hex() for i in range(100)]
        rows = [{"salt": "note", "subject": s, "json": s} for s in subjects]
        done = await one.publish(*rows, delegations=[token(one.me)])
        assert (done.published, done.refused) == (100, 0)
        await one.publish({"salt": "note", "json": "our own, not mirrored"})
        gone = {"salt": "note", "subject": subjects[0], "delete": True}
        await one.publish(gone, delegations=[token(one.me)])
        found, page = [], await one.mirrored()
        found += page.subjects
        while page.next:
            assert len(page.subjects) >= 20
            page = await one.mirrored(page.next)
            found += page.subjects
        assert sorted(found) == sorted(subjects[1:])
        assert one.told[-1] == (1, 1, "records published")


class Behind:
    """A mirror behind which our own store lags, as mirror_redis does."""

    name = "behind"

    def __init__(self):
        self.later = []

    async def mirror(self, items, *, cas=None, progress=None, blocks=None):
        raise NotImplementedError

    async def copied(self):
        for work in self.later:
            await work()


async def test_l6_whom_this_node_mirrors_counts_what_it_has_just_published():
    behind = Behind()
    async with desk(behind) as one:
        row = {"salt": "note", "subject": identity("v1", NETWORK).public.hex(), "json": "x"}
        behind.later.append(lambda: one.publish(row, delegations=[token(one.me)]))
        assert (await one.mirrored()).subjects == [row["subject"]]


def test_bounds():
    assert CHUNK > 3  # a target has three slots: a chunk always gets on
    row = {"salt": "note", "json": "x"}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"facts": [row] * (FACTS_MAX + 1)}, PublishParams)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"salt": "note", "after": "zz"}, MirroredParams)
