"""The lists that are kept by what changed are those that are made from everything."""

from __future__ import annotations

import gzip
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from discovery_transport.server.fleet import ALL, NO_SELF, PER_KEY, SIDES, STATS, Fleet
from discovery_transport.server.told import body_of, entry_in
from skycore.contracts.registry import Listed, Listing
from skycore.discovery.directory import DirectoryChanges
from skycore.model.packets import transport_id
from skycore.testing.fakes import InlineWorkers

KEYS = [bytes((i,)) * 32 for i in range(1, 5)]


class Table:
    """What a fleet reads of a directory."""

    def __init__(self):
        self.version = 0
        self.lists = {}
        self.changes = DirectoryChanges(set())

    def of(self, subject):
        return Listing(subject, tuple(sorted(self.lists.get(subject, {}).values())))

    def having(self, key):
        return tuple(sorted(s for s, those in self.lists.items() if key in those))

    def put(self, subject, entry):
        self.lists.setdefault(subject, {})[entry.key] = entry
        self.note(subject)

    def drop(self, subject, key):
        if self.lists.get(subject, {}).pop(key, None):
            self.note(subject)

    def note(self, subject):
        if not self.lists[subject]:
            del self.lists[subject]
        self.version += 1
        self.changes.put(subject)


def listed(one, other, label):
    low, high = sorted((one, other))
    t_id = transport_id(low, high, "stcpr")
    return Listed(t_id.bytes, body_of(t_id, (low, high), "stcpr", label))


PAIR = st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS))
STEP = st.tuples(PAIR, st.sampled_from(["a", "b", None]), st.booleans(), st.booleans())


@given(st.lists(STEP, max_size=40))
@settings(deadline=None)
def test_what_is_kept_is_what_would_be_made_anew(steps):
    table = Table()
    kept = Fleet(table, table.changes, InlineWorkers())
    for (one, other), label, is_second, is_read in steps:
        subject = other if is_second else one
        entry = listed(one, other, label or "")
        if label is None:
            table.drop(subject, entry.key)
        else:
            table.put(subject, entry)
        if is_read:
            assert len(kept) == len({k for those in table.lists.values() for k in those})
    anew = DirectoryChanges(set(table.lists))
    fresh = Fleet(table, anew, InlineWorkers())
    for kind in (ALL, NO_SELF, SIDES, STATS, PER_KEY):
        assert kept.whole(kind) == fresh.whole(kind)
    told = json.loads(kept.whole(ALL).body)
    union = {e.key.hex() for those in table.lists.values() for e in those.values()}
    assert [t["t_id"].replace("-", "") for t in told] == sorted(union)
    marked = {t["t_id"] for t in json.loads(kept.whole(SIDES).body) if t.get("one_sided")}
    assert len(marked) == kept.one_sided
    for row in told:
        listers = table.having(bytes.fromhex(row["t_id"].replace("-", "")))
        assert (row["t_id"] in marked) == (len(listers) < len(set(row["edges"])))


async def test_a_list_is_packed_once_for_each_state():
    table = Table()
    kept = Fleet(table, table.changes, InlineWorkers())
    table.put(KEYS[0], listed(KEYS[0], KEYS[1], "a"))
    first = await kept.packed(ALL)
    assert gzip.decompress(first.body) == kept.whole(ALL).body
    assert (await kept.packed(ALL)) is first
    table.put(KEYS[0], listed(KEYS[0], KEYS[1], "b"))
    assert (await kept.packed(ALL)).tag != first.tag


def test_a_change_of_thousands_is_in_order_too():
    table = Table()
    kept = Fleet(table, table.changes, InlineWorkers())
    table.put(KEYS[0], listed(KEYS[0], KEYS[1], "a"))
    assert len(json.loads(kept.whole(ALL).body)) == 1
    for i in range(2_500):
        table.put(KEYS[0], listed(KEYS[0], i.to_bytes(32, "big"), "a"))
    ids = [t["t_id"] for t in json.loads(kept.whole(ALL).body)]
    assert len(ids) == 2_501
    assert ids == sorted(ids)
    assert entry_in(kept.row(listed(KEYS[0], KEYS[1], "a").key).body).label == "a"
