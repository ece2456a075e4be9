"""From items to what sources tell: records with their bodies, signers and ends.

Why shared: the DHT's own store and a Redis hold the same items, and what of them is a record, and
whose word it is, must not depend on where it was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from skycore.contracts.discovery import Record
from skycore.contracts.namespace import Form, Namespaces
from skycore.errors import NamespaceError
from skycore.model.items import ItemClass, Kind, StoredItem

__all__ = ["best_of_each", "body_of", "is_own_word", "record_of"]


def body_of(namespaces: Namespaces, salt: bytes, value: bytes) -> Any:
    """Return a value as its namespace decodes it; of a set a tuple. Undeclared: its bytes.

    Raises `NamespaceError`.
    """
    namespace = namespaces.find(salt)
    if namespace is None:
        return value
    body = namespace.decode(value)
    return tuple(body) if namespace.form is Form.SET else body


def record_of(
    namespaces: Namespaces, stored: StoredItem, value: bytes | None, source: str
) -> Record | None:
    """Return the record of an item whose whole value is known; a tombstone's has no body.

    None for a value that this node's namespaces do not take.
    """
    item = stored.item
    body = None
    if item.kind != Kind.TOMBSTONE:
        if value is None:
            return None
        try:
            body = body_of(namespaces, item.salt, value)
        except NamespaceError:  # stored under other declarations than ours
            return None
    return Record(item.salt, item.subject, body, item.seq, stored.until, source, item.signer)


def is_own_word(stored: StoredItem) -> bool:
    """Tell whether the subject itself signed an item: what servers take over."""
    return stored.item_class == ItemClass.OWNER and stored.item.signer == stored.item.subject


def best_of_each(rows: Iterable[StoredItem]) -> Iterator[StoredItem]:
    """Yield of each target the item that a read gives: of the highest class. Rows by target."""
    best: StoredItem | None = None
    for row in rows:
        if best is not None and row.target != best.target:
            yield best
            best = None
        if best is None or row.item_class > best.item_class:
            best = row
    if best is not None:
        yield best
