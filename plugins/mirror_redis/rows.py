"""Items as Redis holds them, and back.

Why records of plain strings: they are what Lua can take apart (Redis' MessagePack knows no bytes),
and what is compared inside Redis (rank, until, seq) is hex of one length, so that comparing text is
comparing numbers. Layout: docs/protocols/redis_schema.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from skycore.model.items import Lease, MutableItem, RankedItem, StoredItem, account_of

__all__ = [
    "ZEROS",
    "hex64",
    "item_bytes",
    "lease_bytes",
    "lease_record",
    "member_of",
    "number",
    "put_record",
    "record",
    "slot_of",
    "stored_item",
]

Row = Sequence[bytes]
"""member, rank, until, pos, ipos, facts, item, lease; of a row that is damaged the member alone."""

ZEROS = b"0" * 16
UNTIL_MAX = 2**64 - 1
_U32 = struct.Struct(">I")
_FACTS = 9
item_bytes = msgspec.msgpack.Encoder().encode
lease_bytes = item_bytes
_decode_item = msgspec.msgpack.Decoder(MutableItem).decode
_decode_lease = msgspec.msgpack.Decoder(Lease).decode


def record(*fields: bytes) -> bytes:
    """Return strings as one, each with its length before it."""
    pack = _U32.pack
    return b"".join([part for field in fields for part in (pack(len(field)), field)])


def _split(data: bytes, count: int) -> list[bytes]:
    """Return the strings of a record. Raises ValueError, struct.error."""
    fields, at = [], 0
    for _ in range(count):
        (size,) = _U32.unpack_from(data, at)
        at += 4 + size
        if at > len(data):
            raise ValueError("a record that ends too soon")
        fields.append(data[at - size : at])
    return fields


def hex64(value: int) -> bytes:
    """Return 16 hex digits."""
    return b"%016x" % min(max(value, 0), UNTIL_MAX)


def number(value: int) -> bytes:
    """Return decimal digits."""
    return b"%d" % value


def member_of(target: bytes, item_class: int) -> bytes:
    """Return a slot's name: `<64 hex target>:<class>`."""
    return b"%s:%d" % (target.hex().encode(), item_class)


def slot_of(member: bytes) -> tuple[bytes, int]:
    """Return target and class of a name. Raises ValueError."""
    return bytes.fromhex(member[:64].decode("ascii")), int(member[65:])


def put_record(new: RankedItem, writer: bytes) -> bytes:
    """Return what put.lua needs to know of an item."""
    item = new.item
    facts = record(
        item.salt, new.account, item.subject, number(item.kind), new.digest, new.sender,
        number(new.admitted_ns), writer, number(len(item.v)),
    )  # fmt: skip
    return record(
        member_of(new.target, new.item_class),
        new.rank.hex().encode(),
        hex64(item.until),
        b"" if new.cas is None else hex64(new.cas),
        b"".join(new.refs),
        number(new.admitted_ns // 10**9),
        facts,
        item_bytes(item),
    )


def lease_record(lease: Lease) -> bytes:
    """Return what renew.lua needs to know of a lease."""
    member = member_of(lease.target, lease.item_class)
    return record(member, lease.digest, hex64(lease.until), lease_bytes(lease))


def stored_item(row: Row) -> StoredItem | None:
    """Return the item of a row, or None where its parts do not belong together.

    A row's signature is the gate's to check; here it only has to be what was written.
    """
    if len(row) != 8:
        return None
    member, rank, until, pos, ipos, facts, item, lease = row
    try:
        target, item_class = slot_of(member)
        salt, account, subject, kind, digest, sender, stored, _, size = _split(facts, _FACTS)
        value = _decode_item(item)
        held = _decode_lease(lease) if lease else None
        found = StoredItem(
            target, item_class, bytes.fromhex(rank.decode("ascii")), digest, value, sender,
            int(stored), int(ipos), int(pos), held,
        )  # fmt: skip
    except (struct.error, ValueError, msgspec.DecodeError):
        return None
    is_whole = (
        (salt, subject) == (value.salt, value.subject)
        and account == account_of(value.signer, item_class)
        and int(kind) == value.kind
        and int(size) == len(value.v)
        and until in (b"", hex64(found.until))
    )
    return found if is_whole else None
