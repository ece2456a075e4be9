"""The six namespaces, each held to the contract."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from namespaces_skywire.declarations import ADDR, ALL, DMSG, DMSG_SERVER, FULLNODE, SVC, TP
from skycore.contracts.namespace import Namespaces
from skycore.errors import NamespaceError
from skycore.model.items import ItemClass
from skycore.model.trie import Proven, read_manifest
from skycore.testing.contracts.namespace import Declared, NamespaceContract

PK = "02" + "ab" * 32
SUBJECT = bytes.fromhex(PK)
OWNER, DELEGATE, MIRROR = ItemClass.OWNER, ItemClass.DELEGATE, ItemClass.MIRROR


def transport(n):
    name = f"00000000-0000-0000-8000-{n:012x}"
    return {"t_id": name, "edges": [PK, "03" + f"{n:064x}"], "type": "sudph", "label": "automatic"}


def service(kind, port):
    return {"address": f"{PK}:{port}", "type": kind, "version": "v1.3.31"}


CASES = {
    "dmsg": Declared(
        DMSG,
        [{"static": PK}, {"static": PK, "client": {"delegated_servers": [PK]}}],
        [{}, [], None, "x", {"static": 5}, {"static": PK, "x": 1}],
    ),
    "tp": Declared(
        TP,
        [[transport(1), transport(2)], [], [transport(n) for n in range(200)]],
        [transport(1), None, [{"r": PK, "t": "stcpr"}], {"s": PK, "ts": []}, [[]]],
        large=[transport(n) for n in range(916)],
    ),
    "svc": Declared(
        SVC,
        [[service("vpn", 44), service("skysocks", 3)], [service("vpn", 44)], []],
        [service("vpn", 44), [{"type": "vpn"}], [5]],
        large=[service(kind, port) for port in range(50) for kind in ("vpn", "skysocks")],
    ),
    "addr": Declared(
        ADDR,
        [
            {"remote_addr": "203.0.113.7", "port": "1"},
            {"stcpr": {"port": "7777"}},
            {},
            {"pk": PK},
        ],
        [[], "x", {"stcpr": 5}],
    ),
    "fullnode": Declared(
        FULLNODE,
        [{"pk": PK, "stored_items": 9, "full_node": True, "ts": 1}],
        [{"pk": PK}, {"pk": PK, "stored_items": "many", "full_node": True, "ts": 1}],
    ),
    "dmsg-server": Declared(
        DMSG_SERVER,
        [{"pk": PK, "address": "203.0.113.7:8080", "max_sessions": 9, "dht_bootstrap": True}],
        [{"pk": PK}, {"address": "x"}],
    ),
}


@pytest.fixture(params=sorted(CASES))
def declared(request):
    return replace(CASES[request.param], subject=SUBJECT)


class TestNamespaces(NamespaceContract):
    pass


def test_all_six_are_declared_once():
    assert sorted(n.salt.decode() for n in Namespaces(ALL)) == sorted(CASES)


def test_what_the_plugin_returns_is_all_of_them():
    from namespaces_skywire import plugin

    assert tuple(plugin.skycore_namespaces()) == ALL


@pytest.mark.parametrize(
    ("salt", "item_class", "lifetime_s"),
    [
        (b"tp", OWNER, 300), (b"svc", OWNER, 300), (b"addr", OWNER, 300),
        (b"dmsg", OWNER, 7_200), (b"fullnode", OWNER, 7_200), (b"dmsg-server", OWNER, 7_200),
        (b"tp", MIRROR, 7_200), (b"svc", MIRROR, 7_200), (b"addr", DELEGATE, 7_200),
        (b"fullnode", MIRROR, 0), (b"fullnode", DELEGATE, 0),
        (b"unknown", OWNER, 7_200), (b"unknown", MIRROR, 0), (b"unknown", DELEGATE, 0),
    ],
)  # fmt: skip
def test_lifetimes(salt, item_class, lifetime_s):
    assert Namespaces(ALL).lifetime_s(salt, item_class) == lifetime_s


def test_c6_d27_an_advert_is_its_own_subjects():
    def check(pk, full_node=True):
        value = {"pk": pk, "stored_items": 1, "full_node": full_node, "ts": 1}
        FULLNODE.check(SUBJECT, FULLNODE.decode(FULLNODE.from_json(value)))

    check(PK)
    with pytest.raises(NamespaceError, match="another key"):
        check("03" + "ab" * 32)
    with pytest.raises(NamespaceError, match="no full node"):
        check(PK, full_node=False)


OTHER = "03" + "ab" * 32
OTHERS = {
    "dmsg": {"static": OTHER, "client": {"delegated_servers": [PK]}},
    "dmsg-server": {"pk": OTHER, "address": "203.0.113.7:8080"},
    "fullnode": {"pk": OTHER, "stored_items": 9, "full_node": True, "ts": 1},
    "addr": {"pk": OTHER, "remote_addr": "203.0.113.7"},
    "svc": [service("vpn", 44), {"address": f"{OTHER}:3", "type": "skysocks"}],
    "tp": [transport(1), transport(2) | {"edges": [OTHER, OTHER]}],
}


@pytest.mark.parametrize("salt", sorted(OTHERS))
def test_l16_a_record_speaks_of_its_subject_alone(salt):
    """An entry that names another key would pass for that key's where it is read alone."""
    namespaces, declared = Namespaces(ALL), CASES[salt].namespace
    value = declared.from_json(OTHERS[salt])
    for refuse in (namespaces.check, namespaces.plant):
        with pytest.raises(NamespaceError, match=r"another key|no edge"):
            refuse(declared.salt, SUBJECT, value)
    other = bytes.fromhex(OTHER)
    if salt not in {"svc", "tp"}:
        namespaces.check(declared.salt, other, value)


@pytest.mark.parametrize("salt", ["svc", "tp"])
def test_l16_one_stranger_among_many_is_found_in_the_blocks(salt):
    """Also where the blocks were proven before, for the key that they do speak of."""
    case, known = CASES[salt], Proven()
    good = case.namespace.plant(case.namespace.from_json(case.large))
    wrong = case.namespace.plant(case.namespace.from_json([*case.large, OTHERS[salt][1]]))
    for tree, subject, fits in (
        (good, SUBJECT, True),
        (good, bytes.fromhex(OTHER), False),
        (wrong, SUBJECT, False),
    ):
        manifest = read_manifest(tree.manifest)
        with nullcontext() if fits else pytest.raises(NamespaceError, match=r"another key|no edge"):
            case.namespace.check_tree(subject, manifest, tree.blocks.get, known)


@pytest.mark.parametrize("edges", [[PK, OTHER], [OTHER, PK], [PK, PK]])
def test_l20_either_edge_lists_a_transport(edges):
    value = TP.from_json([transport(1) | {"edges": edges}])
    Namespaces(ALL).check(b"tp", SUBJECT, value)


def test_of_two_rows_with_one_id_the_last_counts():
    newer = transport(1) | {"label": "user"}
    (entry,) = TP.decode(TP.from_json([transport(1), newer]))
    assert entry.label == "user"
