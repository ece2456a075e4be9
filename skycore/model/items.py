"""Items: signed mutable records, and the pure rules that decide which of two is right.

Why so much is signed: network, signer, subject, salt, seq, kind, lifetime and value all stand in
the signed bytes, so an item cannot be replayed under another subject, salt or network. Why a rank:
a total order that depends on nothing but the item makes every store that saw the same items hold
the same bytes, whatever the order of arrival (docs/protocols/items.md). After BEP 44.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum

import msgspec

from skycore.model.keys import KeySuite, PubKey, SecretKey
from skycore.model.network import NetworkConstants, tagged

__all__ = [
    "Cursor",
    "Delegation",
    "ItemClass",
    "Kind",
    "Lease",
    "MutableItem",
    "RankedItem",
    "StoredItem",
    "account_of",
    "delegation_bytes",
    "item_digest",
    "item_rank",
    "item_signed_bytes",
    "lease_bytes",
    "make_delegation",
    "make_item",
    "make_lease",
    "mutable_item_target",
]

_U64 = struct.Struct(">Q")
_TAIL = struct.Struct(">QBQI")  # seq, kind, until, length of v
_INVERTED = bytes(range(255, -1, -1))
"""2^256-1 - x is x with every bit turned: a table of bytes does it."""


class Kind(IntEnum):
    """What an item says: a value, that there is none any more, or where its blocks begin."""

    VALUE = 0
    TOMBSTONE = 1
    MANIFEST = 2


class ItemClass(IntEnum):
    """By what right the signer speaks. Higher wins a read; order of arrival never matters."""

    MIRROR = 1
    DELEGATE = 2
    OWNER = 3


class Delegation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The right to sign for somebody else under one salt, until a Unix second.

    Issued by a subject for itself (class delegate), or by the network's authority for any subject
    (class mirror).
    """

    issuer: bytes
    delegate: bytes
    salt: bytes
    until: int
    sig: bytes = b""


class MutableItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A signed record as it crosses the wire: BEP 44's words, our own signed bytes."""

    signer: bytes
    subject: bytes
    salt: bytes
    seq: int
    kind: int
    until: int
    v: bytes
    sig: bytes = b""
    delegation: Delegation | None = None

    @property
    def target(self) -> bytes:
        """The 32-byte place of this item in the id space."""
        return mutable_item_target(self.subject, self.salt)


class Lease(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A longer life for an item that did not change: about 150 bytes, and no new item signature."""

    target: bytes
    item_class: int
    digest: bytes
    until: int
    sig: bytes = b""


class RankedItem(msgspec.Struct, frozen=True, gc=False):
    """An item that passed the gate, with everything a store needs to place it."""

    target: bytes
    item_class: int
    rank: bytes
    digest: bytes
    item: MutableItem
    sender: bytes
    """Through whom it came: the authenticated peer, or our own key."""
    admitted_ns: int
    cas: int | None = None
    """Expected seq of the same class; 0 for absent or deleted; None for no expectation."""
    refs: tuple[bytes, ...] = ()
    """Hashes of the blocks that the item's value stands on."""

    @property
    def account(self) -> bytes:
        """The account that it counts on."""
        return account_of(self.item.signer, self.item_class)


class StoredItem(msgspec.Struct, frozen=True, gc=False):
    """An item at rest."""

    target: bytes
    item_class: int
    rank: bytes
    digest: bytes
    item: MutableItem
    sender: bytes
    stored_ns: int
    """Unix nanoseconds of its admission here, kept over restarts."""
    item_position: int
    """Place in the change log at which this item's bytes arrived."""
    position: int
    """Place of its latest change: the same, or that of its newest lease."""
    lease: Lease | None = None
    assembled: bytes | None = None
    """Of a manifest, where a reader has put it together: the whole value, as if it stood in `v`."""

    @property
    def value(self) -> bytes | None:
        """Return the whole value: None of a tombstone, and of a manifest not put together."""
        if self.item.kind == Kind.VALUE:
            return self.item.v
        return self.assembled if self.item.kind == Kind.MANIFEST else None

    @property
    def until(self) -> int:
        """Unix second at which it ends: the item's own, or its lease's."""
        return max(self.item.until, self.lease.until) if self.lease else self.item.until


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """A place in one store's change log. Opaque on the wire: store id (16 bytes) ‖ u64."""

    store_id: bytes
    position: int

    def encode(self) -> bytes:
        """Return the 24 bytes that a peer hands back unread."""
        return self.store_id + _U64.pack(self.position)

    @classmethod
    def decode(cls, data: bytes) -> Cursor | None:
        """Return the cursor, or None where the bytes are none."""
        if len(data) != 24:
            return None
        return cls(data[:16], _U64.unpack_from(data, 16)[0])


def account_of(signer: bytes, item_class: int) -> bytes:
    """Return the account, for quotas, of a signer's items of a class.

    Why two: what a mirror signs for others has a bound of its own, and must not use up what the
    same key may say of itself.
    """
    return signer + b"*" if item_class == ItemClass.MIRROR else signer


def mutable_item_target(subject: bytes, salt: bytes = b"") -> bytes:
    """Return where items of this subject and salt live: SHA256(subject ‖ salt), 32 bytes."""
    return hashlib.sha256(subject + salt).digest()


def _prefixed(*parts: bytes) -> bytes:
    return b"".join(bytes((len(part),)) + part for part in parts)


def item_signed_bytes(network: NetworkConstants, item: MutableItem) -> bytes:
    """Return what an item's signature covers. Every variable part has its length before it."""
    return b"".join(
        (
            b"skycore/item/1\0",
            network.id,
            bytes((len(item.signer),)),
            item.signer,
            bytes((len(item.subject),)),
            item.subject,
            bytes((len(item.salt),)),
            item.salt,
            _TAIL.pack(item.seq, item.kind, item.until, len(item.v)),
            item.v,
        )
    )


def item_digest(signed: bytes) -> bytes:
    """Return SHA256(signed bytes): how a lease names an item."""
    return hashlib.sha256(signed).digest()


def item_rank(seq: int, signed: bytes, sig: bytes) -> bytes:
    """Return seq ‖ (2^256-1 - SHA256(signed bytes ‖ sig)): 40 bytes, compared bytewise."""
    return _U64.pack(seq) + hashlib.sha256(signed + sig).digest().translate(_INVERTED)


def delegation_bytes(network: NetworkConstants, delegation: Delegation) -> bytes:
    """Return what a delegation's signature covers."""
    head = tagged("skycore/delegation/1", network)
    body = _prefixed(delegation.issuer, delegation.delegate, delegation.salt)
    return head + body + _U64.pack(delegation.until)


def lease_bytes(network: NetworkConstants, digest: bytes, until: int) -> bytes:
    """Return what a lease's signature covers."""
    return tagged("skycore/lease/1", network) + digest + _U64.pack(until)


def make_item(
    network: NetworkConstants,
    secret: SecretKey,
    *,
    salt: bytes,
    seq: int,
    until: int,
    v: bytes = b"",
    subject: bytes | None = None,
    kind: Kind = Kind.VALUE,
    delegation: Delegation | None = None,
) -> MutableItem:
    """Sign an item; the subject is the signer unless another is named."""
    suite: KeySuite = network.suite
    signer: PubKey = suite.public(secret)
    item = MutableItem(signer, subject or signer, salt, seq, int(kind), until, v, b"", delegation)
    sig = suite.sign(secret, item_signed_bytes(network, item))
    return msgspec.structs.replace(item, sig=sig)


def make_delegation(
    network: NetworkConstants, issuer: SecretKey, delegate: bytes, salt: bytes, until: int
) -> Delegation:
    """Let `delegate` sign under `salt`: for the issuer, or, issued by the authority, for all."""
    suite = network.suite
    bare = Delegation(suite.public(issuer), delegate, salt, until)
    sig = suite.sign(issuer, delegation_bytes(network, bare))
    return msgspec.structs.replace(bare, sig=sig)


def make_lease(
    network: NetworkConstants, secret: SecretKey, stored: StoredItem | RankedItem, until: int
) -> Lease:
    """Raise the end of an item's life without signing its content again."""
    sig = network.suite.sign(secret, lease_bytes(network, stored.digest, until))
    return Lease(stored.target, stored.item_class, stored.digest, until, sig)
