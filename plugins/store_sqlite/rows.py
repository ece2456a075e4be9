"""Items as rows, with a checksum that a damaged one does not pass.

Why a checksum: SQLite has none, so a flipped bit in a value would be served as it is. The CRC-32
(zlib) covers the bytes and everything served beside them; what fails is dropped, never served, and
comes back from the peers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from skycore.model.items import Kind, Lease, MutableItem, RankedItem, StoredItem, account_of
from store_sqlite.schema import INTEGER_MAX

__all__ = ["HASH_BYTES", "Slot", "new_row", "seal_lease", "split_refs", "stored_item"]

HASH_BYTES = 32
_CRC = struct.Struct(">I")
_FACTS = struct.Struct(">BQQ")  # class, stored_ns, item_position
_encode = msgspec.msgpack.Encoder().encode
_decode_item = msgspec.msgpack.Decoder(MutableItem).decode
_decode_lease = msgspec.msgpack.Decoder(Lease).decode

Row = Sequence[Any]


class Slot(NamedTuple):
    """What a decision about a slot needs; schema.SLOT_COLUMNS in their order."""

    id: int
    target: bytes
    item_class: int
    rank: bytes
    digest: bytes
    seq: int
    kind: int
    until: int
    salt: bytes
    signer: bytes
    size: int
    tree_bytes: int
    refs: bytes | None

    @property
    def account(self) -> bytes:
        """The account that it counts on."""
        return account_of(self.signer, self.item_class)

    @property
    def print_row(self) -> tuple[bytes, int, bytes, int]:
        """What the slot's fingerprint is made of."""
        return self.target, self.item_class, self.rank, self.until

    @property
    def current(self) -> int:
        """Seq as a writer's `cas` has it: 0 for a tombstone."""
        return 0 if self.kind == Kind.TOMBSTONE else self.seq


def _seal(data: bytes, *facts: bytes) -> bytes:
    return _CRC.pack(zlib.crc32(data, zlib.crc32(b"".join(facts)))) + data


def _open(sealed: bytes, *facts: bytes) -> bytes | None:
    data = sealed[4:]
    return data if _seal(data, *facts) == sealed else None


def new_row(
    new: RankedItem, position: int, tree_bytes: int, refs: Sequence[bytes]
) -> tuple[Any, ...]:
    """Return the values of `items`, from target to refs."""
    item = new.item
    facts = _FACTS.pack(new.item_class, new.admitted_ns, position)
    sealed = _seal(_encode(item), new.target, facts, new.rank, new.digest, new.sender)
    return (
        new.target, new.item_class, new.rank, new.digest, item.signer, item.subject, item.salt,
        item.seq, item.kind, min(item.until, INTEGER_MAX), len(item.v) + tree_bytes, tree_bytes,
        new.admitted_ns, position, position, new.sender, None, sealed,
        b"".join(refs) if refs else None,
    )  # fmt: skip


def seal_lease(lease: Lease) -> bytes:
    """Return a lease as it is kept."""
    return _seal(_encode(lease), lease.digest)


def stored_item(row: Row) -> StoredItem | None:
    """Return the item of a row of schema.COLUMNS, or None where it is damaged."""
    _, target, item_class, rank, digest, sender, stored_ns, arrived, position, lease, item = row
    try:
        facts = _FACTS.pack(item_class, stored_ns, arrived)
        data = _open(item, target, facts, rank, digest, sender)
        if data is None:
            return None
        held = None
        if lease is not None:
            data_of_lease = _open(lease, digest)
            if data_of_lease is None:
                return None
            held = _decode_lease(data_of_lease)
        value = _decode_item(data)
    except (struct.error, TypeError, msgspec.DecodeError):  # a flipped type is damage like others
        return None
    return StoredItem(
        target, item_class, rank, digest, value, sender, stored_ns, arrived, position, held
    )


def split_refs(refs: bytes | None) -> list[bytes]:
    """Return the hashes in a column of `refs`."""
    data = refs or b""
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]
