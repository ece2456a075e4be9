"""What is written: each call one transaction, each kind of row one `executemany`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from skycore.contracts.store import ItemKey, Outcome, PutOutcome
from skycore.errors import CasMismatchError, SeqTooLowError
from skycore.model.items import Kind, Lease, RankedItem
from skycore.model.prints import Prints
from store_sqlite.blocks import BlockTable
from store_sqlite.database import Database
from store_sqlite.reader import chunks
from store_sqlite.rows import Slot, new_row, seal_lease, split_refs
from store_sqlite.schema import COLUMNS, INTEGER_MAX, SLOT_COLUMNS, marks

__all__ = ["SWEEP_ROWS", "Writer"]

Key = tuple[bytes, int]
SWEEP_ROWS = 2_000
"""Slots dropped in one transaction: other calls come in between."""
_WRITTEN = (
    "target, class, rank, digest, signer, subject, salt, seq, kind, until, bytes, stored_ns,"
    " item_position, position, sender, lease, item, refs"
)
_INSERT = f"INSERT INTO items ({_WRITTEN}) VALUES ({marks(18)})"
_UPDATE = f"UPDATE items SET ({_WRITTEN}) = ({marks(18)}) WHERE id = ?"
_KEPT = COLUMNS.removeprefix("id, ")
_REMEMBER = f"INSERT INTO history ({_KEPT}) SELECT {_KEPT} FROM items WHERE id = ?"
_FORGET_OLDEST = (
    "DELETE FROM history WHERE target = ?1 AND class = ?2 AND item_position <= "
    "(SELECT item_position FROM history WHERE target = ?1 AND class = ?2"
    " ORDER BY item_position DESC LIMIT 1 OFFSET ?3)"
)


class Writer:
    """The writing half of the store. `position` is the end of the change log as committed."""

    def __init__(self, database: Database, prints: Prints, versions_max: int) -> None:
        self._db = database
        self._prints = prints
        self._blocks = BlockTable(database)
        self._versions_max = versions_max
        self._salts: dict[bytes, list[int]] = {}
        self._signers: dict[bytes, list[int]] = {}
        self.position = 0

    def load(self) -> bytes:
        """Read where the log ends; return the store's id."""
        [(store_id, self.position)] = self._db.rows("SELECT store_id, position FROM meta")
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
        refs = {i: tuple(dict.fromkeys(new.refs)) for i, new in enumerate(items) if new.refs}
        sizes = self._blocks.sizes({name for names in refs.values() for name in names}, given)
        outcomes = []
        stored: list[tuple[RankedItem, Slot | None, tuple[bytes, ...]]] = []
        for i, new in enumerate(items):
            held = slots.get((new.target, new.item_class))
            names = refs.get(i, ())
            outcome = _refusal(new, held, tuple(n for n in names if n not in sizes))
            if outcome is None:
                stored.append((new, held, names))
                seq = 0 if new.item.kind == Kind.TOMBSTONE else new.item.seq
                outcome = PutOutcome(0, seq)
            outcomes.append(outcome)
        if stored:
            self._write(stored, sizes, given)
        return outcomes

    def _write(
        self,
        stored: Sequence[tuple[RankedItem, Slot | None, tuple[bytes, ...]]],
        sizes: Mapping[bytes, int],
        given: Mapping[bytes, bytes],
    ) -> None:
        inserts, updates, replaced = [], [], []
        position = self.position
        for new, held, names in stored:
            position += 1
            size = len(new.item.v) + sum(sizes[name] for name in names)
            row = new_row(new, position, size, names)
            if held is None:
                inserts.append(row)
            else:
                updates.append((*row, held.id))
                replaced.append(held)
                self._count(held, -1)
            self._add(new.item.salt, new.item.signer, size, 1)
            if self._prints.watches(new.item.salt):
                until = min(new.item.until, INTEGER_MAX)
                self._prints.add(new.item.salt, (new.target, new.item_class, new.rank, until), 1)
        self._remember(replaced)
        self._db.many(_INSERT, inserts)
        self._db.many(_UPDATE, updates)
        self._blocks.hold((name for _, _, names in stored for name in names), given)
        for new, held, _ in stored:
            if held is not None and held.refs:
                self._blocks.release(split_refs(held.refs), new.admitted_ns // 10**9)
        self._moved_to(position)

    def _remember(self, replaced: Sequence[Slot]) -> None:
        if not self._versions_max:
            return
        self._db.many(_REMEMBER, [(held.id,) for held in replaced])
        keep = self._versions_max
        self._db.many(_FORGET_OLDEST, [(held.target, held.item_class, keep) for held in replaced])

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

    def drop(self, keys: Sequence[ItemKey]) -> int:
        """Forget slots, inside a transaction."""
        slots = self._slots(key.target for key in keys)
        found = {tuple(key): slots[key] for key in keys if key in slots}
        self._remove(list(found.values()), None)
        self._moved_to(self.position)
        return len(found)

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
        for table, column in (("salts", "salt"), ("signers", "signer")):
            self._db.execute(f"DELETE FROM {table}")
            self._db.execute(
                f"INSERT INTO {table} (name, items, bytes)"
                f" SELECT {column}, count(*), sum(bytes) FROM items GROUP BY {column}"
            )
        self._db.execute(
            "DELETE FROM history WHERE NOT EXISTS (SELECT 1 FROM items"
            " WHERE items.target = history.target AND items.class = history.class)"
        )
        self._blocks.recount()
        self._prints.forget()

    def _remove(self, slots: Sequence[Slot], now_s: int | None) -> None:
        self._db.many("DELETE FROM items WHERE id = ?", [(slot.id,) for slot in slots])
        self._db.many(
            "DELETE FROM history WHERE target = ? AND class = ?",
            [(slot.target, slot.item_class) for slot in slots],
        )
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
        self._add(slot.salt, slot.signer, sign * slot.size, sign)
        if self._prints.watches(slot.salt):
            self._prints.add(slot.salt, slot.print_row, sign)

    def _add(self, salt: bytes, signer: bytes, size: int, sign: int) -> None:
        for changes, name in ((self._salts, salt), (self._signers, signer)):
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
        if position != self.position:
            self._db.execute("UPDATE meta SET position = ?", (position,))
            self.position = position

    def undo(self, position: int) -> None:
        """Forget what a call that was rolled back has left in memory."""
        self.position = position
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
