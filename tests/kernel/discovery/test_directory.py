"""The directory: a table in memory, in step with its registry, on virtual time."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import anyio
import pytest

from registry_sqlite.service import open_sqlite_registry
from registry_sqlite.settings import SqliteRegistrySettings
from skycore.contracts.registry import Listing, RegistryWrite
from skycore.discovery.directory import open_directory
from skycore.errors import CursorInvalidError, StoreError, StoreFullError, StoreUnreachableError
from skycore.testing.contracts.registry import entries
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import InlineWorkers, MemoryFiles, SeededEntropy
from skycore.testing.loop import sim_backend
from skycore.testing.seams import SimClock

TABLE = "transport-discovery"


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=100_000)


@asynccontextmanager
async def registries(seed=0, **bounds):
    settings = SqliteRegistrySettings(**bounds)
    clock = SimClock()
    async with open_sqlite_registry(
        settings, MemoryFiles(), clock, SeededEntropy(seed), InlineWorkers()
    ) as registry:
        yield Wrapped(registry), clock


class Wrapped:
    """A registry that counts, is slow (a round trip of 2 ms), and fails when it is told to."""

    def __init__(self, registry) -> None:
        self.real = registry
        self.trouble: Exception | None = None
        self.batches: list[int] = []
        self.is_foreign = False
        self.calls = 0

    async def _ask(self, work):
        self.calls += 1
        await anyio.sleep(0.001)
        if self.trouble is not None:
            raise self.trouble
        result = await work
        await anyio.sleep(0.001)
        return result

    async def write(self, table, writes):
        self.batches.append(len(writes))
        return await self._ask(_later(self.real.write, table, writes))

    async def next_nonce(self, table, subject):
        return await self._ask(_later(self.real.next_nonce, table, subject))

    async def changes(self, table, after, limit):
        if after is not None and self.is_foreign:
            self.is_foreign = False
            raise CursorInvalidError
        return await self._ask(_later(self.real.changes, table, after, limit))

    async def sweep(self, table, limit):
        return await self._ask(_later(self.real.sweep, table, limit))

    async def beats(self, table, day):
        return await self._ask(_later(self.real.beats, table, day))

    def watch(self, table):
        return self.real.watch(table)


class _later:
    """A call that is made when it is awaited; one that is not leaves no coroutine behind."""

    def __init__(self, work, *arguments) -> None:
        self._work = lambda: work(*arguments)

    def __await__(self):
        return self._work().__await__()


async def test_own_writes_are_visible_before_write_returns():
    async with registries() as (registry, clock), open_directory(registry, TABLE, clock) as one:
        nonce = await one.next_nonce(b"alice")
        [done] = await one.write([RegistryWrite(b"alice", put=entries(3), nonce=nonce, beat=True)])
        assert one.of(b"alice") == done.listing == Listing(b"alice", entries(3))
        assert (len(one), one.entry_count, one.version, b"alice" in one) == (1, 3, 1, True)
        key = entries(1)[0].key
        await one.write([RegistryWrite(b"bob", put=entries(1))])
        assert one.having(key) == (b"alice", b"bob")
        assert [listing.subject for listing in one] == [b"alice", b"bob"]
        await one.write([RegistryWrite(b"alice", whole=True)])
        assert (one.of(b"alice").entries, one.having(key), one.entry_count) == ((), (b"bob",), 1)
        assert one.having(b"nothing") == ()
        version = one.version
        await one.write([RegistryWrite(b"bob", put=entries(1))])
        assert one.version == version, "prolonging is no change"
        assert len(await one.beats("2027-01-15")) == 1


async def test_what_others_write_is_visible_within_two_seconds():
    async with registries() as (registry, clock), open_directory(registry, TABLE, clock) as one:
        for count in (3, 1, 0, 5):
            await registry.write(TABLE, [RegistryWrite(b"x", put=entries(count), whole=True)])
            await anyio.sleep(2)
            assert len(one.of(b"x").entries) == count == one.entry_count
        async with open_directory(registry, TABLE, clock) as other:
            assert other.is_loaded
            assert list(other) == list(one)
            await one.write([RegistryWrite(b"y", put=entries(2))])
            await anyio.sleep(2)
            assert other.of(b"y") == one.of(b"y")


async def test_l19_what_is_not_repeated_is_gone_at_the_end_of_its_life_and_one_sweep():
    async with registries() as (registry, clock), open_directory(registry, TABLE, clock) as one:
        await one.write([RegistryWrite(b"alice", put=entries(3), lifetime_s=300)])
        await anyio.sleep(299)
        assert len(one.of(b"alice").entries) == 3
        await anyio.sleep(300 + 5 + 1 - 299)
        assert len(one) == one.entry_count == 0


async def test_l7_writes_that_wait_go_in_one_round_trip():
    async with registries() as (registry, clock), open_directory(registry, TABLE, clock) as one:
        await anyio.sleep(1)
        before = registry.calls

        async def register(number: int) -> None:
            [done] = await one.write([RegistryWrite(b"s%d" % number, put=entries(4))])
            assert done.changed
            assert done.listing == one.of(b"s%d" % number)

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(register, number)
        assert registry.calls - before == len(registry.batches) <= 2
        assert (sum(registry.batches), one.entry_count) == (200, 800)


async def test_a_batch_is_bounded():
    async with registries() as (registry, clock), open_directory(registry, TABLE, clock) as one:
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                write = RegistryWrite(b"s%d" % number, put=entries(916))
                tasks.start_soon(one.write, [write])
        assert max(registry.batches) == 2
        await one.write([RegistryWrite(b"hub", put=entries(5_000))])
        assert len(one.of(b"hub").entries) == 5_000


async def test_one_that_does_not_fit_is_not_the_others():
    async with (
        registries(entries_max=10) as (registry, clock),
        open_directory(registry, TABLE, clock) as one,
    ):
        results = {}

        async def register(number: int) -> None:
            put = entries(11 if number == 5 else 2)
            try:
                results[number] = await one.write([RegistryWrite(b"s%d" % number, put=put)])
            except StoreFullError as full:
                results[number] = str(full)

        async with anyio.create_task_group() as tasks:
            for number in range(9):
                tasks.start_soon(register, number)
        assert "entries_max" in results.pop(5)
        assert all(done.changed for [done] in results.values())
        assert len(one) == 8


async def test_a_registry_that_fails_is_told_and_what_is_here_is_served():
    async with registries() as (registry, clock), open_directory(registry, TABLE, clock) as one:
        await one.write([RegistryWrite(b"alice", put=entries(2), lifetime_s=3_000)])
        await anyio.sleep(10)
        assert one.age_s <= 5.1
        assert one.trouble == ""
        registry.trouble = StoreUnreachableError("it cannot be reached")
        await anyio.sleep(60)
        assert "cannot be reached" in one.trouble
        assert 55 <= one.age_s <= 66
        with pytest.raises(StoreUnreachableError):
            await one.write([RegistryWrite(b"bob", put=entries(2))])
        assert len(one.of(b"alice").entries) == 2
        registry.trouble = None
        await registry.write(TABLE, [RegistryWrite(b"carol", put=entries(1))])
        await anyio.sleep(6)
        assert (one.trouble, len(one)) == ("", 2)
        assert one.age_s <= 5.1


async def test_a_registry_that_is_down_at_start_is_waited_for():
    async with registries() as (registry, clock):
        await registry.write(TABLE, [RegistryWrite(b"alice", put=entries(2))])
        registry.trouble = StoreUnreachableError("it cannot be reached")
        async with open_directory(registry, TABLE, clock) as one:
            assert (len(one), one.is_loaded) == (0, False)
            assert one.age_s == float("inf")
            registry.trouble = None
            await anyio.sleep(6)
            assert (len(one), one.is_loaded) == (1, True)


async def test_another_log_is_read_from_its_start_and_what_is_not_there_is_gone():
    async with registries() as (registry, clock), open_directory(registry, TABLE, clock) as one:
        writes = [RegistryWrite(b"s%d" % n, put=entries(2)) for n in range(600)]
        await one.write(writes)
        async with registries(seed=1) as (emptied, _):
            await emptied.write(TABLE, [RegistryWrite(b"s1", put=entries(1)),
                                        RegistryWrite(b"new", put=entries(1))])  # fmt: skip
            old, registry.real = registry.real, emptied.real
            await anyio.sleep(6)
            assert {listing.subject for listing in one} == {b"s1", b"new"}
            assert one.entry_count == 2
            registry.real = old
            await anyio.sleep(6)
            assert len(one) == 600
            assert b"new" not in one


async def test_what_is_written_while_all_is_read_again_stays():
    async with registries() as (registry, clock), open_directory(registry, TABLE, clock) as one:
        await one.write([RegistryWrite(b"s%d" % n, put=entries(1)) for n in range(2_000)])
        await anyio.sleep(1)
        registry.is_foreign = True

        async def write_on() -> None:
            for number in range(40):
                await one.write([RegistryWrite(b"n%d" % number, put=entries(1))])
                await one.write([RegistryWrite(b"s%d" % (number * 7), whole=True)])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_on)
            await anyio.sleep(6)
        await anyio.sleep(3)
        async with open_directory(registry, TABLE, clock) as fresh:
            assert {e.subject: e for e in one} == {e.subject: e for e in fresh}
            assert one.entry_count == fresh.entry_count == 2_000


async def test_changes_are_told_each_subject_once():
    async with registries() as (registry, clock), open_directory(registry, TABLE, clock) as one:
        await one.write([RegistryWrite(b"alice", put=entries(1))])
        with one.subscribe() as changes, one.subscribe() as others:
            assert await changes.take() == {b"alice"}
            waited = one.changed()
            for number in range(5):
                await one.write([RegistryWrite(b"bob", put=entries(1, str(number)))])
            await one.write([RegistryWrite(b"alice", whole=True)])
            assert waited.is_set()
            assert not one.changed().is_set()
            assert await changes.take() == {b"alice", b"bob"}
            assert await others.take() == {b"alice", b"bob"}
            with anyio.move_on_after(100) as waiting:
                await changes.take()
            assert waiting.cancelled_caught, "sweeps and looks are no changes"
        async with open_directory(registry, "dmsg-discovery", clock) as empty:
            with empty.subscribe() as changes:
                assert await changes.take() == set()


async def test_whoever_waits_when_it_closes_is_told():
    async with registries() as (registry, clock):
        async with (
            open_directory(registry, TABLE, clock) as one,
            anyio.create_task_group() as tasks,
        ):
            outcomes = []

            async def write() -> None:
                try:
                    await one.write([RegistryWrite(b"alice", put=entries(1))])
                except StoreError as closed:
                    outcomes.append(str(closed))

            async with anyio.create_task_group() as inner:
                inner.start_soon(write)
                await anyio.sleep(0)
            registry.trouble = StoreError("slow")
            tasks.cancel_scope.cancel()
        with pytest.raises(StoreError, match="closed"):
            await one.write([RegistryWrite(b"alice", put=entries(1))])


@pytest.mark.parametrize("seed", range(5))
async def test_two_directories_and_random_work_end_alike(seed):
    dice = random.Random(seed)
    async with (
        registries() as (registry, clock),
        open_directory(registry, TABLE, clock) as one,
        open_directory(registry, TABLE, clock) as other,
    ):

        async def work(directory) -> None:
            for _ in range(60):
                write = RegistryWrite(
                    b"s%d" % dice.randrange(12),
                    put=entries(dice.randrange(4), dice.choice("ab"), dice.randrange(3)),
                    whole=dice.random() < 0.5,
                    lifetime_s=dice.choice((3, 20, 100)),
                )
                [done] = await directory.write([write])
                if done.listing is not None:
                    assert directory.of(write.subject) == done.listing
                await anyio.sleep(dice.choice((0, 0.003, 0.5)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, one)
            tasks.start_soon(work, other)
        await anyio.sleep(2)
        held = {listing.subject: listing for listing in one}
        assert held == {listing.subject: listing for listing in other}
        for directory in (one, other):
            keys = [entry.key for listing in directory for entry in listing.entries]
            assert directory.entry_count == len(keys)
            for key in set(keys):
                assert list(directory.having(key)) == sorted(
                    listing.subject
                    for listing in directory
                    if any(entry.key == key for entry in listing.entries)
                )
        await anyio.sleep(110)
        assert len(one) == len(other) == 0
        assert one.having(entries(1)[0].key) == ()


async def test_a_clock_that_is_put_forward_ends_nobody_who_is_still_there():
    """By an hour: everybody repeats what it lists within minutes; who does not is gone then."""
    clock = SimClock()
    registry = DictRegistry(clock)
    async with open_directory(registry, TABLE, clock) as directory:
        writes = [RegistryWrite(b"s%d" % n, put=entries(1)) for n in range(9)]
        await directory.write(writes)
        await anyio.sleep(100)
        clock.offset_s += 3_600
        for _ in range(3):
            await anyio.sleep(90)
            assert len(directory) == 9
            await directory.write(writes[:5])
        await anyio.sleep(90)
        assert len(directory) == 5 and directory.steps.count == 1
        clock.offset_s -= 3_600
        await anyio.sleep(300)
        assert len(directory) == 5, "put back, it lets them live longer"
        await anyio.sleep(3_600)
        assert len(directory) == 0


class Stalled(DictRegistry):
    """Answers no write until it is told to."""

    def __init__(self, clock):
        super().__init__(clock)
        self.answers = anyio.Event()
        self.written = 0

    async def write(self, table, writes):
        await self.answers.wait()
        self.written += len(writes)
        return await super().write(table, writes)


async def test_writes_that_nobody_waits_for_any_more_are_not_done():
    """Callers give up after 30 s and ask again: while a registry stalls, nothing piles up."""
    registry = Stalled(SimClock())
    async with open_directory(registry, TABLE, SimClock()) as directory:

        async def impatient(n):
            with anyio.move_on_after(30):
                await directory.write([RegistryWrite(b"s%d" % n, put=entries(1))])

        async with anyio.create_task_group() as tasks:
            for n in range(500):
                tasks.start_soon(impatient, n)
                await anyio.sleep(1)
            assert len(directory._jobs) <= 31
            registry.answers.set()
        assert registry.written <= 32 + 1 and not directory._jobs
        assert directory._jobs._bytes == directory._jobs.writes == 0
        await directory.write([RegistryWrite(b"alice", put=entries(1))])
        assert b"alice" in directory


async def test_what_waits_for_a_registry_is_bounded(monkeypatch):
    monkeypatch.setattr("skycore.discovery.jobs.WAITING_BYTES_MAX", 10_000)
    registry = Stalled(SimClock())
    ends = []
    async with open_directory(registry, TABLE, SimClock()) as directory:

        async def one(n):
            try:
                await directory.write([RegistryWrite(b"s%d" % n, put=entries(1, "x" * 900))])
                ends.append("")
            except StoreError as busy:
                ends.append(str(busy))

        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(one, n)
            await anyio.sleep(1)
            assert len(ends) > 35 and all("too much waits" in end for end in ends)
            registry.answers.set()
        assert len(directory) == ends.count("") > 9
        await directory.write([RegistryWrite(b"large", put=entries(20, "x" * 900))])
        assert b"large" in directory
