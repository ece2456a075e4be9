"""How much a call costs: statements, rows and steps of SQLite's machine, never time (C32, Q11)."""

from __future__ import annotations

import sqlite3

import pytest

from skycore.contracts.store import ChangeFilter, ItemKey
from skycore.testing.contracts.store_house import history_within_its_bytes
from skycore.testing.contracts.store_model import START_S, lease_for, ranked
from skycore.testing.fakes import InlineWorkers, MemoryFiles, SeededEntropy
from store_sqlite.service import open_sqlite_store
from store_sqlite.settings import SqliteStoreSettings
from store_sqlite.writer import SWEEP_ROWS

_STEP = 5


def opened(**settings):
    return open_sqlite_store(
        SqliteStoreSettings(**settings), MemoryFiles(), SeededEntropy(), InlineWorkers()
    )


class Meter:
    """Counts what a call makes SQLite do."""

    def __init__(self, store) -> None:
        self._database = store._db
        self._sqlite = store._db._connection.connection.driver_connection
        self._steps = 0

    def _count(self) -> None:
        self._steps += _STEP

    async def of(self, call):
        """Return (statements, rows changed, steps) of one call."""
        statements, rows = self._database.statements, self._sqlite.total_changes
        self._steps = 0
        self._sqlite.set_progress_handler(self._count, _STEP)
        await call
        self._sqlite.set_progress_handler(None, _STEP)
        return (
            self._database.statements - statements,
            self._sqlite.total_changes - rows,
            self._steps,
        )


async def filled(store, size):
    for start in range(0, size, 1_000):
        await store.put_many([ranked(b"old%d" % i) for i in range(start, min(start + 1_000, size))])


def calls(store, cursor):
    """Every call, as a node makes it, on a store that holds the items old0, old1, …"""
    old = [ranked(b"old%d" % i) for i in range(20)]
    low, high = bytes(32), b"\xff" * 32
    return {
        "put new": lambda: store.put_many([ranked(b"new%d" % i) for i in range(20)]),
        "put held": lambda: store.put_many(old),
        "put newer": lambda: store.put_many([ranked(b"old%d" % i, seq=2) for i in range(20)]),
        "renew": lambda: store.renew([lease_for(old[0], START_S + 999)], 0),
        "get": lambda: store.get([item.target for item in old]),
        "page": lambda: store.changes(cursor, ChangeFilter(), 10, 1 << 20),
        "page of a salt": lambda: store.changes(cursor, ChangeFilter(salt=b"tp"), 10, 1 << 20),
        "page of a target": lambda: store.changes(
            None, ChangeFilter(salt=b"tp", subject=b"old3"), 10, 1 << 20
        ),
        "listing": lambda: store.listing(None, low, high, 10),
        "listing of a salt": lambda: store.listing(b"tp", low, high, 10),
        "history": lambda: store.history(old[0].target, 10),
        "usage": lambda: store.usage(),
        "signers": lambda: store.signer_usage([item.item.signer for item in old]),
        "blocks": lambda: store.blocks([bytes(32)]),
        "sweep": lambda: store.sweep(START_S),
        "drop": lambda: store.drop([ItemKey(old[1].target, 3)]),
    }


async def costs(size):
    async with opened() as store:
        await filled(store, size)
        await store.fingerprints(None, [(bytes(32), b"\xff" * 32)])
        cursor = (await store.changes(None, ChangeFilter(), size // 2, 1 << 30)).cursor
        meter = Meter(store)
        return {name: await meter.of(call()) for name, call in calls(store, cursor).items()}


@pytest.mark.parametrize(
    ("small", "large"), [(1_000, 10_000), pytest.param(1_000, 100_000, marks=pytest.mark.soak)]
)
async def test_c32_no_call_costs_more_with_more_items(small, large):
    few, many = await costs(small), await costs(large)
    for name, (statements, rows, steps) in few.items():
        assert many[name][:2] == (statements, rows), name
        assert many[name][2] <= steps * 1.1 + 100, name


async def test_a_batch_is_a_handful_of_statements():
    async with opened() as store:
        meter = Meter(store)
        for count in (10, 500):
            new = [ranked(b"%d/%d" % (count, i)) for i in range(count)]
            statements, rows, _ = await meter.of(store.put_many(new))
            assert statements == 7, "BEGIN, slots, items, salts, signers, meta, COMMIT"
            assert rows == 2 * count + 2
            assert (await meter.of(store.put_many(new)))[:2] == (3, 0)
            leases = [lease_for(item, START_S + 999) for item in new]
            assert (await meter.of(store.renew(leases, 0)))[:2] == (5, count + 1)


async def test_q11_there_is_one_connection(monkeypatch):
    connect, made = sqlite3.connect, []

    def counted(*arguments, **options):
        made.append(arguments)
        return connect(*arguments, **options)

    monkeypatch.setattr(sqlite3, "connect", counted)
    async with opened() as store:
        await store.put_many([ranked()])
        await store.usage()
    assert len(made) == 1


@pytest.mark.parametrize("count", [SWEEP_ROWS - 1, SWEEP_ROWS, SWEEP_ROWS + 1])
async def test_a_large_sweep_lets_others_in_between(count):
    async with opened() as store:
        await filled(store, count)
        meter = Meter(store)
        assert await store.sweep(START_S + 301) == count
        assert await store.usage() == {}
        await filled(store, count)
        statements, _, _ = await meter.of(store.sweep(START_S + 301))
        portions = count // SWEEP_ROWS + 1
        assert statements >= 5 * portions
        assert (await store.fingerprints(None, [(bytes(32), b"\xff" * 32)]))[0].items == 0


@pytest.mark.parametrize("versions", [0, 1, 100])
async def test_history_keeps_as_many_versions_as_the_settings_say(versions):
    async with opened(history_versions_max=versions) as store:
        for seq in range(1, 111):
            await store.put_many([ranked(seq=seq)])
        assert len(await store.history(ranked().target, 1_000)) == versions


async def test_c47_history_is_bounded_in_bytes_the_oldest_go_first():
    async with opened(history_versions_max=50, history_bytes_max=20_000) as store:
        await history_within_its_bytes(store, lambda: store._writer.mark()[1])
        [(rows,)] = store._db.rows("SELECT count(*) FROM blocks WHERE past <> 0 OR heads <> 0")
        assert rows == 0


@pytest.mark.parametrize(("small", "large"), [(300, 3_000)])
async def test_l24_a_change_of_a_large_head_touches_the_blocks_that_change(small, large):
    """The same rows and statements for five blocks of 3,000 as for five of 300."""
    found = []
    for size in (small, large):
        async with opened() as store:
            blocks = {n.to_bytes(32, "big"): b"%d" % n * 200 for n in range(size + 5)}
            names = list(blocks)
            await store.put_many([ranked(refs=names[:size])], blocks)
            change = {name: blocks[name] for name in names[size:]}
            second = ranked(seq=2, refs=[*names[5:size], *names[size:]])
            meter = Meter(store)
            statements, rows, _ = await meter.of(store.put_many([second], change))
            assert rows <= 30
            found.append((statements, rows))
    assert found[0] == found[1]


async def test_a_call_that_fails_half_way_leaves_nothing(monkeypatch):
    async with opened() as store:
        await store.put_many([ranked(b"a")])
        await store.fingerprints(None, [(bytes(32), b"\xff" * 32)])
        before = await store.changes(None, ChangeFilter(), 9, 1 << 20)

        def broken(*arguments):
            raise ZeroDivisionError

        monkeypatch.setattr(store._writer, "_moved_to", broken)
        with pytest.raises(ZeroDivisionError):
            await store.put_many([ranked(b"b"), ranked(b"a", seq=2)])
        monkeypatch.undo()
        assert await store.changes(None, ChangeFilter(), 9, 1 << 20) == before
        assert (await store.fingerprints(None, [(bytes(32), b"\xff" * 32)]))[0].items == 1
        await store.put_many([ranked(b"c")])
        assert (await store.usage())[b"tp"].items == 2
