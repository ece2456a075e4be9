"""Files of older versions: opened, brought up to date, and nothing lost (Q9)."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from skycore.contracts.store import ChangeFilter, ItemKey
from skycore.errors import StoreError
from skycore.testing.contracts.store_model import START_NS, START_S, ranked, read_all
from skycore.testing.fakes import InlineWorkers, SeededEntropy
from store_sqlite import service
from store_sqlite.migrations import MIGRATIONS
from store_sqlite.schema import SCHEMA_VERSION
from store_sqlite.service import open_sqlite_store
from store_sqlite.settings import SqliteStoreSettings

VERSION_1 = """
CREATE TABLE meta (id INTEGER NOT NULL, store_id BLOB NOT NULL, position INTEGER NOT NULL,
  PRIMARY KEY (id));
CREATE TABLE items (id INTEGER NOT NULL, target BLOB NOT NULL, class INTEGER NOT NULL,
  rank BLOB NOT NULL, digest BLOB NOT NULL, signer BLOB NOT NULL, subject BLOB NOT NULL,
  salt BLOB NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL, until INTEGER NOT NULL,
  bytes INTEGER NOT NULL, stored_ns INTEGER NOT NULL, item_position INTEGER NOT NULL,
  position INTEGER NOT NULL, sender BLOB NOT NULL, lease BLOB, item BLOB NOT NULL, refs BLOB,
  PRIMARY KEY (id));
CREATE UNIQUE INDEX items_slot ON items (target, class);
CREATE INDEX items_log ON items (position, seq, subject);
CREATE INDEX items_salt_log ON items (salt, position, seq, subject);
CREATE INDEX items_salt_target ON items (salt, target, class);
CREATE INDEX items_until ON items (until);
CREATE TABLE history (id INTEGER NOT NULL, target BLOB NOT NULL, class INTEGER NOT NULL,
  rank BLOB NOT NULL, digest BLOB NOT NULL, sender BLOB NOT NULL, stored_ns INTEGER NOT NULL,
  item_position INTEGER NOT NULL, position INTEGER NOT NULL, lease BLOB, item BLOB NOT NULL,
  PRIMARY KEY (id));
CREATE INDEX history_slot ON history (target, class, item_position);
CREATE TABLE blocks (id INTEGER NOT NULL, hash BLOB NOT NULL, heads INTEGER NOT NULL,
  size INTEGER NOT NULL, idle_since INTEGER, data BLOB NOT NULL, PRIMARY KEY (id));
CREATE UNIQUE INDEX blocks_hash ON blocks (hash);
CREATE INDEX blocks_idle ON blocks (heads, idle_since);
CREATE TABLE salts (id INTEGER NOT NULL, name BLOB NOT NULL, items INTEGER NOT NULL,
  bytes INTEGER NOT NULL, PRIMARY KEY (id));
CREATE UNIQUE INDEX salts_name ON salts (name);
CREATE TABLE signers (id INTEGER NOT NULL, name BLOB NOT NULL, items INTEGER NOT NULL,
  bytes INTEGER NOT NULL, PRIMARY KEY (id));
CREATE UNIQUE INDEX signers_name ON signers (name);
PRAGMA user_version = 1;
"""
"""What the first version of this store wrote, statement for statement."""
SHARED = {
    "meta": "id, store_id, position",
    "items": "id, target, class, rank, digest, signer, subject, salt, seq, kind, until, bytes,"
    " stored_ns, item_position, position, sender, lease, item, refs",
    "history": "id, target, class, rank, digest, sender, stored_ns, item_position, position,"
    " lease, item",
    "blocks": "id, hash, heads, size, idle_since, data",
    "salts": "id, name, items, bytes",
    "signers": "id, name, items, bytes",
}
A, B = b"a" * 32, b"b" * 32


class OneFolder:
    def __init__(self, folder):
        self._folder = folder

    def path(self, name):
        return self._folder / name


def opened(folder):
    return open_sqlite_store(
        SqliteStoreSettings(), OneFolder(folder), SeededEntropy(), InlineWorkers()
    )


async def version_1(tmp_path):
    """Make a file of version 1 with items, leases, history and blocks; return what it holds."""
    new = tmp_path / "new"
    new.mkdir()
    async with opened(new) as store:
        await store.put_many([ranked(b"s%d" % n, v=b"v" * n) for n in range(300)])
        await store.put_many([ranked(b"s%d" % n, seq=2) for n in range(20)])
        head = ranked(b"head", refs=[A, B], v=b"root")
        await store.put_many([head], {A: b"block a", B: b"block bb"})
        held, page = await read_all(store), await store.changes(None, ChangeFilter(), 7, 1 << 20)
    with sqlite3.connect(tmp_path / "items.db") as old:
        old.executescript(VERSION_1)
        old.execute("ATTACH ? AS new", (str(new / "items.db"),))
        for table, columns in SHARED.items():
            old.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM new.{table}")
    old.close()
    return head, held, page


async def test_q09_a_file_of_version_1_opens_and_keeps_everything(tmp_path, caplog):
    caplog.set_level("INFO")
    head, held, page = await version_1(tmp_path)
    for _ in range(2):  # the second time it is a file like others
        async with opened(tmp_path) as store:
            assert await read_all(store) == held
            assert await store.changes(None, ChangeFilter(), 7, 1 << 20) == page
            assert (await store.changes(page.cursor, ChangeFilter(), 999, 1 << 20)).entries
            assert [s.item.seq for s in await store.history(ranked(b"s3").target, 9)] == [1]
            assert await store.signer_usage([head.item.signer]) == [(1, 4 + 15)]
    assert caplog.text.count("brought up to date schema=2") == 1
    async with opened(tmp_path) as store:
        later = ranked(b"head", seq=2, refs=[B], v=b"root", admitted_ns=START_NS)
        assert (await store.put_many([later]))[0].code == 0
        assert await store.signer_usage([head.item.signer]) == [(1, 4 + 8)]
        await store.drop([ItemKey(ranked(b"s3").target, 3), ItemKey(head.target, 3)])
        assert await store.history(ranked(b"s3").target, 9) == []
        assert await store.sweep(START_S + 301) == 299
        await store.sweep(START_S + 422)
        assert store._writer.mark()[1] == 0, "no bytes of history are left"
        for table in ("items", "history", "blocks", "salts", "signers"):
            assert store._db.rows(f"SELECT count(*) FROM {table}") == [(0,)]


async def test_q09_a_step_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    _, held, _ = await version_1(tmp_path)
    broken = {1: (*MIGRATIONS[1][:-1], "UPDATE nothing SET there = 1")}
    with monkeypatch.context() as patched:
        patched.setattr(service, "FILE", replace(service.FILE, migrations=broken))
        with pytest.raises(StoreError):
            async with opened(tmp_path):
                pass
    with sqlite3.connect(tmp_path / "items.db") as file:
        assert file.execute("PRAGMA user_version").fetchone() == (1,)
        assert "tree_bytes" not in str(file.execute("SELECT sql FROM sqlite_schema").fetchall())
    file.close()
    async with opened(tmp_path) as store:
        assert await read_all(store) == held


async def test_a_new_file_and_an_old_one_have_the_same_tables(tmp_path):
    await version_1(tmp_path)
    async with opened(tmp_path):
        pass
    found = []
    for path in (tmp_path / "items.db", tmp_path / "new" / "items.db"):
        with sqlite3.connect(path) as file:
            tables = [row[0] for row in file.execute("SELECT name FROM sqlite_schema ORDER BY 1")]
            columns = {
                name: sorted(row[1:4] for row in file.execute(f"PRAGMA table_info({name})"))
                for name in tables
            }
            indexed = {
                name: [row[2] for row in file.execute(f"PRAGMA index_info({name})")]
                for name in tables
            }
            found.append((tables, columns, indexed, file.execute("PRAGMA user_version").fetchone()))
        file.close()
    assert found[0] == found[1]
    assert found[0][3] == (SCHEMA_VERSION,)
