"""What every namespace must be. Inherit `NamespaceContract` and give it `declared`.

```
class TestMine(NamespaceContract):
    @pytest.fixture
    def declared(self):
        return Declared(MINE, bodies=[{"name": "x"}], wrong=[{"name": 5}])
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skycore.contracts.namespace import Form, Namespace
from skycore.errors import NamespaceError
from skycore.model.items import ItemClass
from skycore.model.limits import (
    LEASE_LIFETIME_MAX_S,
    SALT_MAX,
    SET_INLINE_MAX,
    TREE_BYTES_MAX,
    VALUE_MAX,
)
from skycore.model.trie import (
    assembled_bytes,
    harvest,
    plant_set,
    plant_value,
    read_manifest,
)

__all__ = ["Declared", "NamespaceContract"]


@dataclass(frozen=True)
class Declared:
    """A namespace with bodies as plain JSON data: some that fit, some that do not."""

    namespace: Namespace
    bodies: Sequence[Any]
    wrong: Sequence[Any]
    subject: bytes = b"s" * 32
    """Whose records the bodies are, where the namespace checks that."""
    large: Any = None
    """A body that does not stand inline; needed of a set, and of what may have over 64 KiB."""


class NamespaceContract:
    """Tests of a `contracts.namespace.Namespace`."""

    def test_its_salt_and_lifetimes_are_within_limits(self, declared: Declared) -> None:
        """A tombstone must outlive what it deletes, so no lifetime is over a day."""
        namespace = declared.namespace
        assert 1 <= len(namespace.salt) <= SALT_MAX
        assert namespace.version >= 1
        assert namespace.lifetimes_s
        for item_class, lifetime_s in namespace.lifetimes_s.items():
            assert item_class in set(ItemClass)
            assert 1 <= lifetime_s <= LEASE_LIFETIME_MAX_S
        assert namespace.summary

    def test_bodies_go_there_and_back(self, declared: Declared) -> None:
        """JSON, value, body, value: nothing is lost, and one body has one encoding."""
        namespace = declared.namespace
        assert declared.bodies
        for body in declared.bodies:
            value = namespace.from_json(body)
            assert len(value) <= TREE_BYTES_MAX
            decoded = namespace.decode(value)
            assert namespace.encode(decoded) == value
            assert namespace.from_json(namespace.to_json(value)) == value
            if namespace.check is not None:
                namespace.check(declared.subject, decoded)

    def test_small_bodies_stand_inline_and_large_ones_in_blocks(self, declared: Declared) -> None:
        """C20: no value-size cliff; what a reader puts together is what was published."""
        namespace = declared.namespace
        most = SET_INLINE_MAX if namespace.form is Form.SET else VALUE_MAX
        bodies = [*declared.bodies, *([declared.large] if declared.large is not None else [])]
        for body in bodies:
            value = namespace.from_json(body)
            tree = namespace.plant(value)
            assert (tree is None) == (len(value) <= most)
            if tree is not None:
                manifest = read_manifest(tree.manifest)
                namespace.check_tree(declared.subject, manifest, tree.blocks.get)
                assert harvest(manifest, tree.blocks.get) == value
        if namespace.form is Form.SET:
            assert declared.large is not None, "give a body of over 4 KiB"
        if declared.large is not None:
            assert namespace.plant(namespace.from_json(declared.large)) is not None

    def test_a_tree_is_held_to_the_schema(self, declared: Declared) -> None:
        """C22: another version, another form, an entry that does not fit: refused by name."""
        namespace, subject = declared.namespace, declared.subject
        large = None if declared.large is None else namespace.from_json(declared.large)
        plain = plant_value(bytes(VALUE_MAX + 1), namespace.version)
        junk = [(b"%d" % n, b"\xc0" + bytes(600)) for n in range(120)]
        size = assembled_bytes(namespace.version, len(junk), sum(len(v) for _, v in junk))
        trees = [plain, plant_set(namespace.version, junk, size)]
        if large is not None:
            tree = namespace.plant(large)
            assert tree is not None
            other = msgspec.structs.replace(
                read_manifest(tree.manifest), version=namespace.version + 1
            )
            trees += [plant_value(large, namespace.version)] * (namespace.form is Form.SET)
            trees.append(tree._replace(manifest=msgspec.msgpack.encode(other)))
        for tree in trees:
            with pytest.raises(NamespaceError):
                namespace.check_tree(subject, read_manifest(tree.manifest), tree.blocks.get)

    def test_a_tree_of_what_stands_inline_is_refused(self, declared: Declared) -> None:
        """One record has one form."""
        namespace = declared.namespace
        value = namespace.from_json(max(declared.bodies, key=len))
        if namespace.form is Form.SINGLE:
            tree = plant_value(value, namespace.version)
        else:
            body = namespace.decode(value)[:1]
            value = namespace.encode(body)
            (raw,) = msgspec.msgpack.decode(value, type=tuple[int, list[msgspec.Raw]])[1]
            alone = bytes(raw)
            key = namespace.key(body[0]) if namespace.key is not None else alone
            size = assembled_bytes(namespace.version, 1, len(alone))
            tree = plant_set(namespace.version, [(key, alone)], size)
        with pytest.raises(NamespaceError, match="inline"):
            namespace.check_tree(declared.subject, read_manifest(tree.manifest), tree.blocks.get)

    def test_wrong_bodies_are_refused(self, declared: Declared) -> None:
        """By a `NamespaceError` that names the namespace."""
        assert declared.wrong
        for body in declared.wrong:
            with pytest.raises(NamespaceError):
                declared.namespace.from_json(body)

    def test_other_versions_are_refused(self, declared: Declared) -> None:
        """C22: a reader never guesses."""
        namespace = declared.namespace
        value = namespace.from_json(declared.bodies[0])
        version, body = msgspec.msgpack.decode(value)
        for other in (version + 1, 0, -1, None, str(version)):
            with pytest.raises(NamespaceError):
                namespace.decode(msgspec.msgpack.encode((other, body)))

    def test_unknown_fields_are_refused(self, declared: Declared) -> None:
        """What nobody reads is where junk is kept."""
        namespace = declared.namespace
        version, body = msgspec.msgpack.decode(namespace.from_json(declared.bodies[0]))
        for value in ((version, body, 0), (version,), body):
            with pytest.raises(NamespaceError):
                namespace.decode(msgspec.msgpack.encode(value))

    def test_the_entries_of_a_set_stand_in_order_each_once(self, declared: Declared) -> None:
        """One set has one encoding, whoever made it."""
        namespace = declared.namespace
        if namespace.form is not Form.SET:
            return
        many = max((body for body in declared.bodies), key=len)
        assert len(many) >= 2, "give a body with two entries at least"
        value = namespace.from_json(many)
        assert namespace.from_json(list(reversed(many))) == value
        assert namespace.from_json([*many, *many]) == value
        version, entries = msgspec.msgpack.decode(value)
        for body in (entries[::-1], [entries[0], *entries]):
            with pytest.raises(NamespaceError):
                namespace.decode(msgspec.msgpack.encode((version, body)))

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(value=st.binary(max_size=200), place=st.integers(0, 10**6), bit=st.integers(0, 7))
    def test_junk_is_refused_by_name(
        self, declared: Declared, value: bytes, place: int, bit: int
    ) -> None:
        """Random bytes, and a good value with one bit turned: a value or a `NamespaceError`."""
        namespace = declared.namespace
        good = bytearray(namespace.from_json(declared.bodies[0]))
        good[place % len(good)] ^= 1 << bit
        for junk in (value, bytes(good), bytes(good) + value):
            try:
                body = namespace.decode(junk)
                namespace.encode(body)
                if namespace.check is not None:
                    namespace.check(declared.subject, body)
            except NamespaceError:
                pass
