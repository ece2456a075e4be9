"""Items as plain JSON for people and programs, and the texts by which they name salts and seqs.

Why apart from the methods: a listing, a history and a stream of changes show the same thing. A
value in blocks is shown by its manifest (count and bytes); its bytes are fetched with dht.value.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dht_kademlia.rpc.models import ItemView
from dht_kademlia.status import salt_text
from skycore.contracts.namespace import Form, Namespaces
from skycore.contracts.runtime import Clock
from skycore.errors import NamespaceError, RpcError
from skycore.jsonrpc import ErrorCode
from skycore.model.items import ItemClass, Kind, MutableItem, StoredItem
from skycore.model.limits import SALT_MAX, SEQ_MAX
from skycore.model.trie import read_manifest

__all__ = ["Views", "invalid", "read_hex", "read_salt", "read_seq"]


class Views:
    """Shows items, their values as the declared namespaces read them."""

    def __init__(self, namespaces: Namespaces, clock: Clock) -> None:
        self._namespaces = namespaces
        self._clock = clock

    def show(self, stored: StoredItem, *, brief: bool = False) -> ItemView:
        """Return the view. Raises `NamespaceError` where the value does not read as it should.

        `brief` leaves the value out, and looks at no more of it than its size.
        """
        item = stored.item
        in_blocks = item.kind == Kind.MANIFEST
        manifest = read_manifest(item.v) if in_blocks else None
        value = None if brief or in_blocks else self._value(item)
        namespace = self._namespaces.find(item.salt)
        entries = manifest.count if manifest else len(value) if isinstance(value, list) else None
        issuer = item.delegation
        return ItemView(
            stored.target.hex(),
            item.subject.hex(),
            salt_text(item.salt),
            item.signer.hex(),
            ItemClass(stored.item_class).name.lower(),
            Kind(item.kind).name.lower(),
            str(item.seq),
            stored.until,
            stored.stored_ns / 1e9,
            stored.sender.hex(),
            "" if brief else item.v.hex(),
            value,
            digest=stored.digest.hex(),
            size=manifest.bytes if manifest else len(item.v),
            entries=entries if namespace is not None and namespace.form is Form.SET else None,
            in_blocks=in_blocks,
            declared=namespace is not None,
            issuer=issuer.issuer.hex() if issuer else "",
            issued_until=issuer.until if issuer else 0,
            leased=stored.until > item.until,
            age_s=round(max(0.0, (self._clock.wall_ns() - stored.stored_ns) / 1e9), 3),
        )

    def show_any(self, stored: StoredItem) -> ItemView:
        """Return the view, without the value where it cannot be read: its bytes say it all."""
        try:
            return self.show(stored)
        except NamespaceError:
            view = self.show(stored, brief=True)
            return msgspec.structs.replace(view, value_hex=stored.item.v.hex())

    def _value(self, item: MutableItem) -> Any:
        if item.kind != Kind.VALUE:
            return None
        namespace = self._namespaces.find(item.salt)
        if namespace is not None:
            return namespace.to_json(item.v)
        try:
            return item.v.decode()
        except UnicodeDecodeError:
            return None


def read_salt(text: str) -> bytes:
    """Return a salt given as text or hex:…; raises `RpcError`."""
    salt = read_hex(text[4:]) if text.startswith("hex:") else text.encode()
    if len(salt) > SALT_MAX:
        raise invalid(f"a salt has {SALT_MAX} bytes at most")
    return salt


def read_hex(text: str) -> bytes:
    """Return the bytes; raises `RpcError`."""
    try:
        return bytes.fromhex(text)
    except ValueError as bad:
        raise invalid(f"{text[:40]!r} is not hexadecimal") from bad


def read_seq(text: str | None) -> int | None:
    """Return a seq, None for none; raises `RpcError`."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > SEQ_MAX:
        raise invalid(f"{text[:40]!r} is no seq")
    return int(text)


def invalid(message: str, hint: str = "") -> RpcError:
    """Return the error for parameters that do not fit."""
    return RpcError(message, code=ErrorCode.INVALID_PARAMS, hint=hint)
