"""What is written: each call one transaction, each kind of row one `executemany`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from skycore.contracts.store import ItemKey, Outcome, PutOutcome
from skycore.errors import CasMismatchError, SeqTooLowError, StoreCorruptError
from skycore.model.items import Kind, Lease, RankedItem
from skycore.model.prints import Prints
from skycore.sqlite import SqliteFile, marks
from store_sqlite.blocks import BlockTable
from store_sqlite.history import HistoryTable
from store_sqlite.reader import chunks
from store_sqlite.rows import Slot, new_row, seal_lease, split_refs
from store_sqlite.schema import INTEGER_MAX, RECOUNT, SLOT_COLUMNS

__all__ = ["SWEEP_ROWS", "Writer"]

Key = tuple[bytes, int]
SWEEP_ROWS = 2_000
"""Slots dropped in one transaction: other calls come in between."""
_WRITTEN = (
    "target, class, rank, digest, signer, subject, salt, seq, kind, until, bytes, tree_bytes,"
    " stored_ns, item_position, position, sender, lease, item, refs"
)
_INSERT = f"INSERT INTO items ({_WRITTEN}) VALUES ({marks(19)})"
_UPDATE = f"UPDATE items SET ({_WRITTEN}) = ({marks(19)}) WHERE id = ?"


class _Change(NamedTuple):
    """What becomes of the blocks when an item takes its slot."""

    names: tuple[bytes, ...]
    added: Sequence[bytes]
    removed: Sequence[bytes]


_NO_CHANGE = _Change((), (), ())
_Stored = tuple[RankedItem, Slot | None, _Change]


class Writer:
    """The writing half of the store. `position` is the end of the change log as committed."""

    def __init__(
        self, database: SqliteFile, prints: Prints, blocks: BlockTable, history: HistoryTable
    ) -> None:
        self._db = database
        self._prints = prints
        self._blocks = blocks
        self._history = history
        self._written = (0, 0)
        """Position and bytes of history, as the file has them."""
        self._salts: dict[bytes, list[int]] = {}
        self._signers: dict[bytes, list[int]] = {}
        self.position = 0

    def load(self, new_id: bytes) -> bytes:
        """Read where the log ends, in a transaction; return the store's id, new for a new file."""
        found = self._db.rows("SELECT store_id, position, history_bytes FROM meta")
        if not found:
            if self._db.rows("SELECT 1 FROM items LIMIT 1"):
                raise StoreCorruptError("the file holds items, but not which store it is")
            found = [(new_id, 0, 0)]
            self._db.execute("INSERT INTO meta VALUES (1, ?, 0, 0)", (new_id,))
        [(store_id, self.position, self._history.bytes)] = found
        self._written = self.mark()
        self._prints.forget()
        return bytes(store_id)

    # --- puts -----------------------------------------------------------------------------------

    def put_many(
        self, items: Sequence[RankedItem], given: Mapping[bytes, bytes]
    ) -> list[PutOutcome]:
        """Judge and write a batch, inside a transaction."""
        outcomes: list[PutOutcome] = []
        for part in _without_repeats(items):
            outcomes += self._put(part, given)
        return outcomes

    def _put(self, items: Sequence[RankedItem], given: Mapping[bytes, bytes]) -> list[PutOutcome]:
        slots = self._slots(item.target for item in items)
        changes = [_change(new, slots.get((new.target, new.item_class))) for new in items]
        touched = {n for change in changes for part in change[1:] for n in part}
        sizes = self._blocks.sizes(touched, given) if touched else {}
        outcomes = []
        stored: list[_Stored] = []
        for new, change in zip(items, changes, strict=True):
            held = slots.get((new.target, new.item_class))
            outcome = _refusal(new, held, tuple(n for n in change.added if n not in sizes))
            if outcome is None:
                stored.append((new, held, change))
                seq = 0 if new.item.kind == Kind.TOMBSTONE else new.item.seq
                outcome = PutOutcome(0, seq)
            outcomes.append(outcome)
        if stored:
            self._write(stored, sizes, given)
        return outcomes

    def _write(
        self,
        stored: Sequence[_Stored],
        sizes: Mapping[bytes, int],
        given: Mapping[bytes, bytes],
    ) -> None:
        inserts, updates, replaced = [], [], []
        position = self.position
        for new, held, change in stored:
            position += 1
            tree_bytes = held.tree_bytes if held else 0
            if change is not _NO_CHANGE:
                tree_bytes += sum(sizes[name] for name in change.added)
                tree_bytes -= sum(sizes.get(name, 0) for name in change.removed)
            row = new_row(new, position, tree_bytes, change.names)
            if held is None:
                inserts.append(row)
            else:
                updates.append((*row, held.id))
                replaced.append((held, change.removed))
                self._count(held, -1)
            self._add(new.item.salt, new.account, len(new.item.v) + tree_bytes, 1)
            if self._prints.watches(new.item.salt):
                until = min(new.item.until, INTEGER_MAX)
                self._prints.add(new.item.salt, (new.target, new.item_class, new.rank, until), 1)
        self._blocks.hold((name for _, _, change in stored for name in change.added), given)
        for new, _, change in stored:
            self._blocks.release(
                change.removed, new.admitted_ns // 10**9, is_history=self._history.is_kept
            )
        self._history.remember(replaced, sizes)
        self._db.many(_INSERT, inserts)
        self._db.many(_UPDATE, updates)
        self._moved_to(position)

    # --- leases ---------------------------------------------------------------------------------

    def renew(self, leases: Sequence[Lease]) -> list[PutOutcome]:
        """Set leases, inside a transaction."""
        slots = self._slots(lease.target for lease in leases)
        outcomes, rows = [], []
        position = self.position
        for lease in leases:
            held = slots.get((lease.target, lease.item_class))
            until = min(lease.until, INTEGER_MAX)
            current = held.current if held else 0
            if held is None or held.digest != lease.digest:
                outcomes.append(PutOutcome(int(Outcome.NOT_HELD), current))
            elif until <= held.until:
                outcomes.append(PutOutcome(int(Outcome.HELD), current))
            else:
                position += 1
                rows.append((seal_lease(lease), until, position, held.id))
                after = held._replace(until=until)
                slots[lease.target, lease.item_class] = after
                if self._prints.watches(held.salt):
                    self._prints.add(held.salt, held.print_row, -1)
                    self._prints.add(held.salt, after.print_row, 1)
                outcomes.append(PutOutcome(int(Outcome.RENEWED), current))
        self._db.many("UPDATE items SET lease = ?, until = ?, position = ? WHERE id = ?", rows)
        self._moved_to(position)
        return outcomes

    # --- removals -------------------------------------------------------------------------------

    def drop(self, keys: Sequence[ItemKey], positions: Sequence[int] | None = None) -> int:
        """Forget slots, inside a transaction."""
        if positions is not None:
            keys = self._unchanged(keys, positions)
        slots = self._slots(key.target for key in keys)
        found = {tuple(key): slots[key] for key in keys if key in slots}
        self._remove(list(found.values()), None)
        self._moved_to(self.position)
        return len(found)

    def _unchanged(self, keys: Sequence[ItemKey], positions: Sequence[int]) -> list[ItemKey]:
        statement = "SELECT 1 FROM items WHERE target = ? AND class = ? AND position = ?"
        read = zip(keys, positions, strict=True)
        return [key for key, place in read if self._db.rows(statement, (*key, place))]

    def sweep(self, now_s: int) -> int:
        """Drop what has ended, SWEEP_ROWS at most, inside a transaction."""
        statement = f"SELECT {SLOT_COLUMNS} FROM items WHERE until < ? LIMIT {SWEEP_ROWS}"
        ended = [Slot(*row) for row in self._db.rows(statement, (now_s,))]
        self._remove(ended, now_s)
        self._moved_to(self.position)
        self._blocks.sweep(now_s)
        return len(ended)

    def drop_damaged(self, ids: Sequence[int]) -> None:
        """Forget rows that cannot be read, and count everything anew: their columns may lie."""
        self._db.many("DELETE FROM items WHERE id = ?", [(number,) for number in ids])
        for statement in RECOUNT:
            self._db.execute(statement)
        self._history.end_without_slot()
        self._blocks.recount()
        self._prints.forget()
        self._moved_to(self.position)

    def _remove(self, slots: Sequence[Slot], now_s: int | None) -> None:
        self._db.many("DELETE FROM items WHERE id = ?", [(slot.id,) for slot in slots])
        self._history.end({(slot.target, slot.item_class) for slot in slots})
        for slot in slots:
            self._count(slot, -1)
            if slot.refs:
                self._blocks.release(split_refs(slot.refs), now_s)

    # --- shared ---------------------------------------------------------------------------------

    def _slots(self, targets: Iterable[bytes]) -> dict[Key, Slot]:
        slots: dict[Key, Slot] = {}
        for part in chunks(list(dict.fromkeys(targets))):
            statement = f"SELECT {SLOT_COLUMNS} FROM items WHERE target IN ({marks(len(part))})"
            for row in self._db.rows(statement, tuple(part)):
                slots[row[1], row[2]] = Slot(*row)
        return slots

    def _count(self, slot: Slot, sign: int) -> None:
        self._add(slot.salt, slot.account, sign * slot.size, sign)
        if self._prints.watches(slot.salt):
            self._prints.add(slot.salt, slot.print_row, sign)

    def _add(self, salt: bytes, account: bytes, size: int, sign: int) -> None:
        for changes, name in ((self._salts, salt), (self._signers, account)):
            change = changes.get(name)
            if change is None:
                changes[name] = [sign, size]
            else:
                change[0] += sign
                change[1] += size

    def _moved_to(self, position: int) -> None:
        """Write the counters and the end of the log: the last statements of a call."""
        for table, changes in (("salts", self._salts), ("signers", self._signers)):
            rows = [(name, n, size) for name, (n, size) in changes.items() if n or size]
            self._db.many(
                f"INSERT INTO {table} (name, items, bytes) VALUES (?, ?, ?) ON CONFLICT (name) DO"
                " UPDATE SET items = items + excluded.items, bytes = bytes + excluded.bytes",
                rows,
            )
            gone = [(name,) for name, count, _ in rows if count < 0]
            self._db.many(f"DELETE FROM {table} WHERE name = ? AND items <= 0", gone)
            changes.clear()
        self.position = position
        if self._written != self.mark():
            self._db.execute("UPDATE meta SET position = ?, history_bytes = ?", self.mark())
            self._written = self.mark()

    def mark(self) -> tuple[int, int]:
        """Return what has to be known to undo a call: position and bytes of history."""
        return self.position, self._history.bytes

    def undo(self, mark: tuple[int, int]) -> None:
        """Forget what a call that was rolled back has left in memory."""
        self.position, self._history.bytes = self._written = mark
        self._salts.clear()
        self._signers.clear()
        self._prints.forget()


def _without_repeats(items: Sequence[RankedItem]) -> Iterable[Sequence[RankedItem]]:
    """Yield stretches in which each slot stands once: a repeated one is judged by what it finds."""
    start, seen = 0, set[Key]()
    for i, item in enumerate(items):
        key = (item.target, item.item_class)
        if key in seen:
            yield items[start:i]
            start = i
            seen.clear()
        seen.add(key)
    yield items[start:]


def _change(new: RankedItem, held: Slot | None) -> _Change:
    old = held.refs if held is not None else None
    if not new.refs and not old:
        return _NO_CHANGE
    before = dict.fromkeys(split_refs(old))
    after = dict.fromkeys(new.refs)
    return _Change(
        tuple(after), [n for n in after if n not in before], [n for n in before if n not in after]
    )


def _refusal(new: RankedItem, held: Slot | None, missing: tuple[bytes, ...]) -> PutOutcome | None:
    current = held.current if held else 0
    if held and held.rank == new.rank:
        return PutOutcome(int(Outcome.HELD), current)
    if new.cas is not None and new.cas != current:
        return PutOutcome(CasMismatchError.code, current)
    if held and new.rank < held.rank:
        return PutOutcome(SeqTooLowError.code, held.seq)
    if missing:
        return PutOutcome(int(Outcome.MISSING_BLOCKS), current, missing)
    return None
