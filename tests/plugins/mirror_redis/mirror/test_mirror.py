"""What a mirror writes: at what cost, seen by whom, and what a report says."""

from __future__ import annotations

import random
import signal

import anyio
import msgspec
import pytest

from mirror_redis.mirror import RedisMirror
from mirror_redis.source import open_redis_source
from skycore.contracts.dht import CopyingMirror
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact
from skycore.contracts.status import Health
from skycore.contracts.store import ChangeFilter, Outcome
from skycore.errors import CasMismatchError, ItemError, SeqTooFarError, SeqTooLowError
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.model.items import mutable_item_target
from skycore.runtime.memory import MemoryFiles
from skycore.testing.fakes import SeededEntropy, identity
from skycore.testing.mirrors import PeersMirror
from skycore.wiring import Live

BATCH = {f"visor{i}": f"text {i}" for i in range(200)}


def replica(published):
    """Return what Redis said of a publish."""
    ((one,),) = [report.replicas for report in published.reports]
    return one


async def test_l3_a_batch_is_one_round_trip_whatever_its_size(redis, service, commands):
    async with service(redis.url, check_s=30) as one:
        await one.publish("first")  # the script is known now
        for count in (1, 50, 200):
            before = one.link.counters["round_trips"]
            notes = dict.fromkeys(list(BATCH)[:count], f"{count}")
            with commands() as sent:
                await one.publish_all(notes)
            assert one.link.counters["round_trips"] - before == 1
            assert sent["evalsha"] == 1


async def test_l3_c30_no_connection_but_one(redis, service, commands):
    async with service(redis.url) as one:
        for number in range(50):
            await one.publish(f"text {number}")
        assert one.link.counters["connections"] <= 2  # the writer's, and one that looks on
        assert one.link.counters["reconnects"] == 0


async def test_l11_nothing_scans(redis, service, commands):
    async with service(redis.url, audit_s=0.1) as one:
        with commands() as sent:
            await one.publish_all(BATCH)
            await anyio.sleep(0.3)
        assert not {"keys", "scan", "hscan", "zscan", "sscan", "smembers"} & set(sent)


async def test_o19_l4_c35_a_running_node_serves_what_a_mirror_wrote(redis, service, reader):
    async with reader(redis.url) as full, service(redis.url) as one:
        assert await full.note("visor1") is None
        await one.publish("hello", "visor1")
        assert await full.note("visor1") == "hello"
        await one.publish("again", "visor1")
        assert await full.note("visor1") == "again"


async def test_o19_c35_those_who_wait_for_changes_are_told(redis, service, reader):
    async with reader(redis.url) as full, service(redis.url) as one:
        page = await full.items.changes(None, ChangeFilter(), 10, 10**6)
        news = full.items.changed()
        await one.publish("hello", "visor1")
        with anyio.fail_after(2.0):  # what is promised
            while True:
                await news.wait()
                news = full.items.changed()
                page = await full.items.changes(page.cursor, ChangeFilter(), 10, 10**6)
                if page.entries:
                    break
        assert page.entries[0].item.signer == one.me.public


@pytest.mark.parametrize("seed", range(3))
async def test_o20_l5_m11_what_is_stored_never_goes_back(redis, service, reader, seed):
    """Several mirrors of one subject, in any order and with clocks that differ."""
    dice = random.Random(seed)
    async with (
        reader(redis.url) as full,
        service(redis.url, "a") as a,
        service(redis.url, "b") as b,
    ):
        last = 0
        for number in range(30):
            one = dice.choice((a, b))
            one.clock.offset_s = dice.uniform(-100, 100)
            published = await one.publish(f"{number}", "visor1")
            (held,) = await full.items.get(_target("visor1"))
            assert held.item.seq >= last
            assert held.item.seq >= published.seq or replica(published).code > Outcome.HELD
            last = held.item.seq


def _target(name):
    return mutable_item_target(identity(name).public, b"note")


async def test_l5_a_mirror_that_was_overtaken_is_told_and_goes_beyond(redis, service, reader):
    async with (
        reader(redis.url) as full,
        service(redis.url, "a") as a,
        service(redis.url, "b") as b,
    ):
        a.clock.offset_s = 200.0
        ahead = await a.publish("from ahead", "visor1")
        published = await b.publish("newer", "visor1")
        assert published.seq > ahead.seq
        assert await full.note("visor1") == "newer"


async def test_l9_what_has_not_changed_costs_nothing(redis, service, commands):
    async with service(redis.url, check_s=30) as one:
        await one.publish_all(BATCH)
        signed, before = one.suite.signed, one.link.counters["round_trips"]
        with commands() as sent:
            for _ in range(10):
                done = await one.publish_all(BATCH)
                assert all(each.unchanged for each in done)
        assert one.suite.signed == signed
        assert one.link.counters["round_trips"] == before
        assert not {"evalsha", "eval", "hset"} & set(sent)


async def test_l9_nor_after_a_restart_but_a_lease_each(redis, service, reader):
    async with service(redis.url) as one:
        await one.publish_all(BATCH)
        files, store = one.files, one.store
        async with service(redis.url, files=files, store=store) as other:
            other.publisher._records.save(at_end=True)
    async with reader(redis.url) as full, service(redis.url, files=files) as again:
        done = await again.publish_all(BATCH)  # its own store has forgotten them
        assert all(each.unchanged for each in done)
        assert again.suite.signed == len(BATCH)  # leases, and no item
        assert await full.note("visor7") == "text 7"


async def test_l9_a_delete_evicts(redis, service, reader):
    async with reader(redis.url) as full, service(redis.url) as one:
        await one.publish_all({"visor1": "here", "visor2": "here"})
        done = await one.publish(None, "visor1")
        assert replica(done).code == Outcome.STORED
        assert (await full.note("visor1"), await full.note("visor2")) == (None, "here")
        signed = one.suite.signed
        assert (await one.publish(None, "visor1")).unchanged
        assert one.suite.signed == signed


async def test_a_lease_prolongs_what_stands_there(redis, service, reader):
    async with service(redis.url) as one, reader(redis.url, clock=one.clock) as full:
        await one.publish("hello", "visor1")
        (before,) = await full.items.get(_target("visor1"))
        one.clock.offset_s = 2_000.0  # more than half of its hour
        done = await one.publish("hello", "visor1")
        assert done.unchanged and replica(done).code == Outcome.RENEWED
        (after,) = await full.items.get(_target("visor1"))
        assert after.digest == before.digest and after.until > before.until + 1_000


async def test_c27_what_redis_lost_is_brought_with_its_lease_and_no_signature(
    redis, service, reader
):
    async with service(redis.url, check_s=30) as one:
        await one.publish("hello", "visor1")
        redis.send("FLUSHALL")
        one.clock.offset_s = 2_000.0
        signed = one.suite.signed
        done = await one.publish("hello", "visor1")
        assert done.unchanged and replica(done).code <= Outcome.HELD
        assert one.suite.signed == signed + 1  # the lease
        async with reader(redis.url, clock=one.clock) as full:
            (there,) = await full.items.get(_target("visor1"))
            assert there.lease is not None


async def test_cas_is_asked_of_redis_and_changes_nothing_where_it_fails(redis, service, reader):
    async with (
        reader(redis.url) as full,
        service(redis.url, "a") as a,
        service(redis.url, "b") as b,
    ):
        mine = await a.publish("a's", "visor1")
        lost = await b.publish("b's", "visor1", cas=0)
        assert replica(lost).code == CasMismatchError.code
        assert not await b.items.get(_target("visor1"))
        won = await b.publish("b's", "visor1", cas=mine.seq)
        assert replica(won).code == Outcome.STORED
        assert await full.note("visor1") == "b's"


async def test_cas_is_refused_by_name_where_redis_is_away(own_redis, service, until):
    server = own_redis()
    async with service(server.url) as one:
        await one.publish("hello")
        server.stop()
        await until(lambda: _is_down(one))
        done = await one.publish("more", cas=0)
        assert done.reports[0].stored == 0
        assert done.reports[0].outcome.code == ItemError.code
        assert "it cannot be reached" in done.reports[0].outcome.text


async def _is_down(one) -> bool:
    await one.publish("a change is noticed by a call")
    return not one.link.is_usable


async def test_c13_a_clock_that_is_ahead_is_said_and_nothing_holds_its_slot_for_nothing(
    redis, service, reader, until
):
    async with reader(redis.url) as full, service(redis.url, audit_s=0.1) as one:
        one.clock.offset_s = 3_600.0
        await until(lambda: one.mirroring.auditor.is_clock_wrong)
        done = await one.publish("from the future", "visor1")
        assert replica(done).code == SeqTooFarError.code
        fields = await one.fields()
        assert fields.health is Health.DEGRADED and "ahead of" in fields.summary
        assert redis.send("EXISTS", f"dht:{_target('visor1').hex()}:1") == b":0\r\n"
        one.clock.offset_s = 0.0
        await until(lambda: not one.mirroring.auditor.is_clock_wrong)
        await one.publish("now", "visor1")
        assert await full.note("visor1") == "now"


async def test_m11_a_clock_that_is_behind_is_said_and_its_seqs_go_on(redis, service, until):
    async with service(redis.url) as one:
        first = await one.publish("right", "visor1")
        one.clock.offset_s = -1_000.0
        await until(lambda: one.mirroring.auditor.is_clock_wrong)
        second = await one.publish("clock set back", "visor1")
        assert second.seq > first.seq
        assert "behind" in (await one.fields()).summary


async def test_what_is_refused_is_no_business_of_redis(redis, service, commands):
    async with service(redis.url, check_s=30) as one:
        await one.publish("first")
        await one.mirroring.copies.catch_up()
        forged = (await one.items.get(_own(one)))[0].item
        forged = msgspec.structs.replace(forged, seq=forged.seq + 1)
        with commands() as sent:
            [report] = await one.mirror.mirror([forged])
        assert report.stored == 0 and "evalsha" not in sent


def _own(one):
    return mutable_item_target(one.me.public, b"note")


async def test_l22_a_slow_answer_is_no_obstacle(own_redis, service, until):
    """Stopped for a while (M2): reports say queued at once, and the timed-out write is the same."""
    server = own_redis()
    async with service(server.url, grace_s=0.01, timeout_s=0.2) as one:
        await one.publish("before")
        server.signal(signal.SIGSTOP)
        for number in range(20):
            done = await one.publish(f"text {number}")
            assert done.reports[0].outcome.accepted  # our own store's
            assert replica(done).code == Outcome.NOT_HELD
            assert replica(done).text.startswith("queued: ")
        await until(lambda: not one.link.is_usable)
        fields = await one.fields()
        assert fields.health is Health.DOWN and fields.state == "slow" and fields.waiting == 1
        server.signal(signal.SIGCONT)
        await one.settled()
        assert (await one.fields()).health is Health.OK
        assert SeqTooLowError.code not in {replica(await one.publish("after")).code}


async def test_c30_a_change_that_redis_took_is_copied_with_others(redis, service, reader, until):
    async with service(redis.url, copy_s=0.1, check_s=30) as one:
        for number in range(5):
            done = await one.publish(f"{number}", "visor1")
            assert (replica(done).code, done.reports[0].stored) == (Outcome.STORED, 1)

        async def is_copied():
            held = await one.items.get(_target("visor1"))
            return held and held[0].item.seq == done.seq

        await until(is_copied)
        assert sum(one.items.counters.values()) < 5  # not each by itself


async def test_whoever_needs_the_copies_can_wait_for_them(redis, service):
    async with service(redis.url, copy_s=60) as one:
        await one.publish("hello", "visor1")
        assert isinstance(one.mirror, CopyingMirror)
        assert not await one.items.get(_target("visor1"))
        await one.mirror.copied()
        assert await one.items.get(_target("visor1"))


async def test_c30_with_copies_first_each_is_kept_before_its_report(redis, service):
    async with service(redis.url, copy_s=0) as one:
        done = await one.publish("hello", "visor1")
        assert (replica(done).code, done.reports[0].stored) == (Outcome.STORED, 2)
        assert await one.items.get(_target("visor1"))


async def test_the_last_changes_are_copied_at_the_end(redis, service):
    async with service(redis.url, copy_s=60) as one:
        await one.publish("hello", "visor1")
        assert not await one.items.get(_target("visor1"))
        store = one.store
    assert (await store.get([_target("visor1")]))[0]


async def test_c30_signed_once_for_all_mirrors(redis, service, reader):
    """A visor that mirrors into Redis besides its DHT: one signature, one item, two places."""
    async with (
        reader(redis.url) as full,
        service(redis.url) as one,
        service(redis.url, "peer", prefix="elsewhere:") as peer,
        open_publisher(
            PublisherSettings(),
            one.me,
            one.items,
            Live([one.mirror, PeersMirror("dht", [peer.items], one.me.public)]),
            Namespaces([one.note]),
            one.clock,
            MemoryFiles(),
        ) as publisher,
    ):
        done = await publisher.publish(Fact(b"note", one.note.encode("to both")))
        assert one.suite.signed == 1 and len(done.reports) == 2
        assert await full.note("service") == "to both"
        (there,) = await peer.items.get(_own(one))
        assert there.item == (await full.items.get(_own(one)))[0].item


async def test_the_mirror_is_one(redis, service):
    async with service(redis.url) as one:
        assert isinstance(one.mirror, RedisMirror) and one.mirror.name == "redis"


@pytest.mark.parametrize("versions", [0, 2])
async def test_how_much_history_is_kept_is_for_the_full_nodes_to_say(
    redis, service, reader, until, versions
):
    async with (
        reader(redis.url, history_versions_max=versions) as full,
        service(redis.url) as one,
        open_redis_source(
            one.link, one.items, Namespaces([]), one.me, one.clock, SeededEntropy(7)
        ) as source,
    ):
        await source.find(b"note", b"nobody")  # whoever only reads there has no word in it either
        await until(lambda: redis.send("HGET", "dht:meta", "past_versions_max") != b"$-1\r\n")
        for number in range(5):
            await one.publish(f"{number}", "visor1")
        await until(lambda: is_note(full, "visor1", "4"))
        target = mutable_item_target(identity("visor1").public, b"note")
        assert len(await full.items.history(target, 100)) == versions


async def is_note(full, subject: str, text: str) -> bool:
    return await full.note(subject) == text
