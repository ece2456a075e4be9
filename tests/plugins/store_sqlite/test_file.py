"""What can be wrong with a file: damage, rights, age (Q5, Q6, Q9, Q13)."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import sqlite3
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from skycore.contracts.store import ChangeFilter
from skycore.errors import (
    CursorInvalidError,
    StoreCorruptError,
    StoreError,
    StoreReadOnlyError,
    StoreVersionError,
)
from skycore.testing.contracts.store_model import START_NS, START_S, ranked, read_all
from skycore.testing.fakes import InlineWorkers, SeededEntropy
from store_sqlite.schema import SCHEMA_VERSION
from store_sqlite.service import open_sqlite_store
from store_sqlite.settings import SqliteStoreSettings

WHOLE = (bytes(32), b"\xff" * 32)


class OneFolder:
    def __init__(self, folder):
        self._folder = folder

    def path(self, name):
        return self._folder / name


def opened(folder, seed=0, **settings):
    return open_sqlite_store(
        SqliteStoreSettings(**settings), OneFolder(folder), SeededEntropy(seed), InlineWorkers()
    )


ITEMS = [ranked(b"s%d" % i, salt=b"ab"[i % 2 :][:1], v=b"v" * (i * 7 % 900)) for i in range(150)]
BLOCK = b"block" * 100
HEAD = ranked(b"head", refs=[hashlib.sha256(BLOCK).digest()])


async def written(folder):
    """Make a file; return its bytes and what it serves."""
    async with opened(folder) as store:
        await store.put_many([*ITEMS, HEAD], {HEAD.refs[0]: BLOCK})
        await store.put_many([ranked(b"s1", salt=b"b", seq=2)])
        items = await read_all(store)
    return (folder / "items.db").read_bytes(), {(s.target, s.item_class): s for s in items}


async def read_everything(store):
    """Read by every way there is; return what was served."""
    served = list(await read_all(store))
    served += (await store.changes(None, ChangeFilter(), 10_000, 1 << 30)).entries
    for held in await store.get([item.target for item in ITEMS]):
        served += held
    for salt in (b"a", b"b"):
        served += await store.listing(salt, *WHOLE, 10_000)
        served += (await store.changes(None, ChangeFilter(salt=salt), 10_000, 1 << 30)).entries
    await store.fingerprints(None, [WHOLE])
    await store.usage()
    assert (await store.blocks(HEAD.refs))[0] in (BLOCK, None)
    return served


async def survives(folder, damaged, whole, caplog):
    """Open a damaged file: nothing wrong is served, and life goes on.

    A flipped bit in an index may hide an item from one way of reading: SQLite's quick_check does
    not compare indexes with tables. Reconciliation brings such an item again.
    """
    (folder / "items.db").write_bytes(damaged)
    caplog.clear()
    async with opened(folder, seed=1) as store:
        for _ in range(3):  # damage that shows late costs one call, by name
            try:
                served = await read_everything(store)
            except StoreCorruptError as damage:
                assert "kept aside" in damage.hint
        for item in served:
            true = whole[item.target, item.item_class]
            assert (item.item, item.rank, item.digest, item.stored_ns) == (
                true.item, true.rank, true.digest, true.stored_ns,
            )  # fmt: skip
        [outcome] = await store.put_many([ranked(b"new")])
        assert outcome.accepted
    aside = [p for p in folder.iterdir() if "damaged" in p.name]
    if aside:
        assert "items lost" in caplog.text
        assert any(r.levelno >= logging.ERROR for r in caplog.records)
    for left in folder.iterdir():
        left.unlink()
    return bool(aside)


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.soak)])
async def test_q05_bit_flips_in_each_page(tmp_path, caplog, rounds):
    dice = random.Random(5)
    good, whole = await written(tmp_path)
    (tmp_path / "items.db").unlink()
    kept_aside = 0
    pages = len(good) // 4096
    for page in list(range(pages)) * rounds:
        damaged = bytearray(good)
        for _ in range(dice.choice((1, 1, 8))):
            damaged[page * 4096 + dice.randrange(4096)] ^= 1 << dice.randrange(8)
        kept_aside += await survives(tmp_path, bytes(damaged), whole, caplog)
    assert 0 < kept_aside < pages * rounds


async def test_q05_a_damaged_schema_whose_error_is_no_text_is_damage_too(tmp_path, caplog):
    """sqlite3 quotes the schema in its message, and fails to decode what is no UTF-8."""
    good, whole = await written(tmp_path)
    (tmp_path / "items.db").unlink()
    at = good.index(b"CREATE TABLE")
    for offset in (1, 4, 8, 14):
        damaged = bytearray(good)
        damaged[at + offset] = 0xCF
        await survives(tmp_path, bytes(damaged), whole, caplog)


async def test_q05_a_flipped_bit_in_a_value_is_never_served(tmp_path, caplog):
    good, whole = await written(tmp_path)
    for at in (b"v" * 500, BLOCK[:200]):
        damaged = bytearray(good)
        damaged[good.index(at) + 99] ^= 4
        (tmp_path / "items.db").write_bytes(damaged)
        async with opened(tmp_path) as store:
            served = await read_everything(store)
            assert all(s == whole[s.target, s.item_class] for s in served)
            assert await store.blocks(HEAD.refs) == [None if at[:1] == b"b" else BLOCK]
            held = await read_all(store)
            usage = await store.usage()
            assert sum(u.items for u in usage.values()) == len(held)
            assert (await store.fingerprints(None, [WHOLE]))[0].items == len(held)
            if at[:1] == b"v":
                [gone] = [i for i in [*ITEMS, HEAD] if i.target not in {s.target for s in held}]
                assert "checksum" in caplog.text
                [outcome] = await store.put_many([gone])
                assert outcome.code == 0, "it may come again"


async def test_q05_a_damaged_head_lets_go_of_its_blocks_and_history(tmp_path):
    heads = [ranked(n, seq=2, refs=HEAD.refs, v=b"head of " + n * 50) for n in (b"a", b"b")]
    async with opened(tmp_path) as store:
        await store.put_many([ranked(b"a"), ranked(b"b")])
        await store.put_many(heads, {HEAD.refs[0]: BLOCK})
    damaged = bytearray((tmp_path / "items.db").read_bytes())
    damaged[damaged.index(b"head of a") + 20] ^= 1
    (tmp_path / "items.db").write_bytes(damaged)
    async with opened(tmp_path) as store:
        assert [s.item.subject for s in await read_all(store)] == [b"b"]
        assert await store.history(heads[0].target, 9) == []
        assert len(await store.history(heads[1].target, 9)) == 1
        await store.sweep(START_S)
        await store.sweep(START_S + 200)
        assert await store.blocks(HEAD.refs) == [BLOCK], "b stands on it"
        assert await store.sweep(START_S + 301) == 1
        await store.sweep(START_S + 500)
        assert await store.blocks(HEAD.refs) == [None]


async def test_q05_a_damaged_item_hides_no_others_of_the_log(tmp_path):
    """A page that seemed to be the last one would move its reader's cursor past what follows."""
    items = [ranked(b"s%d" % n, v=b"value of %d " % n * 20) for n in range(6)]
    async with opened(tmp_path) as store:
        await store.put_many(items)
    damaged = bytearray((tmp_path / "items.db").read_bytes())
    damaged[damaged.index(b"value of 1 ") + 30] ^= 1
    (tmp_path / "items.db").write_bytes(damaged)
    async with opened(tmp_path) as store:
        page = await store.changes(None, ChangeFilter(), 2, 10**6)
        assert page.has_more
        rest = await store.changes(page.cursor, ChangeFilter(), 9, 10**6)
        seen = [entry.item.subject for entry in (*page.entries, *rest.entries)]
        assert seen == [b"s0", b"s2", b"s3", b"s4", b"s5"]


@pytest.mark.parametrize("kind", ["truncated", "garbage", "short", "zeros", "text", "WAL only"])
async def test_q05_what_is_no_database_is_kept_aside(tmp_path, caplog, kind):
    good, whole = await written(tmp_path)
    bad = {
        "truncated": good[: len(good) // 2 + 100],
        "garbage": random.Random(1).randbytes(len(good)),
        "short": good[:60],
        "zeros": bytes(4096),
        "text": b"dear diary" * 1_000,
        "WAL only": b"",
    }[kind]
    if kind == "WAL only":
        (tmp_path / "items.db-wal").write_bytes(good[:9_000])
    assert await survives(tmp_path, bad, whole, caplog)


async def test_q05_the_damaged_file_is_kept_as_it_was_nine_of_them(tmp_path):
    for i in range(11):
        (tmp_path / "items.db").write_bytes(b"garbage %d " % i * 100)
        async with opened(tmp_path, seed=i):
            pass
    aside = sorted(p.name for p in tmp_path.glob("*.damaged-*"))
    assert aside == [f"items.db.damaged-{n}" for n in range(1, 10)]
    assert (tmp_path / "items.db.damaged-1").read_bytes() == b"garbage 0 " * 100
    assert (tmp_path / "items.db.damaged-9").read_bytes().startswith(b"garbage 10")


async def test_q05_damage_met_while_running_begins_a_new_store(tmp_path):
    good, _ = await written(tmp_path)
    damaged = bytearray(good)
    for page in range(2, len(good) // 4096):
        damaged[page * 4096 : page * 4096 + 100] = bytes(100)
    (tmp_path / "items.db").write_bytes(damaged)
    async with opened(tmp_path, seed=7, check_max_mib=0) as store:
        before = store.store_id
        with pytest.raises(StoreCorruptError) as damage:
            await read_all(store)
        assert "kept aside" in damage.value.hint
        assert store.store_id != before, "cursors of the lost log are foreign now"
        assert await read_all(store) == []
        await store.put_many([ranked()])
        assert len(await read_all(store)) == 1


async def test_q05_damage_met_while_starting_begins_a_new_store(tmp_path, caplog):
    good, _ = await written(tmp_path)
    (tmp_path / "items.db").write_bytes(good)
    with sqlite3.connect(tmp_path / "items.db") as file:
        file.execute("DELETE FROM meta")  # no cursor could be told from a foreign one
    file.close()
    async with opened(tmp_path, seed=7, check_max_mib=0) as store:
        assert await read_all(store) == []
        await store.put_many([ranked()])
    assert "items lost" in caplog.text and (tmp_path / "items.db.damaged-1").exists()


async def test_a_database_of_another_program_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "items.db") as other:
        other.execute("CREATE TABLE recipes (name)")
    other.close()
    before = (tmp_path / "items.db").read_bytes()
    with pytest.raises(StoreError, match="another program"):
        async with opened(tmp_path):
            pass
    assert (tmp_path / "items.db").read_bytes() == before


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 9_999])
async def test_q09_a_newer_schema_is_refused_and_untouched(tmp_path, version):
    await written(tmp_path)
    with sqlite3.connect(tmp_path / "items.db") as newer:
        newer.execute(f"PRAGMA user_version = {version}")
    newer.close()
    before = (tmp_path / "items.db").read_bytes()
    with pytest.raises(StoreVersionError) as refused:
        async with opened(tmp_path):
            pass
    assert f"schema {version}" in str(refused.value)
    assert "update" in refused.value.hint
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"items.db": before}


@contextmanager
def somebody_else():
    """Be nobody for a while, where we are root: root may write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that nobody can reach (pytest's own are closed to others)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


async def test_q06_what_cannot_be_written_is_refused_at_start(open_folder):
    folder = open_folder
    await written(folder)
    file = folder / "items.db"
    for mode, of_folder in ((0o444, 0o555), (0o000, 0o755)):
        file.chmod(mode)
        folder.chmod(of_folder)
        with somebody_else(), pytest.raises(StoreReadOnlyError) as refused:
            async with opened(folder):
                pass
        assert refused.value.hint
        assert "items.db" in str(refused.value)
    folder.chmod(0o755)
    file.unlink()
    folder.chmod(0o555)
    with somebody_else(), pytest.raises(StoreReadOnlyError):
        async with opened(folder):
            pass
    with pytest.raises(StoreReadOnlyError):
        async with opened(folder / "missing"):
            pass


async def test_q13_age_and_place_outlive_a_restart(tmp_path):
    stamps = [START_NS - 3_600 * 10**9, START_NS]
    async with opened(tmp_path) as store:
        items = [ranked(b"s%d" % i, admitted_ns=t) for i, t in enumerate(stamps)]
        await store.put_many(items)
        page = await store.changes(None, ChangeFilter(), 1, 1)
        before = await read_all(store)
    async with opened(tmp_path, seed=2) as store:
        assert store.store_id == page.cursor.store_id
        assert await read_all(store) == before
        assert sorted(s.stored_ns for s in before) == stamps
        [second] = (await store.changes(page.cursor, ChangeFilter(), 9, 9)).entries
        assert second.stored_ns == START_NS
        assert await store.sweep(START_S - 3_600) == 0, "a clock set back ends nothing"
        assert await store.sweep(START_S + 301) == 2, "and nothing lives for ever"
        end = (await store.changes(None, ChangeFilter(), 1, 1)).cursor
    async with opened(tmp_path) as store:
        assert end.position == 2
        await store.put_many([ranked()])
        [new] = (await store.changes(end, ChangeFilter(), 9, 9)).entries
        assert new.position == 3, "a position is never used twice"


async def test_a_new_file_has_an_id_of_its_own(tmp_path):
    async with opened(tmp_path, seed=1) as store:
        cursor = (await store.changes(None, ChangeFilter(), 1, 1)).cursor
    (tmp_path / "items.db").unlink()
    async with opened(tmp_path, seed=2) as store:
        with pytest.raises(CursorInvalidError):
            await store.changes(cursor, ChangeFilter(), 1, 1)


async def test_a_closed_store_says_so(tmp_path):
    async with opened(tmp_path) as store:
        pass
    with pytest.raises(StoreError, match="closed"):
        await store.put_many([ranked()])


@pytest.mark.parametrize(
    "bad", [{"path": "../items.db"}, {"path": ""}, {"path": "a" * 101}, {"path": ".hidden"},
            {"history_versions_max": 101}, {"cache_mib": 0}, {"lock_wait_s": 61}, {"pth": "x"}],
)  # fmt: skip
def test_settings_are_bounded(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SqliteStoreSettings(**bad)
    SqliteStoreSettings(path="a" * 100, history_versions_max=100, cache_mib=1, lock_wait_s=60)
