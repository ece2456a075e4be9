"""Facts as JSON: what methods take that publish records, or compare them.

Why here: a mirror without a DHT publishes the same rows as a visor, and a node compares them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact
from skycore.errors import NamespaceError, RpcError
from skycore.jsonrpc.messages import ErrorCode
from skycore.model.limits import SALT_MAX, SUBJECT_MAX

__all__ = ["FACTS_MAX", "FactRow", "HexKey", "SaltText", "fact_of"]

FACTS_MAX = 1_000
"""Facts in one call; its bound in bytes is RPC_FRAME_MAX."""
SaltText = Annotated[str, Meta(max_length=2 * SALT_MAX + 4)]
HexKey = Annotated[str, Meta(max_length=2 * SUBJECT_MAX, pattern="^([0-9a-f]{2})*$")]


class FactRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fact: the body of a declared namespace as JSON; the subject is ours if none is named."""

    salt: SaltText
    json: Any = msgspec.UNSET
    subject: HexKey = ""
    delete: bool = False
    """Instead of a body: this record is no more."""


def fact_of(namespaces: Namespaces, row: FactRow) -> Fact:
    """Return a row as a fact, encoded. Raises `RpcError` for what does not fit."""
    namespace = namespaces.find(row.salt.encode())
    if namespace is None:
        raise RpcError(
            f"no active plugin declares the salt {row.salt!r}", code=ErrorCode.INVALID_PARAMS,
            hint="enable the plugin that declares it, for example namespaces_skywire",
        )  # fmt: skip
    subject = bytes.fromhex(row.subject) or None
    if row.delete is (row.json is not msgspec.UNSET):
        raise RpcError(
            f"subject {row.subject[:16]}…: give either json or delete",
            code=ErrorCode.INVALID_PARAMS,
        )
    if row.delete:
        return Fact(namespace.salt, None, subject)
    try:
        value = namespace.from_json(row.json)
    except NamespaceError as bad:
        raise RpcError(
            f"subject {row.subject[:16]}…: {bad}", code=ErrorCode.INVALID_PARAMS
        ) from bad
    return Fact(namespace.salt, value, subject)
