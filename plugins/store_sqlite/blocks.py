"""Blocks by reference, in their table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from skycore.model.limits import BLOCK_GRACE_S
from skycore.sqlite import SqliteFile, marks
from store_sqlite.reader import chunks
from store_sqlite.rows import split_refs

__all__ = ["BlockTable"]


class BlockTable:
    """Content-addressed pieces of large values, each counted by the heads that refer to it."""

    def __init__(self, database: SqliteFile) -> None:
        self._db = database

    def sizes(self, names: Iterable[bytes], given: Mapping[bytes, bytes]) -> dict[bytes, int]:
        """Return the sizes of those that are here or given."""
        wanted = list(names)
        sizes = {name: len(given[name]) for name in wanted if name in given}
        for part in chunks([name for name in wanted if name not in sizes]):
            statement = f"SELECT hash, size FROM blocks WHERE hash IN ({marks(len(part))})"
            sizes.update((row[0], row[1]) for row in self._db.rows(statement, tuple(part)))
        return sizes

    def hold(self, names: Iterable[bytes], given: Mapping[bytes, bytes]) -> None:
        """Count heads; blocks that are not here come from `given`."""
        heads = Counter(names)
        fresh = [(n, len(given[n]), given[n]) for n in heads if n in given]
        self._db.many(
            "INSERT INTO blocks (hash, heads, past, size, data) VALUES (?, 0, 0, ?, ?)"
            " ON CONFLICT (hash) DO NOTHING",
            fresh,
        )
        self._db.many(
            "UPDATE blocks SET heads = heads + ?, idle_since = NULL WHERE hash = ?",
            [(count, name) for name, count in heads.items()],
        )

    def release(
        self, names: Sequence[bytes], now_s: int | None, *, is_history: bool = False
    ) -> None:
        """Count one head less for each, and one version more where it becomes history."""
        self._db.many(
            "UPDATE blocks SET heads = heads - 1, past = past + ?, idle_since = ? WHERE hash = ?",
            [(int(is_history), now_s, name) for name in names],
        )

    def forget(self, names: Sequence[bytes]) -> None:
        """Count one version in the history less for each."""
        self._db.many(
            "UPDATE blocks SET past = past - 1 WHERE hash = ?", [(name,) for name in names]
        )

    def recount(self) -> None:
        """Count heads and versions anew from what items and history say."""
        self._db.execute("UPDATE blocks SET heads = 0, past = 0, idle_since = NULL")
        for table, column in (("items", "heads"), ("history", "past")):
            counts: Counter[bytes] = Counter()
            for (refs,) in self._db.stream(f"SELECT refs FROM {table} WHERE refs IS NOT NULL", ()):
                counts.update(split_refs(refs))
            self._db.many(
                f"UPDATE blocks SET {column} = ? WHERE hash = ?",
                [(count, name) for name, count in counts.items()],
            )

    def sweep(self, now_s: int) -> None:
        """Forget what has had no head for the time of grace, and is in no version."""
        self._db.execute(
            "DELETE FROM blocks WHERE heads = 0 AND past = 0 AND idle_since <= ?",
            (now_s - BLOCK_GRACE_S,),
        )
        self._db.execute(  # unknown, or the clock was set back
            "UPDATE blocks SET idle_since = ?1"
            " WHERE heads = 0 AND past = 0 AND (idle_since IS NULL OR idle_since > ?1)",
            (now_s,),
        )
