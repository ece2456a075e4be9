"""Items as Redis holds them, and back.

Why records of plain strings: they are what Lua can take apart (Redis' MessagePack knows no bytes),
and what is compared inside Redis (rank, until, seq) is hex of one length, so that comparing text is
comparing numbers. Layout: docs/protocols/redis_schema.md.
"""

from __future__ import annotations

import struct
from binascii import unhexlify
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
    "rows_of",
    "slot_of",
    "stored_item",
]

Row = Sequence[bytes]
"""rank, until, pos, ipos, facts, item, lease, member; of a row that is damaged the member alone."""

ZEROS = b"0" * 16
UNTIL_MAX = 2**64 - 1
_U32 = struct.Struct(">I")
_LENGTHS = struct.Struct(">8I")
_FACTS = 9
SHAPES_MAX = 10_000
_shapes: dict[tuple[int, ...], struct.Struct] = {}
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


def rows_of(lengths: bytes, strings: Sequence[bytes]) -> list[Row]:
    """Return the rows of a reply: each came as one string. Raises struct.error."""
    rows: list[Row] = []
    for text, (a, b, c, d, e, f, g, _) in zip(strings, _LENGTHS.iter_unpack(lengths), strict=True):
        if not a:
            rows.append((text,))
            continue
        b += a
        c += b
        d += c
        e += d
        f += e
        g += f
        rows.append((text[:a], text[a:b], text[b:c], text[c:d], text[d:e], text[e:f], text[f:g],
                     text[g:]))  # fmt: skip
    return rows


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
    return unhexlify(member[:64]), int(member[65:])


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


def _facts(data: bytes, value: MutableItem, item_class: int) -> tuple[bytes, bytes, bytes] | None:
    """Return digest, sender and time of a row's facts; None where they are not the item's.

    How long each part is follows from the item, so that one look takes all of them apart: a reader
    of the whole log does little else. Raises ValueError, struct.error.
    """
    account = account_of(value.signer, item_class)
    lengths = (len(value.salt), len(account), len(value.subject), len(value.signer), len(data))
    shape = _shapes.get(lengths) or _shape(lengths)
    if shape is not None:
        (n1, salt, n2, account_is, n3, subject, n4, kind, n5, digest, n6, sender, n7, stored, n8, _,
         n9, size) = shape.unpack(data)  # fmt: skip
        is_that = (n1, n2, n3, n6, n4, n5, n7, n8, n9) == (*lengths[:4], 1, 32, 19, 16, len(size))
    else:
        is_that = False
    if not is_that:
        salt, account_is, subject, kind, digest, sender, stored, _, size = _split(data, _FACTS)
    is_the_items = (
        account_is == account
        and salt == value.salt
        and subject == value.subject
        and int(kind) == value.kind
        and int(size) == len(value.v)
    )
    return (digest, sender, stored) if is_the_items else None


def _shape(lengths: tuple[int, ...]) -> struct.Struct | None:
    """Return how facts of such lengths lie, as this program writes them; None for other ones."""
    salt, account, subject, signer, whole = lengths
    size = whole - (9 * 4 + salt + account + subject + 1 + 32 + signer + 19 + 16)
    if not 0 < size < 10:
        return None
    parts = (salt, account, subject, 1, 32, signer, 19, 16, size)
    if len(_shapes) >= SHAPES_MAX:
        _shapes.clear()
    found = _shapes[lengths] = struct.Struct(">" + "".join(f"I{n}s" for n in parts))
    return found


def stored_item(row: Row) -> StoredItem | None:
    """Return the item of a row, or None where its parts do not belong together.

    A row's signature is the gate's to check; here it only has to be what was written.
    """
    if len(row) != 8:
        return None
    rank, until, pos, ipos, data, item, lease, member = row
    try:
        target, item_class = slot_of(member)
        value = _decode_item(item)
        facts = _facts(data, value, item_class)
        if facts is None:
            return None
        digest, sender, stored = facts
        held = _decode_lease(lease) if lease else None
        found = StoredItem(
            target, item_class, unhexlify(rank), digest, value, sender,
            int(stored), int(ipos), int(pos), held,
        )  # fmt: skip
        if until and int(until, 16) != min(found.until, UNTIL_MAX):
            return None
    except (struct.error, ValueError, msgspec.DecodeError):
        return None
    return found
