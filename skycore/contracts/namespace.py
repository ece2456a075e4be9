"""Namespaces: what a salt means. Values of a declaration, no behaviour of their own.

Why declared: six encodings of one record lived side by side in the original network. Here a salt
has one schema with one version, and a value that does not fit is refused on every path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

import msgspec

from skycore.errors import NamespaceError, PluginConflictError
from skycore.model.blocks import Entry
from skycore.model.items import ItemClass
from skycore.model.limits import SET_INLINE_MAX, VALUE_MAX
from skycore.model.manifest import Get, Manifest, Tree, get_block
from skycore.model.pieces import check_value, plant_value
from skycore.model.trie import Proven, check_set, is_set, plant_set

__all__ = ["Form", "Namespace", "Namespaces"]


class Form(Enum):
    """Whether a record is one value or a set of entries."""

    SINGLE = "single"
    SET = "set"


@dataclass(frozen=True)
class Namespace:
    """Declare a salt: who may sign it, how long it lives, and what its values are.

    A value is MessagePack `[version, body]`, and `schema` is the msgspec type of `body` (for a set:
    of one entry, and the body is an array of them, in order of their keys, each key once: one set
    has one encoding).
    """

    salt: bytes
    version: int
    schema: type
    form: Form
    lifetimes_s: Mapping[ItemClass, int]
    """Longest life of an item by class, seconds. A class that is not listed may not sign."""
    summary: str = ""
    key: Callable[[Any], bytes] | None = None
    """Of a set: what tells its entries apart. None: an entry's encoding."""
    check: Callable[[bytes, Any], None] | None = None
    """A rule that the schema cannot say: takes subject and body, raises `NamespaceError`. Pure.

    Of a set it is asked about any part of the entries: a rule about each of them.
    """

    def __post_init__(self) -> None:
        body: Any = self.schema if self.form is Form.SINGLE else list[self.schema]  # type: ignore[name-defined]
        object.__setattr__(self, "_body", body)
        object.__setattr__(self, "_decoder", msgspec.msgpack.Decoder(tuple[int, body]))
        encoder = msgspec.msgpack.Encoder(order="sorted")
        object.__setattr__(self, "_entry", msgspec.msgpack.Decoder(self.schema))
        object.__setattr__(self, "_encoder", encoder)
        object.__setattr__(self, "_key", self.key or encoder.encode)

    def decode(self, value: bytes) -> Any:
        """Return the body. Raises `NamespaceError` where value, version or schema do not fit."""
        try:
            version, body = self._decoder.decode(value)  # type: ignore[attr-defined]
        except (msgspec.DecodeError, UnicodeError, RecursionError) as bad:
            raise NamespaceError(
                f"not a value of namespace {self._name}: {bad}",
                hint=f"a value is [{self.version}, body]; see `skynode plugins`",
            ) from bad
        if version != self.version:
            raise NamespaceError(
                f"namespace {self._name} is at version {self.version}, not {version}"
            )
        if self.form is Form.SET:
            keys = [self._key(entry) for entry in body]  # type: ignore[attr-defined]
            if any(one >= other for one, other in pairwise(keys)):
                raise NamespaceError(
                    f"the entries of a value of namespace {self._name} are not in order, each once"
                )
        return body

    def encode(self, body: Any) -> bytes:
        """Return the one encoding of a body. Of entries with one key in a set the last counts."""
        if self.form is Form.SET:
            by_key = {self._key(entry): entry for entry in body}  # type: ignore[attr-defined]
            body = [by_key[key] for key in sorted(by_key)]
        return bytes(self._encoder.encode((self.version, body)))  # type: ignore[attr-defined]

    def plant(self, value: bytes) -> Tree | None:
        """Return a value's manifest and blocks; None where it stands inline.

        Raises `NamespaceError` for what does not fit, `ValueTooBigError` for what fits nowhere.
        """
        if len(value) <= self.inline_max:
            return None
        body = self.decode(value)
        if self.form is Form.SINGLE:
            return plant_value(value, self.version)
        if self.encode(body) != value:
            raise NamespaceError(f"a set of namespace {self._name} is not in its one encoding")
        encode, key = self._encoder.encode, self._key  # type: ignore[attr-defined]
        return plant_set(self.version, [(key(e), encode(e)) for e in body], len(value))

    def check_tree(
        self, subject: bytes, manifest: Manifest, get: Get, known: Proven | None = None
    ) -> None:
        """Check all of a manifest's content under this schema.

        Subtrees of a set that `known` has are believed and not asked for: one change of 5,000
        entries decodes the blocks above it and nothing else, so ask `trie.reach` first whether all
        blocks are there. Raises `NamespaceError`, `MissingBlocksError`.
        """
        if manifest.version != self.version:
            raise NamespaceError(
                f"namespace {self._name} is at version {self.version}, not {manifest.version}"
            )
        _check_form(manifest, get, self.form)
        if self.form is Form.SINGLE:
            body = self.decode(check_value(manifest, get))
            if self.check is not None:
                self.check(subject, body)
            return
        scope = _scope(True, self.salt, subject if self.check is not None else b"")
        check_set(manifest, get, lambda entries: self._check_leaf(subject, entries), known, scope)

    def _check_leaf(self, subject: bytes, entries: Sequence[Entry]) -> None:
        body = []
        for key, value in entries:
            try:
                body.append(self._entry.decode(value))  # type: ignore[attr-defined]
            except (msgspec.DecodeError, UnicodeError, RecursionError) as bad:
                raise NamespaceError(f"not an entry of namespace {self._name}: {bad}") from bad
            if self._encoder.encode(body[-1]) != value:  # type: ignore[attr-defined]
                raise NamespaceError(f"an entry of {self._name} is not in its one encoding")
            if self._key(body[-1]) != key:  # type: ignore[attr-defined]
                raise NamespaceError(f"an entry of {self._name} stands under a key not its own")
        if self.check is not None:
            self.check(subject, body)

    @property
    def inline_max(self) -> int:
        """Return the largest value that stands in the item itself, bytes."""
        return VALUE_MAX if self.form is Form.SINGLE else SET_INLINE_MAX

    def from_json(self, body: Any) -> bytes:
        """Return the value for a body given as plain JSON data. Raises `NamespaceError`."""
        try:
            return self.encode(msgspec.convert(body, self._body, strict=False))  # type: ignore[attr-defined]
        except (msgspec.ValidationError, UnicodeError, RecursionError) as bad:
            raise NamespaceError(f"does not fit namespace {self._name}: {bad}") from bad

    def to_json(self, value: bytes) -> Any:
        """Return the body as plain JSON data."""
        return msgspec.to_builtins(self.decode(value), str_keys=True)

    @property
    def _name(self) -> str:
        return repr(self.salt.decode(errors="backslashreplace"))


def _scope(is_declared: bool, salt: bytes, subject: bytes = b"") -> bytes:
    """Return under what a proven subtree is believed again: never under another set of rules.

    Salts are strangers' bytes, so the parts are told apart by their lengths.
    """
    return bytes((is_declared, len(salt))) + salt + subject


def _check_form(manifest: Manifest, get: Get, form: Form | None) -> None:
    """Check that a tree is of this form (None: of any), and too large to stand inline."""
    found = Form.SET if is_set(get_block(manifest.root, get)) else Form.SINGLE
    if form is not None and found is not form:
        raise NamespaceError(f"a manifest of a {found.value} where a {form.value} belongs")
    most = SET_INLINE_MAX if found is Form.SET else VALUE_MAX
    if manifest.bytes <= most:
        raise NamespaceError(f"a {found.value} of {manifest.bytes} bytes stands inline")


UNKNOWN_LIFETIMES_S = {ItemClass.OWNER: 7_200}


class Namespaces:
    """All declared salts of a node. An undeclared one is kept as it is: owner only, 2 h, no schema.

    So a stranger's plugin replicates through nodes that do not have it.
    """

    def __init__(self, declared: Iterable[Namespace] = ()) -> None:
        self._by_salt: dict[bytes, Namespace] = {}
        for namespace in declared:
            if namespace.salt in self._by_salt:
                raise PluginConflictError(f"two plugins claim the salt {namespace.salt!r}")
            self._by_salt[namespace.salt] = namespace

    def __iter__(self) -> Iterator[Namespace]:
        return iter(self._by_salt.values())

    def find(self, salt: bytes) -> Namespace | None:
        """Return the declaration of a salt, or None."""
        return self._by_salt.get(salt)

    def check(self, salt: bytes, subject: bytes, value: bytes) -> None:
        """Check a value that stands inline in an item. Raises `NamespaceError`."""
        namespace = self._by_salt.get(salt)
        if namespace is None:
            return
        if len(value) > namespace.inline_max:
            raise NamespaceError(
                f"{len(value)} bytes inline under {salt!r}: over {namespace.inline_max} they "
                "stand in blocks"
            )
        body = namespace.decode(value)
        if namespace.check is not None:
            namespace.check(subject, body)

    def plant(self, salt: bytes, subject: bytes, value: bytes) -> Tree | None:
        """Check a value; return its manifest and blocks, None where it stands inline.

        Raises `NamespaceError`, `ValueTooBigError`.
        """
        namespace = self._by_salt.get(salt)
        if namespace is None:
            return plant_value(value) if len(value) > VALUE_MAX else None
        if len(value) <= namespace.inline_max:
            self.check(salt, subject, value)
            return None
        tree = namespace.plant(value)
        if namespace.check is not None:
            namespace.check(subject, namespace.decode(value))
        return tree

    def check_tree(
        self,
        salt: bytes,
        subject: bytes,
        manifest: Manifest,
        get: Get,
        known: Proven | None = None,
    ) -> None:
        """Check all of a manifest's content; as `Namespace.check_tree`.

        Under an undeclared salt: the one shape of a set or of a plain value, of any version.
        """
        namespace = self._by_salt.get(salt)
        if namespace is not None:
            return namespace.check_tree(subject, manifest, get, known)
        _check_form(manifest, get, None)
        if is_set(get_block(manifest.root, get)):
            return check_set(manifest, get, None, known, _scope(False, salt))
        check_value(manifest, get)
        return None

    def lifetime_s(self, salt: bytes, item_class: int) -> int:
        """Return the longest life of an item, seconds; 0 where the class may not sign."""
        namespace = self._by_salt.get(salt)
        lifetimes = namespace.lifetimes_s if namespace else UNKNOWN_LIFETIMES_S
        return lifetimes.get(ItemClass(item_class), 0)
