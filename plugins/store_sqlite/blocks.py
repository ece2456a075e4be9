"""Blocks by reference, in their table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from skycore.model.limits import BLOCK_GRACE_S
from store_sqlite.database import Database
from store_sqlite.reader import chunks
from store_sqlite.rows import split_refs
from store_sqlite.schema import marks

__all__ = ["BlockTable"]


class BlockTable:
    """Content-addressed pieces of large values, each counted by the heads that refer to it."""

    def __init__(self, database: Database) -> None:
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
            "INSERT INTO blocks (hash, heads, size, data) VALUES (?, 0, ?, ?)"
            " ON CONFLICT (hash) DO NOTHING",
            fresh,
        )
        self._db.many(
            "UPDATE blocks SET heads = heads + ?, idle_since = NULL WHERE hash = ?",
            [(count, name) for name, count in heads.items()],
        )

    def release(self, names: Sequence[bytes], now_s: int | None) -> None:
        """Count one head less for each."""
        self._db.many(
            "UPDATE blocks SET heads = heads - 1, idle_since = ? WHERE hash = ?",
            [(now_s, name) for name in names],
        )

    def recount(self) -> None:
        """Count heads anew from what the items say."""
        heads: Counter[bytes] = Counter()
        for (refs,) in self._db.stream("SELECT refs FROM items WHERE refs IS NOT NULL", ()):
            heads.update(split_refs(refs))
        self._db.execute("UPDATE blocks SET heads = 0, idle_since = NULL")
        self._db.many(
            "UPDATE blocks SET heads = ? WHERE hash = ?", [(n, name) for name, n in heads.items()]
        )

    def sweep(self, now_s: int) -> None:
        """Forget what has had no head for the time of grace."""
        self._db.execute(
            "DELETE FROM blocks WHERE heads = 0 AND idle_since <= ?", (now_s - BLOCK_GRACE_S,)
        )
        self._db.execute(  # unknown, or the clock was set back
            "UPDATE blocks SET idle_since = ?1"
            " WHERE heads = 0 AND (idle_since IS NULL OR idle_since > ?1)",
            (now_s,),
        )
