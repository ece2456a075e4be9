"""What a restart keeps, and what can happen to a file and to its disk."""

from __future__ import annotations

import random
import shutil
import sqlite3

import anyio
import pytest

from skycore.contracts.registry import Listing, RegistryWrite
from skycore.errors import (
    CursorInvalidError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreVersionError,
)
from skycore.testing.contracts.registry import entries
from skycore.testing.contracts.registry_model import TABLE, Follower
from skycore.testing.fakes import FakeClock
from skycore.testing.sqlite_disk import DiskUnavailableError, SqliteDisk


async def listed(registry):
    follower = Follower(registry)
    await follower.catch_up()
    return follower.held


async def test_a_restart_keeps_everything(tmp_path, opened):
    clock = FakeClock()
    async with opened(tmp_path, clock) as registry:
        nonce = await registry.next_nonce(TABLE, b"alice")
        write = RegistryWrite(b"alice", put=entries(916), nonce=nonce, beat=True, stamp=77)
        await registry.write(TABLE, [write, RegistryWrite(b"bob", put=entries(1))])
        await registry.write(TABLE, [RegistryWrite(b"bob", whole=True)])
        cursor = (await registry.changes(TABLE, None, 9)).cursor
    clock.advance(200)
    async with opened(tmp_path, clock) as registry:
        assert (await registry.changes(TABLE, cursor, 9)).listings == ()
        assert await listed(registry) == {b"alice": Listing(b"alice", entries(916))}
        assert await registry.next_nonce(TABLE, b"alice") == nonce + 1
        assert len(await registry.beats(TABLE, "2027-01-15")) == 1
        low = RegistryWrite(b"alice", put=entries(1, "x"), stamp=77, must_rise=True)
        assert (await registry.write(TABLE, [low]))[0].error == "stamp"
        clock.advance(100)
        assert await registry.sweep(TABLE, 1_000) == 916
        page = await registry.changes(TABLE, cursor, 9)
        assert page.listings == (Listing(b"alice", ()),)


async def test_after_a_kill_nonces_and_cursors_begin_anew(tmp_path, opened):
    clock = FakeClock()
    (tmp_path / "killed").mkdir()
    async with opened(tmp_path, clock) as registry:
        nonce = await registry.next_nonce(TABLE, b"alice")
        for n in range(5):
            write = RegistryWrite(b"alice", put=entries(n + 1), nonce=nonce + n)
            await registry.write(TABLE, [write])
        cursor = (await registry.changes(TABLE, None, 9)).cursor
        for path in tmp_path.glob("registry.db*"):
            shutil.copy(path, tmp_path / "killed")
    clock.advance(1)
    async with opened(tmp_path / "killed", clock) as registry:
        assert await listed(registry) == {b"alice": Listing(b"alice", entries(5))}
        assert await registry.next_nonce(TABLE, b"alice") > nonce + 5
        with pytest.raises(CursorInvalidError):
            await registry.changes(TABLE, cursor, 9)


async def test_a_damaged_file_is_kept_aside(tmp_path, opened):
    clock = FakeClock()
    async with opened(tmp_path, clock) as registry:
        await registry.write(TABLE, [RegistryWrite(b"alice", put=entries(50, "x" * 500))])
    path = tmp_path / "registry.db"
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 6] = bytes(4096 * 5)
    path.write_bytes(data)
    async with opened(tmp_path, clock) as registry:
        assert await listed(registry) == {}
        await registry.write(TABLE, [RegistryWrite(b"alice", put=entries(1))])
    assert (tmp_path / "registry.db.damaged-1").read_bytes() == bytes(data)


async def test_a_listing_that_cannot_be_read_is_an_error_once(tmp_path, opened):
    clock = FakeClock()
    async with opened(tmp_path, clock) as registry:
        await registry.write(TABLE, [RegistryWrite(b"alice", put=entries(2))])
    with sqlite3.connect(tmp_path / "registry.db") as file:
        file.execute("UPDATE listings SET bodies = x'93c0'")
    file.close()
    async with opened(tmp_path, clock) as registry, registry.watch(TABLE) as news:
        with pytest.raises(StoreCorruptError) as damage:
            await registry.changes(TABLE, None, 9)
        assert "kept aside" in damage.value.hint
        with anyio.fail_after(5):
            await anext(aiter(news))
        assert await listed(registry) == {}
        await registry.write(TABLE, [RegistryWrite(b"alice", put=entries(2))])
        assert len(await listed(registry)) == 1


async def test_anothers_file_is_left_alone(tmp_path, opened):
    path = tmp_path / "registry.db"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE theirs (a)")
    file.close()
    with pytest.raises(StoreError, match="another program"):
        async with opened(tmp_path):
            pass
    path.unlink()
    async with opened(tmp_path):
        pass
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 2")
    file.close()
    with pytest.raises(StoreVersionError, match="schema 2"):
        async with opened(tmp_path):
            pass
    assert not list(tmp_path.glob("*damaged*"))


async def test_a_second_node_is_refused(tmp_path, opened):
    async with opened(tmp_path):
        with pytest.raises(StoreBusyError):
            async with opened(tmp_path, lock_wait_s=0):
                pass


async def test_what_a_caller_gave_up_before_its_turn_is_not_done(tmp_path, opened):
    async with opened(tmp_path) as registry:
        async with registry._turn, anyio.create_task_group() as tasks:
            write = [RegistryWrite(b"alice", put=entries(1))]
            tasks.start_soon(registry.write, TABLE, write)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert await listed(registry) == {}


async def test_unchanged_registrations_write_no_body(tmp_path, opened):
    clock = FakeClock()
    async with opened(tmp_path, clock) as registry:
        put = entries(916, "x" * 300)
        await registry.write(TABLE, [RegistryWrite(b"alice", put=put, whole=True, beat=True)])
        wal = tmp_path / "registry.db-wal"
        before, statements = wal.stat().st_size, registry._db.statements
        clock.advance(90)
        await registry.write(TABLE, [RegistryWrite(b"alice", put=put, whole=True, beat=True)])
        assert wal.stat().st_size - before < 60_000, "lives alone: 16 bytes an entry"
        assert registry._db.statements - statements <= 8


async def test_a_start_that_fails_lets_go_of_the_file(tmp_path, opened, monkeypatch):
    def fails(*_):
        raise StoreError("not now")

    with monkeypatch.context() as broken:
        broken.setattr("registry_sqlite.tables.Tables.load", fails)
        with pytest.raises(StoreError, match="not now"):
            async with opened(tmp_path):
                pass
    async with opened(tmp_path, lock_wait_s=0):
        pass


# --- the disk ------------------------------------------------------------------------------------


@pytest.fixture
def disks_work():
    try:
        with SqliteDisk().mounted():
            pass
    except DiskUnavailableError as reason:
        pytest.skip(f"no disk in memory here: {reason}")


async def until_dark(registry, dice, clock, used):
    """Write until the power goes; note which nonces were accepted."""
    try:
        while True:
            clock.advance(1)
            subject = b"s%d" % dice.randrange(6)
            nonce = await registry.next_nonce(TABLE, subject)
            put = entries(dice.randrange(1, 30), "x" * dice.choice((3, 300)))
            write = RegistryWrite(subject, put=put, whole=True, nonce=nonce, beat=True)
            used[subject] = nonce
            [done] = await registry.write(TABLE, [write])
            assert not done.error
            if dice.random() < 0.1:
                await registry.sweep(TABLE, 10)
    except StoreError:
        pass


@pytest.mark.parametrize(
    "seeds", [range(25), pytest.param(range(1_000), marks=pytest.mark.soak)], ids=len
)
async def test_l21_after_a_power_failure_no_nonce_is_accepted_again(
    tmp_path, opened, disks_work, seeds
):
    """And the file is whole, whatever of the last seconds is gone."""
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        dice, disk, clock, used = random.Random(seed), SqliteDisk(seed), FakeClock(), {}
        with disk.mounted():
            if dice.random() < 0.5:
                async with opened(folder, clock) as registry:
                    for n in range(6):
                        subject, put = b"s%d" % n, entries(3, "xxx")
                        used[subject] = await registry.next_nonce(TABLE, subject)
                        write = RegistryWrite(subject, put=put, nonce=used[subject])
                        await registry.write(TABLE, [write])
            disk.power_lost_after = disk.operations + dice.randrange(1, dice.choice((150, 2_500)))
            try:
                async with opened(folder, clock) as registry:
                    await until_dark(registry, dice, clock, used)
            except StoreError:
                pass
            disk.lose_power()
            clock.advance(2)
            async with opened(folder, clock) as registry:
                for subject, nonce in used.items():
                    assert await registry.next_nonce(TABLE, subject) > nonce, f"seed {seed}"
                    replayed = RegistryWrite(subject, put=entries(1, "replayed"), nonce=nonce)
                    assert (await registry.write(TABLE, [replayed]))[0].error == "nonce"
                for listing in (await listed(registry)).values():
                    assert len({len(entry.body) for entry in listing.entries}) == 1
                assert (await registry.write(TABLE, [RegistryWrite(b"s1", put=entries(2))]))[
                    0
                ].listing
            assert not list(folder.glob("*damaged*"))


async def test_a_full_disk_is_said_and_goes_on_by_itself(tmp_path, opened, disks_work):
    disk, clock = SqliteDisk(1), FakeClock()
    with disk.mounted():
        async with opened(tmp_path, clock) as registry:
            await registry.write(TABLE, [RegistryWrite(b"alice", put=entries(9))])
            disk.room = 200_000
            nonce = await registry.next_nonce(TABLE, b"bob")
            large = [RegistryWrite(b"bob", put=entries(90, "x" * 9_000), nonce=nonce)]
            with pytest.raises(StoreFullError, match="full"):
                await registry.write(TABLE, large)
            assert len(await listed(registry)) == 1
            disk.room = None
            [done] = await registry.write(TABLE, large)
            assert done.next_nonce == nonce + 1
            assert len(await listed(registry)) == 2


class BusyWorkers:
    """Workers that are all busy until `free` is set; who waits for one may be cancelled."""

    def __init__(self):
        self.free = anyio.Event()
        self.free.set()

    async def run(self, function):
        await self.free.wait()
        return function()


async def test_a_caller_that_is_cancelled_takes_no_others_calls_with_it(tmp_path, opened):
    """Those that would have been done in its turn are done in the next one."""
    workers, results = BusyWorkers(), []
    async with opened(tmp_path, workers=workers) as registry, anyio.create_task_group() as tasks:

        async def write(name):
            write = RegistryWrite(name, put=entries(1))
            results.extend(await registry.write(TABLE, [write]))

        async def ask(scope):
            with scope:
                await registry.next_nonce(TABLE, b"alice")

        workers.free = first = anyio.Event()
        scope = anyio.CancelScope()
        for work, about in ((write, b"a"), (ask, scope), (write, b"b"), (write, b"c")):
            tasks.start_soon(work, about)
            await anyio.wait_all_tasks_blocked()
        workers.free = second = anyio.Event()
        first.set()  # the first turn is over; the second one's driver is the one that asks
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        second.set()
        await anyio.wait_all_tasks_blocked()
        assert [result.changed for result in results] == [True] * 3
        assert sorted(await listed(registry)) == [b"a", b"b", b"c"]
