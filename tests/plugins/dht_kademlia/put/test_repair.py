"""Replicas come back after churn, and what a put missed is handed over (C36)."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest

from dht_kademlia.core.contacts import id_of
from dht_kademlia.core.holders import RECHECK_S, version_of
from dht_kademlia.core.routing_table import SLACK, K
from dht_kademlia.put import repair as repair_module
from dht_kademlia.put.repair import ALL, Repair
from skycore.contracts.dht import DhtMode
from skycore.model.items import Kind, make_lease
from skycore.testing.fakes import TEST_NETWORK, identity

INTERVAL_S = 120
"""The default of `repair_interval_s`."""


class Fleet:
    """Nodes that come and go, each in a task of its own."""

    def __init__(self, network, tasks, **settings):
        self.network, self.settings = network, settings
        self._tasks, self._stops, self._ended = tasks, {}, {}
        self._next = 0

    @property
    def members(self):
        return [self.network.members[name] for name in self._stops]

    async def start(self, count, *, seeds=()):
        for _ in range(count):
            await self.start_one(f"n{self._next}", seeds=seeds)
            self._next += 1
        return self.members[-count:]

    async def start_one(self, name, *, seeds=(), **more):
        seeds = seeds or [m.name for m in self.members[:2]]
        self._stops[name], self._ended[name] = anyio.Event(), anyio.Event()
        return await self._tasks.start(self._live, name, seeds, self.settings | more)

    async def _live(self, name, seeds, settings, *, task_status):
        async with self.network.node(name, seeds=seeds, **settings) as member:
            task_status.started(member)
            await self._stops[name].wait()
        self._ended.pop(name).set()

    async def stop(self, name):
        ended = self._ended[name]
        self._stops.pop(name).set()
        await ended.wait()

    async def stop_all(self):
        for name in list(self._stops):
            await self.stop(name)

    def holders(self, item):
        return [m for m in self.members if holds(m, item)]

    def closest(self, item, count=K):
        target = int.from_bytes(item.target, "big")
        return sorted(self.members, key=lambda m: id_of(m.public) ^ target)[:count]


def holds(member, item):
    return any(s.item == item for s in member.items.held.values())


@pytest.fixture
def fleet(make_network):
    @asynccontextmanager
    async def opened(count, **settings):
        async with anyio.create_task_group() as tasks:
            fleet = Fleet(make_network(), tasks, **settings)
            await fleet.start(count)
            await anyio.sleep(1.0)
            yield fleet
            await fleet.stop_all()

    return opened


async def passed(member):
    """Run one pass over all that a node holds, and return what it did."""
    return await Repair(member.node).walk(*ALL)


def test_c36_replicas_are_back_after_half_the_nodes_left(virtual, fleet, make):
    """60 nodes; half of them, the publisher's too, are replaced within a minute."""

    async def story():
        async with fleet(60) as nodes:
            await anyio.sleep(INTERVAL_S)
            items = [make(f"u{i}") for i in range(40)]
            reports = await nodes.members[7].dht.put_many(items)
            assert min(r.stored for r in reports) >= K - 1
            await anyio.sleep(INTERVAL_S)
            for turn in range(30):
                await nodes.stop(f"n{2 * turn + 1}")
                await nodes.start(1)
                await anyio.sleep(2)
            await anyio.sleep(INTERVAL_S)
            for item in items:
                assert len(nodes.holders(item)) >= K
                assert all(holds(m, item) for m in nodes.closest(item, K - 2))

    virtual(story)


def test_c36_hinted_hand_off(virtual, fleet, make):
    """A node that was away during two puts and a renewal has the newest seconds after its return.

    Repair is off, so that nobody else can have brought it.
    """

    async def story():
        async with fleet(30, repair_interval_s=0) as nodes:
            one, two = make("u1", seq=1), make("u1", seq=2)
            away = nodes.closest(one)[5]
            writer = nodes.closest(one)[12]
            await nodes.stop(away.name)
            await writer.dht.put(one)
            await writer.dht.put(two)
            assert len(writer.node.hints) == 1
            await anyio.sleep(600)
            await nodes.start_one(away.name)
            await anyio.sleep(5)
            assert holds(nodes.network.members[away.name], two)
            assert len(writer.node.hints) == 0

    virtual(story)


@pytest.mark.parametrize("how", ["deleted", "expired"])
def test_c36_a_hint_does_not_bring_back_what_ended(how, virtual, fleet, make):
    async def story():
        async with fleet(12, repair_interval_s=0) as nodes:
            item = make("u1", until=nodes.network.clock.wall_s() + 60)
            away, writer = nodes.members[5], nodes.members[3]
            await nodes.stop(away.name)
            await writer.dht.put(item)
            grave = make("u1", seq=2, v=b"", kind=Kind.TOMBSTONE)
            if how == "deleted":
                await writer.dht.put(grave)
            await anyio.sleep(100)
            await nodes.start_one(away.name)
            await anyio.sleep(10)
            held = nodes.network.members[away.name].items.held.values()
            assert [s.item for s in held] == ([grave] if how == "deleted" else [])

    virtual(story)


def test_a_hint_for_a_node_that_was_only_slow_sends_nothing(virtual, fleet, make):
    async def story():
        async with fleet(12, repair_interval_s=0) as nodes:
            writer, slow = nodes.members[3], nodes.members[5]
            nodes.network.exchange.deaf = {slow.public}
            await writer.dht.put(make("u1"))
            assert len(writer.node.hints) == 1
            nodes.network.exchange.deaf = set()
            writer.node.hints.settled(slow.public, make("u1").target)  # its answer came late
            await anyio.sleep(120)
            assert not holds(slow, make("u1"))

    virtual(story)


def test_with_nothing_changed_a_pass_sends_nothing(virtual, fleet, make):
    """The two closest check once that everybody has a new version; then there is silence."""

    async def story():
        async with fleet(30) as nodes:
            await anyio.sleep(INTERVAL_S)
            items = [make(f"u{i}") for i in range(100)]
            await nodes.members[7].dht.put_many(items)
            await anyio.sleep(2 * INTERVAL_S)
            for member in nodes.members:
                done = await passed(member)
                assert done.walked == len(member.items.held)
                assert (done.deliveries, done.moved) == (0, 0)

    virtual(story)


def test_a_newcomer_gets_what_it_is_close_to_and_nothing_else(virtual, fleet, make):
    async def story():
        async with fleet(50) as nodes:
            await anyio.sleep(INTERVAL_S)
            items = [make(f"u{i}") for i in range(60)]
            await nodes.members[7].dht.put_many(items)
            await anyio.sleep(INTERVAL_S)
            (new,) = await nodes.start(1)
            await anyio.sleep(10)
            for item in items:
                if new in nodes.closest(item, K - 2):
                    assert holds(new, item)
                elif new not in nodes.closest(item, K + SLACK):
                    assert not holds(new, item)

    virtual(story)


def test_a_large_value_is_asked_about_and_sent_only_where_it_lacks(virtual, fleet, make):
    async def story():
        async with fleet(6) as nodes:
            await anyio.sleep(INTERVAL_S)
            item = make("u1", v=bytes(60_000))
            await nodes.members[3].dht.put(item)
            nodes.network.exchange.bytes_moved = 0
            passes = [await passed(m) for m in nodes.members]
            assert 1 <= sum(p.deliveries for p in passes) <= 2 * 5
            assert sum(p.moved for p in passes) < 20_000
            (new,) = await nodes.start(1)
            await anyio.sleep(10)
            assert holds(new, item)
            assert nodes.network.exchange.bytes_moved < 2 * 60_000 + 100_000

    virtual(story)


def test_a_lease_asks_and_prolongs(virtual, fleet, make):
    async def story():
        async with fleet(6, repair_interval_s=0) as nodes:
            item = make("u1")
            for member in nodes.members:
                await member.items.admit([item], sender=b"")
            near, last = nodes.closest(item)[0], nodes.closest(item)[2]
            lease = make_lease(
                TEST_NETWORK, identity("u1").secret, near.items.judge(item), item.until + 600
            )
            await near.items.renew([lease], sender=b"")
            last.items.held.clear()
            done = await passed(near)
            assert done.held == 5
            for member in nodes.members:
                (stored,) = member.items.held.values()
                assert (stored.item, stored.until) == (item, lease.until)

    virtual(story)


def test_what_a_node_said_it_stored_and_dropped_is_found_by_a_read(virtual, fleet, make):
    """A pass believes what was said; a read sees what is there, and the next pass repairs it."""

    async def story():
        async with fleet(25) as nodes:
            await anyio.sleep(INTERVAL_S)
            item = make("u1")
            await nodes.members[3].dht.put(item)
            await anyio.sleep(2 * INTERVAL_S)
            near, liars = nodes.closest(item)[0], nodes.closest(item)[5:12]
            for liar in liars:
                liar.items.held.clear()
            assert (await passed(near)).deliveries == 0
            await near.dht.get(item.subject, item.salt, age_max_s=0)
            await passed(near)
            assert all(holds(liar, item) for liar in liars)

    virtual(story)


def test_what_was_dropped_in_silence_is_found_within_the_hour(virtual, fleet, make):
    async def story():
        async with fleet(4, check_interval_s=600, bootstrap_interval_s=1e4) as nodes:
            item = make("u1", until=nodes.network.clock.wall_s() + 9_000)
            await nodes.members[3].dht.put(item)
            await anyio.sleep(2 * INTERVAL_S)
            liar = nodes.closest(item)[3]
            liar.items.held.clear()
            await anyio.sleep(RECHECK_S + INTERVAL_S)
            assert holds(liar, item)

    virtual(story)


def test_a_node_that_holds_something_better_is_learnt_from(virtual, fleet, make):
    async def story():
        async with fleet(5, repair_interval_s=0) as nodes:
            one, two = make("u1", seq=1, v=bytes(3_000)), make("u1", seq=2)
            near, second, other = nodes.closest(one)[:3]
            for member in (near, second):
                await member.items.admit([one], sender=b"")
            await other.items.admit([two], sender=b"")
            await passed(near)
            assert holds(near, two)
            await passed(near)
            assert len(nodes.holders(two)) == 5

    virtual(story)


def test_what_became_far_is_left_once_a_nearer_node_has_it(virtual, fleet, make):
    async def story():
        async with fleet(50, repair_interval_s=0) as nodes:
            item = make("u1")
            far = nodes.closest(item, 50)[-1]
            await far.items.admit([item], sender=b"")
            assert (await passed(far)).deliveries == 1
            assert sum(holds(m, item) for m in nodes.closest(item, 3)) == 1
            assert (await passed(far)).deliveries == 0
            assert holds(far, item)  # until it expires

    virtual(story)


def test_a_full_node_takes_part_by_the_same_rule(virtual, fleet, make):
    async def story():
        async with fleet(40, repair_interval_s=0) as nodes:
            item = make("u1")
            near, far = nodes.closest(item)[0], nodes.closest(item, 40)[-1]
            for member in (near, far):
                member.node.mode = DhtMode.FULL
                await member.items.admit([item], sender=b"")
            assert (await passed(far)).deliveries == 0
            assert (await passed(near)).held == K - 1
            low, high = near.node.holders.duties(near.node.table, near.node.clock.now() + 999)
            assert low <= int.from_bytes(item.target, "big") <= high

    virtual(story)


def test_a_pass_is_bounded_and_the_next_one_goes_on(virtual, fleet, make, monkeypatch):
    monkeypatch.setattr(repair_module, "DELIVERIES_MAX", 100)
    monkeypatch.setattr(repair_module, "LOAD_MAX", 50)
    monkeypatch.setattr(repair_module, "PORTION", 8)

    async def story():
        async with fleet(5, repair_interval_s=0) as nodes:
            items = [make(f"u{i}") for i in range(90)]
            first = nodes.members[0]
            await first.items.admit(items, sender=b"")
            for other in nodes.members[1:]:
                other.node.holders.entered(first.public, 0.0)
            repair, passes = Repair(first.node), 0
            while (done := await repair.walk(repair.goes_on, ALL[1])).goes_on is not None:
                assert 100 <= done.deliveries <= 100 + 8 * 4
                repair.goes_on = done.goes_on
                passes += 1
            assert passes >= 1
            wanted = sum(m is not first for i in items for m in nodes.closest(i, 5)[:5])
            got = sum(len(m.items.held) for m in nodes.members[1:])
            assert 0 < got <= wanted

    virtual(story)


def test_a_node_that_does_not_answer_is_left_alone_for_the_rest_of_a_pass(
    virtual, fleet, make, monkeypatch
):
    monkeypatch.setattr(repair_module, "LOAD_MAX", 8)
    monkeypatch.setattr(repair_module, "PORTION", 8)

    async def story():
        async with fleet(5, repair_interval_s=0, check_interval_s=1e6) as nodes:
            near, deaf = nodes.members[0], nodes.members[1]
            await near.items.admit([make(f"u{i}") for i in range(80)], sender=b"")
            nodes.network.exchange.deaf = {deaf.public}
            start = anyio.current_time()
            done = await passed(near)
            assert done.silent == {deaf.public}
            assert anyio.current_time() - start < 40

    virtual(story)


def test_a_put_whose_expectation_failed_does_not_spread(virtual, make_network, make):
    """What a lonely store took is taken back when the network refuses it."""

    async def story():
        network = make_network()
        async with network.node("n1", seeds=("n0",)) as alone:
            await alone.dht.put(make("u1", seq=9), cas=0)
            async with network.node("n0") as other:
                await other.items.admit([make("u1", seq=5)], sender=b"")
                await anyio.sleep(3 * INTERVAL_S)
                for member in (alone, other):
                    assert [s.item.seq for s in member.items.held.values()] == [5]

    virtual(story)


def test_who_sent_an_item_holds_it_if_it_signed_it_or_is_near(virtual, fleet, make):
    async def story():
        async with fleet(40, repair_interval_s=0) as nodes:
            item = make("u1")
            near, second = nodes.closest(item)[:2]
            far = nodes.closest(item, 40)[-1]
            for sender, holds_it in ((second.public, True), (far.public, False)):
                near.node.credit(item, sender)
                now = near.node.clock.now()
                assert near.node.holders.holds(version_of(item), sender, now) is holds_it
            own = make(far.name)
            near = nodes.closest(own)[0]
            near.node.credit(own, far.public)
            known = far.public in near.node.table
            now = near.node.clock.now()
            assert near.node.holders.holds(version_of(own), far.public, now) is known

    virtual(story)
