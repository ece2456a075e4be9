"""Recordings: the real one where it is at hand, generated ones, and what is refused."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from namespaces_skywire.declarations import DMSG, SVC, TP
from skycore.contracts.namespace import Namespaces
from skycore.errors import RecordingError
from skycore.model.limits import VALUE_MAX
from skycore.model.recording import RATIO_MAX, facts, latest_facts, read_recording, step
from skycore.testing.recording import generate_recording, real_recording

REAL = real_recording(Path(__file__).parents[3])
NAMESPACES = {b"dmsg": DMSG, b"svc": SVC, b"tp": TP}
DECLARED = Namespaces(NAMESPACES.values())


def small(**snapshot):
    return json.dumps({"snapshots": [{"taken": "now", **snapshot}]}).encode()


def key(n):
    return "02" + f"{n:064x}"


def transport(n, one, other):
    return {"t_id": f"00000000-0000-0000-8000-{n:012x}", "edges": [one, other], "type": "stcpr"}


def check_all(recording):
    """Every fact fits its namespace and subject; return how many facts there are, by salt."""
    counts = []
    for index in range(len(recording.snapshots)):
        count: Counter[bytes] = Counter()
        for fact in facts(recording, index):
            namespace = NAMESPACES[fact.salt]
            value = namespace.encode(fact.entries)
            assert len(value) <= VALUE_MAX
            assert namespace.encode(namespace.decode(value)) == value
            DECLARED.plant(fact.salt, fact.subject, value)
            count[fact.salt] += 1
        counts.append(dict(count))
    return counts


def test_the_real_recording_is_read_whole():
    if REAL is None:
        pytest.skip("the recording of 2025-10-28 is not beside the repository")
    recording = read_recording(REAL.read_bytes())
    assert check_all(recording) == [
        {b"dmsg": 3_044, b"svc": 1_364},
        {b"dmsg": 3_047, b"svc": 1_361},
        {b"dmsg": 3_048, b"svc": 1_364},
        {b"dmsg": 3_036, b"svc": 1_355, b"tp": 42},
    ]
    rows = [len(s.services) for s in recording.snapshots]
    assert rows == [2_153, 2_148, 2_150, 2_136]
    for index, count in enumerate(rows):
        listed = [f for f in facts(recording, index) if f.salt == b"svc"]
        assert sum(len(f.entries) for f in listed) == count


def test_a_generated_recording_has_the_same_shape():
    data = generate_recording(7)
    assert data == generate_recording(7) != generate_recording(8)
    recording = read_recording(gzip.compress(data, mtime=0))
    assert recording == read_recording(data)
    counts = check_all(recording)
    assert [c[b"dmsg"] for c in counts] == [3_040] * 4
    assert counts[0].keys() == {b"dmsg", b"svc"}
    assert counts[3].keys() == {b"dmsg", b"svc", b"tp"}
    first, second = (set(s.dmsg_clients) for s in recording.snapshots[:2])
    assert 0 < len(first - second) < 60


def test_an_empty_list_means_not_recorded():
    assert facts(read_recording(small()), 0) == []
    assert facts(read_recording(small(services=[], transports=[], dmsg_clients=[])), 0) == []


def test_the_latest_facts_take_the_newest_of_each_list():
    a, b = key(1), key(2)
    snapshots = [
        {"dmsg_clients": [a], "transports": [transport(1, a, b)]},
        {"dmsg_clients": [b], "transports": []},
    ]
    recording = read_recording(json.dumps({"snapshots": snapshots}).encode())
    found = [(f.salt, f.subject.hex()) for f in latest_facts(recording)]
    assert found == [(b"dmsg", b), (b"tp", a), (b"tp", b)]
    assert latest_facts(read_recording(b'{"snapshots": []}')) == []


def test_services_are_grouped_and_transports_stand_under_both_edges():
    a, b = key(1), key(2)
    rows = {
        "services": [
            {"address": f"{a}:3", "type": "skysocks"},
            {"address": f"{b}:44", "type": "vpn"},
            {"address": f"{a}:44", "type": "vpn"},
        ],
        "transports": [transport(1, a, b), transport(2, b, b), transport(1, a, b)],
        "dmsg_clients": [b, a, b],
    }
    found = facts(read_recording(small(**rows)), 0)
    assert [(f.salt, f.subject.hex()) for f in found] == [
        (b"dmsg", a), (b"dmsg", b), (b"svc", a), (b"svc", b), (b"tp", a), (b"tp", b),
    ]  # fmt: skip
    sizes = [len(f.entries) for f in found[2:]]
    assert sizes == [2, 1, 1, 2]
    assert found[0].entries.static == a


@pytest.mark.parametrize(
    "rows",
    [
        {"services": [{"address": "nonsense", "type": "vpn"}]},
        {"services": [{"address": f"{key(1).upper()}A:3", "type": "vpn"}]},
        {"services": [{"address": ":3", "type": "vpn"}]},
        {"transports": [transport(1, "xyz", key(1))]},
        {"transports": [transport(1, "00" * 65, key(1))]},
    ],
)
def test_what_is_no_key_is_refused_by_name(rows):
    recording = read_recording(small(**rows))
    with pytest.raises(RecordingError, match="no key"):
        facts(recording, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"{}",
        b"[]",
        b'{"snapshots": 5}',
        b'{"snapshots": [5]}',
        small(dmsg_clients=["UPPER"]),
        small(dmsg_clients=[""]),
        small(services=[{"address": "x", "type": "vpn", "smuggled": 1}]),
        small(transports=[{"t_id": "no uuid", "edges": ["a", "b"], "type": "x"}]),
        b'{"snapshots": [{"taken": "\xff\xfe"}]}',
        b"[" * 100_000,
        gzip.compress(b"{}", mtime=0)[:-3],
        gzip.compress(b"{}", mtime=0)[:12] + b"\xff" * 20,
        b"\x1f\x8b",
    ],
)
def test_what_is_no_recording_is_refused(data):
    with pytest.raises(RecordingError):
        read_recording(data)


def test_a_bomb_is_not_unpacked():
    bomb = gzip.compress(bytes(40 * 1024 * 1024))
    with pytest.raises(RecordingError, match="unpacks to more"):
        read_recording(bomb)
    just = zlib.compressobj(wbits=31)
    packed = just.compress(small() + b" " * (RATIO_MAX * 20)) + just.flush()
    assert len(packed) > 20
    assert read_recording(packed).snapshots


@pytest.mark.parametrize("index", [-1, 1, 10**9])
def test_a_snapshot_that_is_not_there(index):
    with pytest.raises(RecordingError, match="no snapshot"):
        facts(read_recording(small()), index)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 10**6), st.integers(0, 7))
def test_damage_is_refused_by_name(junk, place, bit):
    good = bytearray(gzip.compress(small(dmsg_clients=[key(1)]), mtime=0))
    good[place % len(good)] ^= 1 << bit
    for data in (junk, b"\x1f\x8b" + junk, bytes(good)):
        with contextlib.suppress(RecordingError):
            facts(read_recording(data), 0)


# --- from what is held to what is listed ---------------------------------------------------------

KEYS = st.integers(0, 12).map(lambda n: key(n))
LISTED = st.fixed_dictionaries(
    {
        "dmsg_clients": st.lists(KEYS, unique=True),
        "services": st.lists(KEYS, unique=True).map(
            lambda keys: [{"address": f"{k}:3", "type": "vpn"} for k in keys]
        ),
    }
)


def names(listed):
    return {(fact.salt, fact.subject) for fact in listed}


def test_l6_what_is_gone_is_what_is_held_and_no_longer_listed():
    a, b = key(1), key(2)
    listed = facts(read_recording(small(dmsg_clients=[a])), 0)
    held = [(b"dmsg", bytes.fromhex(k)) for k in (b, a)] + [(b"svc", bytes.fromhex(b))]
    found = step(held, listed)
    assert found.put == listed
    assert found.gone == [(b"dmsg", bytes.fromhex(b))]  # services were not recorded
    assert step(held, []) == ([], [])
    assert step([], listed).gone == []


@given(st.lists(LISTED, min_size=1, max_size=6))
def test_l6_no_orphan_is_left_however_snapshots_follow_each_other(snapshots):
    body = [{"taken": str(i), **s} for i, s in enumerate(snapshots)]
    recording = read_recording(json.dumps({"snapshots": body}).encode())
    held: set[tuple[bytes, bytes]] = set()
    for index in range(len(snapshots)):
        before = set(held)
        listed = facts(recording, index)
        found = step(sorted(held), listed)
        held = held - set(found.gone) | names(found.put)
        for salt in (b"dmsg", b"svc"):
            now = {k for k in held if k[0] == salt}
            wanted = {k for k in names(listed) if k[0] == salt}
            assert now == (wanted or {k for k in before if k[0] == salt})


def test_l6_the_real_recording_leaves_as_few_as_it_lists():
    if REAL is None:
        pytest.skip("the recording of 2025-10-28 is not beside the repository")
    recording = read_recording(REAL.read_bytes())
    held: set[tuple[bytes, bytes]] = set()
    gone = []
    for index in range(len(recording.snapshots)):
        found = step(held, facts(recording, index))
        held = held - set(found.gone) | names(found.put)
        gone.append(len(found.gone))
    assert held == names(facts(recording, len(recording.snapshots) - 1))
    assert gone[0] == 0
    assert all(gone[1:])
