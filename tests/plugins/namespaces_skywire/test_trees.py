"""Large values under a schema: bounds, one form for one record, and what a change costs."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from namespaces_skywire.declarations import ADDR, ALL, DMSG, SVC, TP
from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.errors import MissingBlocksError, NamespaceError
from skycore.model.entries import DmsgEntry, ServiceEntry, TransportEntry
from skycore.model.items import ItemClass
from skycore.model.limits import SET_INLINE_MAX, VALUE_MAX
from skycore.model.trie import (
    Proven,
    harvest,
    plant_set,
    plant_value,
    read_manifest,
)

PK = "02" + "ab" * 32
SUBJECT = bytes.fromhex(PK)
NAMESPACES = Namespaces(ALL)
NOTES = Namespace(b"notes", 1, str, Form.SINGLE, {ItemClass.OWNER: 60})


def transport(n, label="automatic"):
    return TransportEntry(
        uuid.UUID(int=n * 0x9E3779B97F4A7C15), (PK, f"03{n:064x}"), "stcpr", label
    )


def rows(entries):
    """Return what plant_set takes."""
    return [(e.set_key, msgspec.msgpack.encode(e, order="sorted")) for e in entries]


def check(namespace, tree, known=None, subject=SUBJECT, get=None):
    manifest = read_manifest(tree.manifest)
    namespace.check_tree(subject, manifest, get or tree.blocks.get, known)
    return manifest


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_l2_a_set_at_its_bound_inline(over):
    """One byte more, and it stands in blocks; each form is refused where the other belongs."""
    value, at = b"", 1
    while len(value) < SET_INLINE_MAX - 300:
        value, at = TP.encode([transport(n) for n in range(1, at)]), at + 1
    room = SET_INLINE_MAX + over - len(value) + len("automatic")
    entries = [transport(n) for n in range(1, at - 2)]
    last = transport(at - 2)
    value = TP.encode([*entries, last])
    for length in range(250):
        value = TP.encode([*entries, msgspec.structs.replace(last, label="x" * length)])
        if len(value) == SET_INLINE_MAX + over:
            break
    assert len(value) == SET_INLINE_MAX + over, room
    tree = NAMESPACES.plant(b"tp", SUBJECT, value)
    assert (tree is None) == (over <= 0)
    planted = plant_set(1, rows(TP.decode(value)), len(value))
    if over > 0:
        assert tree == planted
        check(TP, tree)
        with pytest.raises(NamespaceError, match="over 4096 they stand in blocks"):
            NAMESPACES.check(b"tp", SUBJECT, value)
    else:
        NAMESPACES.check(b"tp", SUBJECT, value)
        with pytest.raises(NamespaceError, match="stands inline"):
            check(TP, planted)


@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("declared", [True, False])
def test_l2_a_single_value_at_its_bound_inline(over, declared):
    namespaces = Namespaces([NOTES] if declared else [])
    value = NOTES.encode("x" * (VALUE_MAX + over - 5))
    assert len(value) == VALUE_MAX + over
    tree = namespaces.plant(b"notes", SUBJECT, value)
    assert (tree is None) == (over <= 0)
    if tree is None:
        namespaces.check(b"notes", SUBJECT, value)
        tree = plant_value(value, 1)
        with pytest.raises(NamespaceError, match="stands inline"):
            namespaces.check_tree(b"notes", SUBJECT, read_manifest(tree.manifest), tree.blocks.get)
    else:
        manifest = read_manifest(tree.manifest)
        assert manifest.version == int(declared)
        namespaces.check_tree(b"notes", SUBJECT, manifest, tree.blocks.get)
        assert harvest(manifest, tree.blocks.get) == value


def test_c22_a_leaf_whose_entries_do_not_fit_is_refused_by_name():
    entries = [transport(n) for n in range(100)]
    good = rows(entries)
    key, value = good[40]
    as_map = msgspec.msgpack.decode(value)
    for wrong, said in (
        ((key, msgspec.msgpack.encode({**as_map, "junk": 1}, order="sorted")), "not an entry"),
        ((key, msgspec.msgpack.encode(dict(reversed(as_map.items())))), "one encoding"),
        ((key, msgspec.msgpack.encode({**as_map, "latency": 0.0}, order="sorted")), "one encoding"),
        ((b"another key 1234", value), "key not its own"),
        ((key, b"\x91" * 300), "not an entry"),
        ((key, value + b"\xc0"), "not an entry"),
    ):
        bad = [*good[:40], wrong, *good[41:]]
        size = 5 + sum(len(v) for _, v in bad)
        with pytest.raises(NamespaceError, match=said):
            check(TP, plant_set(1, bad, size))


def test_l14_the_tree_of_one_salt_is_not_that_of_another():
    services = [ServiceEntry(f"{PK}:{n}", "vpn") for n in range(60)]
    trees = [
        (TP, TP.plant(TP.encode([transport(n) for n in range(60)]))),
        (SVC, SVC.plant(SVC.encode(services))),
        (NOTES, NOTES.plant(NOTES.encode("x" * 70_000))),
    ]
    for namespace in (TP, SVC, NOTES, DMSG, ADDR):
        for owner, tree in trees:
            if owner is namespace:
                check(namespace, tree)
            else:
                with pytest.raises(NamespaceError):
                    check(namespace, tree)


def test_an_undeclared_salt_takes_the_one_shape_of_anything():
    """So a stranger's large sets replicate through nodes without its schema."""
    nobody = Namespaces()
    for tree in (
        TP.plant(TP.encode([transport(n) for n in range(300)])),
        plant_value(bytes(100_000)),
        plant_set(9, [(b"%d" % n, b"opaque %d" % n * 20) for n in range(200)], 37_805),
    ):
        manifest = read_manifest(tree.manifest)
        nobody.check_tree(b"stranger", SUBJECT, manifest, tree.blocks.get)
        lying = msgspec.structs.replace(manifest, bytes=manifest.bytes + 1)
        with pytest.raises(NamespaceError):
            nobody.check_tree(b"stranger", SUBJECT, lying, tree.blocks.get)
        partly = dict(list(tree.blocks.items())[:-1])
        with pytest.raises(MissingBlocksError):
            nobody.check_tree(b"stranger", SUBJECT, manifest, partly.get)


def test_c28_one_change_of_5000_is_checked_in_the_blocks_above_it():
    entries, known, asked = [transport(n) for n in range(5_000)], Proven(), []
    before = TP.plant(TP.encode(entries))
    check(TP, before, known)
    for changed in range(0, 5_000, 1_250):
        entries[changed] = transport(changed, "user")
        after = TP.plant(TP.encode(entries))

        def get(name, tree=after):
            asked.append(name)
            return tree.blocks[name]

        asked.clear()
        check(TP, after, known, get=get)
        assert len(set(asked)) <= 5
        before = after


@pytest.mark.parametrize("salt", [b"tp\0", b"\x02tp", b"\x01\x02tp", b"\0\x02tp", b"tp", b"svc"])
def test_what_was_proven_under_an_undeclared_salt_is_nothing_under_a_declared_one(salt):
    """Else a stranger's salt, held to no schema, would let junk into a salt that has one."""
    junk = plant_set(1, [(b"%d" % n, b"\xc0" * 100) for n in range(100)], 10_005)
    manifest, known = read_manifest(junk.manifest), Proven()
    Namespaces().check_tree(salt, SUBJECT, manifest, junk.blocks.get, known)
    assert len(known) == len(junk.blocks)
    with pytest.raises(NamespaceError):
        NAMESPACES.check_tree(b"tp", SUBJECT, manifest, junk.blocks.get, known)


def test_a_rule_on_entries_holds_in_blocks_and_for_each_subject():
    """A subtree that was right for one subject is not believed for another."""

    def own(subject, body):
        if any(entry.edges[0] != subject.hex() for entry in body):
            raise NamespaceError("a transport of somebody else")

    mine = Namespace(
        b"mine", 1, TransportEntry, Form.SET, {ItemClass.OWNER: 60}, key=lambda e: e.set_key,
        check=own,
    )  # fmt: skip
    tree, known = mine.plant(mine.encode([transport(n) for n in range(60)])), Proven()
    check(mine, tree, known, bytes.fromhex(PK))
    for _ in range(2):
        with pytest.raises(NamespaceError, match="somebody else"):
            check(mine, tree, known, b"another")
    with pytest.raises(NamespaceError, match="somebody else"):
        Namespaces([mine]).plant(
            b"mine", b"another", mine.encode([transport(n) for n in range(60)])
        )


def test_a_large_single_value_is_held_to_its_schema():
    whole = NOTES.encode("x" * 70_000)
    check(NOTES, plant_value(whole, 1))
    for value, version in ((whole, 2), (whole, 0), (whole[:-1], 1), (bytes(70_000), 1)):
        with pytest.raises(NamespaceError):
            check(NOTES, plant_value(value, version))
    assert DMSG.plant(DMSG.encode(DmsgEntry(PK))) is None


@pytest.mark.parametrize("size", [15, 16, 17, 1_271])
def test_l2_the_sizes_at_which_a_list_changes_its_head(size):
    value = TP.encode([transport(n) for n in range(size)])
    tree = TP.plant(value)
    if tree is not None:
        assert harvest(check(TP, tree), tree.blocks.get) == value
