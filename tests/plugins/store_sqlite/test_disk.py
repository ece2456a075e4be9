"""What a disk can do to the store: lose power, fill up, fail, be read-only (Q2, Q3, Q6, Q7)."""

from __future__ import annotations

import hashlib
import random
from contextlib import asynccontextmanager

import anyio
import pytest

from skycore.contracts.store import ChangeFilter, ItemKey
from skycore.errors import (
    CursorInvalidError,
    SeqTooLowError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
)
from skycore.model.items import Kind
from skycore.sqlite import marks
from skycore.testing.contracts.store_model import START_S, lease_for, ranked, read_all
from skycore.testing.fakes import InlineWorkers, SeededEntropy
from skycore.testing.sqlite_disk import DiskUnavailableError, SqliteDisk
from store_sqlite.service import open_sqlite_store
from store_sqlite.settings import SqliteStoreSettings


class OneFolder:
    def __init__(self, folder):
        self._folder = folder

    def path(self, name):
        return self._folder / name


@pytest.fixture(scope="module", autouse=True)
def disks_work():
    try:
        with SqliteDisk().mounted():
            pass
    except DiskUnavailableError as reason:
        pytest.skip(f"no disk in memory here: {reason}")


def opened(folder, seed=0):
    files = OneFolder(folder)
    return open_sqlite_store(SqliteStoreSettings(), files, SeededEntropy(seed), InlineWorkers())


BLOCKS = {hashlib.sha256(b"block %d" % n * 300).digest(): b"block %d" % n * 300 for n in range(30)}


def head_at_random(dice, name, seq):
    """Return a head on some of the blocks, and what must come with it: all of them."""
    refs = dice.sample(list(BLOCKS), 4)
    return ranked(name, kind=Kind.MANIFEST, seq=seq, refs=refs, v=name, until=START_S + 10**6)


async def heads_are_whole(store, heads):
    """Check that every head that is here has its blocks, and is counted with them."""
    size = 0
    for s in await read_all(store):
        if s.item.kind == Kind.MANIFEST:
            refs = heads[s.rank].refs
            kept = store._reader._db.rows(
                f"SELECT hash, data FROM blocks WHERE heads > 0 AND hash IN ({marks(4)})", refs
            )
            assert dict(kept) == {name: BLOCKS[name] for name in refs}, "a head without its blocks"
            size += sum(len(BLOCKS[name]) for name in refs)
        size += len(s.item.v)
    assert sum(u.bytes for u in (await store.usage()).values()) == size
    [(history,)] = store._reader._db.rows("SELECT coalesce(sum(bytes), 0) FROM history")
    assert store._writer.mark()[1] == history


async def work_with_heads_until_dark(folder, dice, heads, acknowledged):
    """Replace heads at random, with history and drops, until the power goes."""
    try:
        async with opened(folder) as store:
            for seq in range(1, 150):
                batch = [head_at_random(dice, b"h%d" % n, seq) for n in dice.sample(range(6), 3)]
                heads.update((head.rank, head) for head in batch)
                for new, outcome in zip(batch, await store.put_many(batch, BLOCKS), strict=True):
                    assert outcome.code == 0
                    acknowledged[new.target] = new.rank
                if seq % 7 == 0:
                    acknowledged.pop(batch[0].target, None)
                    await store.drop([ItemKey(batch[0].target, 3)])
                if seq % 5 == 0:
                    await store.sweep(START_S + seq * 60)
    except StoreError:
        pass


@pytest.mark.parametrize(
    "seeds", [range(25), pytest.param(range(1_000), marks=pytest.mark.soak)], ids=len
)
async def test_c16_a_crash_between_blocks_and_head_leaves_the_old_one_or_the_new(tmp_path, seeds):
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        dice, disk, heads, acknowledged = random.Random(seed), SqliteDisk(seed), {}, {}
        with disk.mounted():
            async with opened(folder):
                pass
            disk.power_lost_after = disk.operations + dice.randrange(1, dice.choice((250, 2_500)))
            await work_with_heads_until_dark(folder, dice, heads, acknowledged)
            disk.lose_power()
            async with opened(folder) as store:
                await heads_are_whole(store, heads)
                held = {s.target: s.rank for s in await read_all(store)}
                lost = [t for t, rank in acknowledged.items() if held.get(t, b"") < rank]
                assert not lost, f"seed {seed}"
                again = head_at_random(dice, b"h0", 999)
                heads[again.rank] = again
                assert (await store.put_many([again], BLOCKS))[0].code == 0
                await heads_are_whole(store, heads)


async def work_until_dark(folder, dice, acknowledged):
    """Write at random until the power goes; return the last cursor. Notes what is acknowledged."""
    cursor = None
    try:
        async with opened(folder) as store:
            for seq in range(1, 200):
                batch = [
                    ranked(
                        b"s%d" % dice.randrange(40), seq=seq, v=b"x" * dice.choice((9, 900, 9_000))
                    )
                    for _ in range(dice.randrange(1, 30))
                ]
                for new, outcome in zip(batch, await store.put_many(batch), strict=True):
                    assert outcome.accepted or outcome.code == SeqTooLowError.code
                    if outcome.accepted:
                        acknowledged[new.target] = new.rank
                await store.renew([lease_for(new, START_S + 300 + seq) for new in batch[:3]], 0)
                if seq % 5 == 0:
                    acknowledged.pop(batch[0].target, None)  # from here on it may be either
                    await store.drop([ItemKey(batch[0].target, 3)])
                cursor = (await store.changes(cursor, ChangeFilter(), 9, 1 << 20)).cursor
    except StoreError:
        pass
    return cursor


async def lost_in_one_run(tmp_path, seed):
    """Cut the power once; return how many acknowledged items are gone."""
    dice = random.Random(seed)
    disk = SqliteDisk(seed)
    acknowledged = {}
    with disk.mounted():
        async with opened(tmp_path):
            pass
        disk.power_lost_after = disk.operations + dice.randrange(
            1, dice.choice((250, 2_500, 10_000))
        )
        cursor = await work_until_dark(tmp_path, dice, acknowledged)
        disk.lose_power()
        async with opened(tmp_path) as store:  # quick_check runs here: damage would raise
            held = {s.target: s.rank for s in await read_all(store)}
            assert sum(u.items for u in (await store.usage()).values()) == len(held)
            await store.changes(cursor, ChangeFilter(), 9, 1 << 20)  # no cursor is from the future
            return sum(held.get(target, b"") < rank for target, rank in acknowledged.items())


@pytest.mark.parametrize(
    "seeds", [range(40), pytest.param(range(2_000), marks=pytest.mark.soak)], ids=len
)
async def test_q02_power_loss_takes_nothing_that_was_acknowledged(tmp_path, seeds):
    for seed in seeds:
        assert await lost_in_one_run(tmp_path, seed) == 0, f"seed {seed}"


async def test_q02_the_disk_tells_a_careless_store_from_ours(tmp_path, monkeypatch):
    from skycore.sqlite import SqliteFile

    careful = SqliteFile.execute

    def careless(self, statement, parameters=None):
        return careful(
            self, statement.replace("synchronous = FULL", "synchronous = OFF"), parameters
        )

    monkeypatch.setattr(SqliteFile, "execute", careless)
    lost = 0
    for seed in range(10):
        try:
            lost += await lost_in_one_run(tmp_path, seed) > 0
        except (StoreError, CursorInvalidError, AssertionError):
            lost += 1
    assert lost >= 5


@asynccontextmanager
async def store_on(disk, tmp_path):
    with disk.mounted():
        async with opened(tmp_path) as store:
            yield store


async def test_q03_a_full_disk_refuses_by_name_and_recovers(tmp_path):
    disk = SqliteDisk()
    async with store_on(disk, tmp_path) as store:
        await store.put_many([ranked(b"first")])
        disk.room = 2_000_000
        acknowledged = []
        with pytest.raises(StoreFullError) as refused:
            for i in range(1_000):
                new = ranked(b"s%d" % i, v=b"x" * 9_000)
                await store.put_many([new])
                acknowledged.append(new.target)
        assert "space" in refused.value.hint
        assert 5 < len(acknowledged) < 100
        assert len(await read_all(store)) == len(acknowledged) + 1, "reads go on"
        assert (await store.usage())[b"tp"].items == len(acknowledged) + 1
        disk.room = None
        [outcome] = await store.put_many([ranked(b"again")])
        assert outcome.accepted
    with disk.mounted():
        async with opened(tmp_path) as store:
            assert len(await read_all(store)) == len(acknowledged) + 2


async def test_q07_after_a_failed_write_nothing_is_acknowledged_until_reopened(tmp_path):
    disk = SqliteDisk()
    async with store_on(disk, tmp_path) as store:
        await store.put_many([ranked(b"safe")])
        await store.fingerprints(None, [(bytes(32), b"\xff" * 32)])
        disk.failing = True
        with pytest.raises(StoreError, match="IOERR"):
            await store.put_many([ranked(b"lost")])
        disk.failing = False
        for attempt in (
            lambda: store.put_many([ranked(b"later")]),
            lambda: store.renew([lease_for(ranked(b"safe"), START_S + 999)], 0),
            lambda: store.drop([ItemKey(ranked(b"safe").target, 3)]),
            lambda: store.sweep(0),
        ):
            with pytest.raises(StoreError, match="stopped") as refused:
                await attempt()
            assert "restart" in refused.value.hint
        held = await read_all(store)
        assert [s.item.subject for s in held] == [b"safe"], "reads go on"
        [found] = await store.fingerprints(None, [(bytes(32), b"\xff" * 32)])
        assert found.items == 1
    with disk.mounted():
        async with opened(tmp_path) as store:
            [outcome] = await store.put_many([ranked(b"later")])
            assert outcome.accepted


async def test_q06_a_read_only_disk_is_refused_at_start(tmp_path):
    disk = SqliteDisk()
    disk.read_only = True
    with disk.mounted(), pytest.raises(StoreReadOnlyError) as refused:
        async with opened(tmp_path):
            pass
    assert "items.db" in str(refused.value)
    disk.read_only = False
    async with store_on(disk, tmp_path) as store:
        await store.put_many([ranked()])
    disk.read_only = True
    with disk.mounted(), pytest.raises(StoreReadOnlyError) as refused:
        async with opened(tmp_path):
            pass
    assert refused.value.hint


async def test_a_cancelled_call_was_done_or_not_done(tmp_path):
    async with store_on(SqliteDisk(), tmp_path) as store:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.put_many([ranked()])
        assert scope.cancelled_caught
        assert await read_all(store) == []
