"""Tables and indexes, and the statements that are used more than once.

Why statements are text: they run by the hundred thousand through `executemany`, and a plain string
is what is prepared once and kept. Parameters are always bound; a salt is never part of a statement.
Why rowid tables: a table WITHOUT ROWID keeps its values in the tree that every insert reorders,
which costs three quarters of the rate. Why so many columns: what is compared, filtered or summed
must be readable without decoding an item.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Column, Index, Integer, LargeBinary, MetaData, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

__all__ = [
    "COLUMNS",
    "CREATE",
    "INTEGER_MAX",
    "RECOUNT",
    "SCHEMA_VERSION",
    "SLOT_COLUMNS",
]

SCHEMA_VERSION: Final = 2
"""Kept in `PRAGMA user_version`. A file with a higher one is refused and left as it is."""

INTEGER_MAX: Final = 2**63 - 1
METADATA = MetaData()


def _blob(name: str, *, nullable: bool = False) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=nullable)


def _integer(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=nullable)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


meta = Table(
    "meta", METADATA, _id(), _blob("store_id"), _integer("position"), _integer("history_bytes")
)

items = Table(
    "items",
    METADATA,
    _id(),
    _blob("target"),
    _integer("class"),
    _blob("rank"),
    _blob("digest"),
    _blob("signer"),
    _blob("subject"),
    _blob("salt"),
    _integer("seq"),
    _integer("kind"),
    _integer("until"),  # the one that counts: the item's own, or its lease's
    _integer("bytes"),  # of the value, and of the blocks it stands on
    _integer("tree_bytes"),  # of these blocks alone
    _integer("stored_ns"),
    _integer("item_position"),
    _integer("position"),
    _blob("sender"),
    _blob("lease", nullable=True),
    _blob("item"),
    _blob("refs", nullable=True),  # hashes of blocks, one after another
    Index("items_slot", "target", "class", unique=True),
    Index("items_log", "position", "seq", "subject"),
    Index("items_salt_log", "salt", "position", "seq", "subject"),
    Index("items_salt_target", "salt", "target", "class"),
    Index("items_until", "until"),
)

history = Table(
    "history",
    METADATA,
    _id(),
    _blob("target"),
    _integer("class"),
    _blob("rank"),
    _blob("digest"),
    _blob("sender"),
    _integer("stored_ns"),
    _integer("item_position"),
    _integer("position"),
    _integer("bytes"),  # of the value, a little more, and of the blocks in refs
    _blob("lease", nullable=True),
    _blob("item"),
    _blob("refs", nullable=True),  # blocks that the next version does not stand on
    Index("history_slot", "target", "class", "item_position", "bytes", "refs"),
)

blocks = Table(
    "blocks",
    METADATA,
    _id(),
    _blob("hash"),
    _integer("heads"),
    _integer("past"),  # versions in the history that hold it
    _integer("size"),
    _integer("idle_since", nullable=True),  # NULL: in use, or the next sweep will say
    _blob("data"),
    Index("blocks_hash", "hash", unique=True),
    Index("blocks_idle", "heads", "past", "idle_since"),
)

salts = Table(
    "salts", METADATA, _id(), _blob("name"), _integer("items"), _integer("bytes"),
    Index("salts_name", "name", unique=True),
)  # fmt: skip

signers = Table(
    "signers", METADATA, _id(), _blob("name"), _integer("items"), _integer("bytes"),
    Index("signers_name", "name", unique=True),
)  # fmt: skip


def _made(table: Table) -> Iterator[str]:
    parts: list[CreateTable | CreateIndex] = [CreateTable(table)]
    parts += [CreateIndex(i) for i in sorted(table.indexes, key=lambda i: str(i.name))]
    for part in parts:
        yield str(part.compile(dialect=sqlite.dialect()))


CREATE: Final = tuple(statement for table in METADATA.tables.values() for statement in _made(table))
"""Statements that make an empty file one of this version."""


COLUMNS: Final = (
    "id, target, class, rank, digest, sender, stored_ns, item_position, position, lease, item"
)
"""What a StoredItem is made of; `items` and `history` both have these."""

SLOT_COLUMNS: Final = (
    "id, target, class, rank, digest, seq, kind, until, salt, signer, bytes, tree_bytes, refs"
)
"""What a decision about a slot needs."""


_COUNTED: Final = (("salts", "salt"), ("signers", "account"))
RECOUNT: Final = tuple(
    statement
    for table, column in _COUNTED
    for statement in (
        f"DELETE FROM {table}",
        f"INSERT INTO {table} (name, items, bytes) SELECT {column}, count(*), sum(bytes) FROM"
        " (SELECT salt, bytes, CAST(CASE class WHEN 1 THEN signer || x'2a' ELSE signer END AS BLOB)"
        f" AS account FROM items) GROUP BY {column}",
    )
)
"""Count anew what is held under each salt and on each account (model.items.account_of)."""
