"""The index beside the store: in step with what is put, prolonged, ended, deleted and dropped."""

from __future__ import annotations

import anyio

from discovery_transport.client.core.entries import TP, own_entry
from discovery_transport.client.index import AGAIN_S, TransportIndex
from skycore.contracts.store import ItemKey, Items
from skycore.model.entries import TransportEntry
from skycore.model.items import Kind, make_item, make_lease
from skycore.model.packets import transport_id
from skycore.testing import World
from skycore.testing.fakes import identity


class Book:
    """A full node's store, its index, and people who say what they list."""

    def __init__(self, node):
        self.network = node.node.identity.network
        self.items, self.clock = node.get(Items), node.clock
        self.namespace = node.node.assembly.namespaces.find(TP)
        self.index = TransportIndex(self.items, self.namespace, node.clock)

    def person(self, name):
        return identity(name, self.network)

    def entry(self, one, other):
        one, other = self.person(one).public, self.person(other).public
        t_id = transport_id(one, other, "stcpr")
        return own_entry(one.hex(), other.hex(), t_id, "stcpr", "user")

    async def say(self, name, *others, lives_s=290, entries=None):
        entries = [self.entry(name, other) for other in others] if entries is None else entries
        kind = Kind.VALUE if entries else Kind.TOMBSTONE
        item = make_item(
            self.network,
            self.person(name).secret,
            salt=TP,
            seq=self.clock.wall_ns(),
            until=self.clock.wall_s() + (lives_s if entries else 7 * 86_400),
            v=self.namespace.encode(entries) if entries else b"",
            kind=kind,
        )
        (outcome,) = await self.items.admit([item], sender=item.signer)
        assert outcome.code == 0, outcome
        await anyio.sleep(0.2)
        return item

    def seen(self):
        return {frozenset(s.entry.edges): s.sides for s in self.index.whole().values()}

    def pair(self, one, other):
        return frozenset((self.person(one).public.hex(), self.person(other).public.hex()))


async def test_c54_it_is_in_step_with_the_store():
    async with World(seed=31) as world, anyio.create_task_group() as tasks:
        book = Book(await world.full_node())
        await book.say("alice", "bob")
        tasks.start_soon(book.index.run)
        await book.index.wait_loaded()
        ab, ac = book.pair("alice", "bob"), book.pair("alice", "carol")
        assert book.seen() == {ab: 1}
        await book.say("bob", "alice")
        await book.say("alice", "bob", "carol")
        assert book.seen() == {ab: 2, ac: 1}
        assert book.index.whole() is book.index.whole(), "put together once for each state"
        t_id = book.entry("alice", "bob").t_id
        assert book.index.one(t_id).sides == 2
        await book.say("alice", "carol")
        assert book.seen() == {ab: 1, ac: 1} and book.index.one(t_id).sides == 1
        await book.say("bob")
        assert book.seen() == {ac: 1} and book.index.one(t_id) is None
        tasks.cancel_scope.cancel()


async def test_what_ends_is_gone_at_once_and_what_is_prolonged_is_read_once():
    async with World(seed=32) as world, anyio.create_task_group() as tasks:
        book = Book(await world.full_node())
        tasks.start_soon(book.index.run)
        await book.say("alice", "bob", lives_s=100)
        item = await book.say("carol", "bob", lives_s=100)
        decoded = book.index.decoded
        await anyio.sleep(60)
        ranked = book.items.judge(item)
        until = book.clock.wall_s() + 290
        lease = make_lease(book.network, book.person("carol").secret, ranked, until)
        await book.items.renew([lease], sender=item.signer)
        await anyio.sleep(60)
        assert book.seen() == {book.pair("carol", "bob"): 1}
        assert book.index.decoded == decoded
        tasks.cancel_scope.cancel()


async def test_what_is_dropped_is_noticed_within_ten_minutes():
    async with World(seed=33) as world, anyio.create_task_group() as tasks:
        book = Book(await world.full_node())
        tasks.start_soon(book.index.run)
        dropped = await book.say("alice", "bob", lives_s=300)
        for turn in range(4):  # others come and go meanwhile
            await book.say(f"person {turn}", "bob")
            await anyio.sleep(20)
        await book.items.drop([ItemKey(dropped.target, 3)])
        target, index = dropped.target, book.index
        assert target in index._slots
        await anyio.sleep(AGAIN_S)
        assert target not in index._slots
        assert not any(target in targets for targets in index._having.values())
        tasks.cancel_scope.cancel()


async def test_an_entry_under_an_id_not_its_own_does_not_count():
    async with World(seed=34) as world, anyio.create_task_group() as tasks:
        book = Book(await world.full_node())
        tasks.start_soon(book.index.run)
        await book.say("alice", "bob")
        await book.say("bob", "alice")
        real = book.entry("alice", "bob")
        mallory = book.person("mallory").public.hex()
        lie = TransportEntry(real.t_id, (mallory, real.edges[0]), "stcpr")
        await book.say("mallory", entries=[lie])
        assert book.seen() == {book.pair("alice", "bob"): 2}
        tasks.cancel_scope.cancel()
