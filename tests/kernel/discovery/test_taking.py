"""What subjects sign themselves is listed, and lives on while nobody can say whether it ended."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager

import anyio
import pytest

from skycore.contracts.discovery import Record
from skycore.contracts.registry import Listed, RegistryWrite
from skycore.discovery.directory import open_directory
from skycore.discovery.registries import RegistryBounds
from skycore.discovery.steps import MERCY_S
from skycore.discovery.taking import BROKEN_MAX_S, open_taking
from skycore.errors import NamespaceError
from skycore.testing import sim_backend
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import SeededEntropy
from skycore.testing.seams import SimClock
from skycore.testing.sources import DictSource
from skycore.wiring import Live

TABLE, SALT = "transport-discovery", b"tp"
LIFE_S = 300
NS = 10**9


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=12 * 3_600)


def key(name):
    return hashlib.sha256(name.encode()).digest()


def entries_of(record):
    if "bad" in record.body:
        raise NamespaceError("bad")
    return [Listed(name.encode(), b'"%s"' % name.encode()) for name in record.body]


class Side:
    def __init__(self):
        self.clock = SimClock()
        self.registry = DictRegistry(self.clock)
        self.source = DictSource("dht")
        self.sources = [self.source]

    def record(self, name, *entries, life_s=LIFE_S, signer=None, as_of_ns=None, salt=SALT):
        return Record(
            salt,
            key(name),
            entries or None,
            self.clock.wall_ns() if as_of_ns is None else as_of_ns,
            self.clock.wall_s() + life_s,
            "dht",
            key(name) if signer is None else signer,
        )

    def listed(self, name):
        return [entry.key.decode() for entry in self.directory.of(key(name)).entries]

    @asynccontextmanager
    async def taking(self):
        async with (
            open_directory(self.registry, TABLE, self.clock) as self.directory,
            open_taking(
                self.directory, SALT, Live(self.sources), entries_of, self.clock,
                SeededEntropy(), name="tp",
            ) as taking,
        ):  # fmt: skip
            yield taking


@pytest.fixture
async def side():
    return Side()


async def test_what_is_there_changes_and_is_deleted(side):
    side.source.tell(side.record("alice", "one", "two"))
    async with side.taking() as taking:
        await anyio.sleep(1)
        assert side.listed("alice") == ["one", "two"]
        side.source.tell(side.record("alice", "two", "zed"), side.record("bob", "three"))
        await anyio.sleep(1)
        assert side.listed("alice") == ["two", "zed"] and side.listed("bob") == ["three"]
        side.source.tell(side.record("alice"))
        await anyio.sleep(1)
        assert side.listed("alice") == [] and side.listed("bob") == ["three"]
        fields = taking.status_fields()
        assert fields["take_subjects"] == 1 and fields["take_taken"] == 3
        assert fields["take_from"]["dht"]["live"]


async def test_l15_what_another_signed_is_not_taken(side):
    async with side.taking() as taking:
        await anyio.sleep(1)
        forged = side.record("alice", "one", signer=key("server"))
        other = side.record("bob", "two", salt=b"svc")
        unsigned = Record(SALT, key("carol"), ("x",), 1, 2**40, "dht", None)
        side.source.tell(forged, other, unsigned)
        await anyio.sleep(1)
        assert len(side.directory) == 0
        assert taking.counters["ignored"] == 2


async def test_a_record_ends_with_its_lease_and_lives_while_it_is_prolonged(side):
    async with side.taking():
        first = side.record("alice", "one")
        side.source.tell(first, side.record("bob", "two"))
        for _ in range(8):
            await anyio.sleep(150)
            side.source.tell(side.record("alice", "one", as_of_ns=first.as_of_ns))
        assert side.listed("alice") == ["one"] and side.listed("bob") == []
        await anyio.sleep(LIFE_S + 6)
        assert len(side.directory) == 0


async def test_the_slower_channel_takes_nothing_from_the_faster_one(side):
    async with side.taking():
        old = side.record("alice", "one")
        await anyio.sleep(60)
        put = (Listed(b"new", b"1"), Listed(b"one", b"2"))
        await side.directory.write([RegistryWrite(key("alice"), put=put, lifetime_s=LIFE_S)])
        side.source.tell(old)
        await anyio.sleep(1)
        assert side.listed("alice") == ["new", "one"]
        assert side.directory.of(key("alice")).entries[1].body == b"2"
        side.source.tell(side.record("alice"))  # said later: counts
        await anyio.sleep(1)
        assert side.listed("alice") == []


async def test_while_a_source_is_broken_nothing_ends_that_it_could_have_prolonged(side):
    async with side.taking() as taking:
        side.source.tell(side.record("alice", "one"), side.record("bob", "two", life_s=20))
        await anyio.sleep(60)
        assert side.listed("bob") == []  # ended while the source could have told
        side.source.fail()
        await anyio.sleep(BROKEN_MAX_S - 5)
        assert side.listed("alice") == ["one"] and side.listed("bob") == []
        assert taking.status_fields()["take_broken"] == 1
        await anyio.sleep(300)
        assert side.listed("alice") == []


async def test_a_source_that_is_mended_decides_again(side):
    async with side.taking() as taking:
        alice = side.record("alice", "one")
        side.source.tell(alice, side.record("bob", "two"))
        await anyio.sleep(10)
        side.source.fail()
        await anyio.sleep(400)
        assert side.listed("alice") == ["one"]
        side.source.mend()
        side.source.tell(side.record("alice", "one", as_of_ns=alice.as_of_ns))
        await anyio.sleep(200)
        assert side.listed("alice") == ["one"] and side.listed("bob") == []
        assert taking.status_fields()["take_broken"] == 0


async def test_what_was_deregistered_meanwhile_is_not_brought_back(side):
    async with side.taking():
        side.source.tell(side.record("alice", "one", "two"))
        await anyio.sleep(10)
        side.source.fail()
        await side.directory.write([RegistryWrite(key("alice"), remove=(b"one",))])
        await anyio.sleep(400)
        assert side.listed("alice") == ["two"]


async def test_a_registry_that_is_away_is_waited_for(side):
    async with side.taking():
        await anyio.sleep(1)
        side.registry.is_down = True
        for turn in range(50):
            side.source.tell(side.record("alice", f"entry{turn}"))
            await anyio.sleep(1)
        side.registry.is_down = False
        await anyio.sleep(40)
        assert side.listed("alice") == ["entry49"]


async def test_one_that_cannot_be_listed_holds_up_no_other(side):
    async with side.taking() as taking:
        huge = [f"{n:05}" for n in range(16_385)]
        side.source.tell(
            side.record("mallory", "bad"), side.record("eve", *huge), side.record("alice", "one"),
            side.record("trudy", "x" * 600),
        )  # fmt: skip
        await anyio.sleep(1)
        assert side.listed("alice") == ["one"] and len(side.directory) == 1
        assert taking.counters["refused"] == 3


async def test_sources_that_come_up_later_are_followed_and_remote_ones_never(side):
    async with side.taking():
        redis, http = DictSource("redis"), DictSource("http", is_local=False)
        other = DictSource("other", salts=frozenset({b"svc"}))
        side.sources += [redis, http, other]
        redis.tell(side.record("alice", "one"))
        http.tell(side.record("bob", "two"))
        other.tell(side.record("carol", "three"))
        await anyio.sleep(6)
        assert side.listed("alice") == ["one"] and len(side.directory) == 1


async def test_whoever_floods_the_dht_with_keys_leaves_room_for_others(side):
    side.registry = DictRegistry(side.clock, bounds=RegistryBounds(subjects_max=100))
    async with side.taking() as taking:
        side.source.tell(*(side.record(f"key{n}", "one") for n in range(40)))
        await anyio.sleep(1)
        side.source.tell(*(side.record(f"key{n}", "two") for n in range(80)))
        await anyio.sleep(1)
        assert len(side.directory) == len(taking._followed["dht"].held)
        assert len(side.directory) == 50 and side.listed("key3") == ["two"]
        assert taking.counters["crowded"] == 30
        await anyio.sleep(LIFE_S + 40)  # theirs end; then others are taken
        side.source.tell(side.record("later", "three"))
        await anyio.sleep(1)
        assert side.listed("later") == ["three"]


async def flood(side, keys, rounds=1):
    """Have `keys` sign records, with those registered here in the same table; return the taking."""
    at_home = [RegistryWrite(key(f"home{n}"), put=(Listed(b"home", b"1"),)) for n in range(50)]
    async with side.taking() as taking:
        await side.directory.write(at_home)
        for turn in range(rounds):
            for start in range(0, keys, 1_000):
                some = range(start, min(keys, start + 1_000))
                side.source.tell(*(side.record(f"{turn} {n}", "one", "two") for n in some))
                await anyio.sleep(0.1)
        await anyio.sleep(1)
        side.crowd = len(side.directory) - 50
        more = [RegistryWrite(key(f"more{n}"), put=(Listed(b"home", b"1"),)) for n in range(50)]
        await side.directory.write(more)
        for n in range(50):
            assert side.listed(f"home{n}") == side.listed(f"more{n}") == ["home"]
        fields = taking.status_fields()
        assert side.crowd == fields["take_subjects"] and fields["take_full"] == 1
        assert fields["take_taken"] == keys * rounds == side.crowd + fields["take_crowded"]
        return taking


async def test_a_flood_of_signed_records_leaves_half_of_the_table(side):
    side.registry = DictRegistry(side.clock, bounds=RegistryBounds(subjects_max=1_000))
    await flood(side, 1_500, rounds=2)
    assert side.crowd == 500


@pytest.mark.soak
async def test_a_flood_of_a_hundred_thousand_keys_leaves_half_of_the_table(side):
    side.registry = DictRegistry(side.clock, bounds=RegistryBounds(subjects_max=50_000))
    await flood(side, 100_000)
    assert side.crowd == 25_000


async def test_a_flood_of_bytes_leaves_half_of_the_table(side):
    side.registry = DictRegistry(side.clock, bounds=RegistryBounds(table_mib_max=1))
    async with side.taking() as taking:
        long = ["x" * 490 + str(n) for n in range(100)]  # a body repeats its key: 100 kB a record
        side.source.tell(*(side.record(f"key{n}", *long) for n in range(20)))
        await anyio.sleep(1)
        assert len(side.directory) == 5 == 20 - taking.counters["crowded"]
        side.source.tell(side.record("key0", "small"))  # what is there may change, and make room
        await anyio.sleep(1)
        side.source.tell(side.record("late", *long))
        await anyio.sleep(1)
        assert side.listed("key0") == ["small"] and len(side.listed("late")) == 100
        held = taking._followed["dht"].held
        for name in [*(f"key{n}" for n in range(20)), "late"]:
            side.source.tell(side.record(name))
        await anyio.sleep(1)
        assert len(held) == 0 == len(side.directory)
        share = (taking._share.subjects_left, taking._share.size_left)
        assert share == (100_000, 1 << 19), "all room is given back"


async def test_two_sources_have_the_same_half(side):
    side.registry = DictRegistry(side.clock, bounds=RegistryBounds(subjects_max=40))
    redis = DictSource("redis")
    side.sources.append(redis)
    async with side.taking():
        side.source.tell(*(side.record(f"dht{n}", "one") for n in range(30)))
        redis.tell(*(side.record(f"redis{n}", "one") for n in range(30)))
        await anyio.sleep(6)
        assert len(side.directory) == 20


async def test_one_that_does_not_fit_costs_some_writes_and_few_words(side, caplog):
    async with side.taking() as taking:
        await anyio.sleep(1)
        asked = side.registry.round_trips
        with caplog.at_level("INFO", "skycore.discovery.taking"):
            crowd = [side.record(f"key{n}", "one") for n in range(255)]
            side.source.tell(*crowd, side.record("mallory", "x" * 600))
            await anyio.sleep(1)
            assert len(side.directory) == 255
            assert side.registry.round_trips - asked < 30
            side.source.tell(*(side.record(f"bad{n}", "bad") for n in range(500)))
            await anyio.sleep(1)
        assert taking.counters["refused"] == 501
        assert len([r for r in caplog.records if "is not listed" in r.message]) == 1


async def test_a_lease_goes_on_while_a_registry_is_away(side):
    async with side.taking() as taking:
        await anyio.sleep(1)
        side.registry.is_down = True
        side.source.tell(side.record("alice", "one"), side.record("bob", "two", life_s=3_600))
        await anyio.sleep(LIFE_S + 60)
        side.registry.is_down = False
        await anyio.sleep(40)
        assert side.listed("alice") == [] and side.listed("bob") == ["two"]
        assert taking.seq_of(key("bob")) and not taking.seq_of(key("alice"))


async def test_a_clock_that_is_put_forward_and_back_loses_nothing(side):
    """By an hour, while records are taken: what is over by it is told once more."""
    async with side.taking() as taking:
        side.source.tell(*(side.record(f"key{n}", "one", life_s=1_800) for n in range(9)))
        await anyio.sleep(30)
        side.clock.offset_s += 3_600
        await anyio.sleep(MERCY_S - 20)
        assert len(side.directory) == 9, "nobody is gone because a clock says so"
        await anyio.sleep(60)
        assert len(side.directory) == 0 == taking.seq_of(key("key1"))  # it still says so
        side.clock.offset_s -= 3_600
        await anyio.sleep(20)
        assert len(side.directory) == 9 and taking.seq_of(key("key1"))
        side.source.tell(side.record("key1"), side.record("key2", "two"))
        await anyio.sleep(1)
        assert side.listed("key1") == [] and side.listed("key2") == ["two"]
        await anyio.sleep(1_800)
        assert len(side.directory) == 0


@pytest.mark.parametrize("step_s", [3_600, -3_600])
async def test_a_clock_that_is_put_right_while_lives_are_prolonged(side, step_s):
    async with side.taking() as taking:
        side.source.tell(*(side.record(f"key{n}", "one") for n in range(9)))
        await anyio.sleep(100)
        side.source.fail()
        await anyio.sleep(100)
        side.clock.offset_s += step_s
        for _ in range(12):
            await anyio.sleep(30)
            assert len(side.directory) == 9, "not knowing is not the same as gone"
        side.source.mend()
        side.source.tell(*(side.record(f"key{n}", "one") for n in range(5)))
        await anyio.sleep(60)
        assert taking.status_fields()["take_broken"] == 0
        if step_s < 0:
            side.clock.offset_s -= step_s
        await anyio.sleep(MERCY_S + 10)
        assert side.listed("key0") == [] == side.listed("key8")
        assert len(side.directory) == 0


async def test_what_the_registry_does_not_take_does_not_count_as_taken(side):
    """Else a visor believed that its record keeps its listing alive, and told nobody any more."""
    side.registry = DictRegistry(side.clock, bounds=RegistryBounds(entries_max=2))
    async with side.taking() as taking:
        await anyio.sleep(1)
        side.source.tell(side.record("alice", "one", "two"), side.record("bob", "b"))
        await anyio.sleep(1)
        assert taking.seq_of(key("alice")) and taking.seq_of(key("bob"))
        side.source.tell(side.record("alice", "one", "two", "three"), side.record("bob", "b", "c"))
        await anyio.sleep(1)
        assert taking.seq_of(key("alice")) == 0
        assert taking.seq_of(key("bob")) and side.listed("bob") == ["b", "c"]


async def test_a_table_that_is_lost_is_filled_again_with_what_sources_hold(side):
    """They tell what changes: who has not changed would be missing until the next lease."""
    async with side.taking() as taking:
        await anyio.sleep(1)
        side.source.tell(*(side.record(name, "one") for name in ("alice", "bob")))
        await anyio.sleep(1)
        side.registry.flush()
        await anyio.sleep(15)
        assert side.listed("alice") == side.listed("bob") == ["one"]
        assert taking.status_fields()["take_broken"] == 0
        side.source.tell(side.record("carol", "two"))
        await anyio.sleep(1)
        assert side.listed("carol") == ["two"]


async def test_a_source_may_come_up_while_what_a_broken_one_told_is_prolonged(side, monkeypatch):
    monkeypatch.setattr("skycore.discovery.taking.WRITES_AT_ONCE", 1)
    async with side.taking():
        side.source.tell(*(side.record(f"key{n}", "one") for n in range(20)))
        await anyio.sleep(1)
        write = side.registry.write

        async def slow(table, writes):
            await anyio.sleep(1)
            return await write(table, writes)

        side.registry.write = slow
        side.source.fail()
        await anyio.sleep(240)  # it is being prolonged
        side.sources.append(DictSource("redis"))
        await anyio.sleep(200)
        assert len(side.directory) == 20
