"""Lists of transports: each once, by who lists it, and no lie counts."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from discovery_transport.client.core.entries import both_sides, is_sound, own_entry
from skycore.model.entries import TransportEntry
from skycore.model.packets import transport_id

KEYS = [f"{n:02x}" * 32 for n in range(6)]


def entry(one, other, kind="stcpr"):
    t_id = transport_id(bytes.fromhex(one), bytes.fromhex(other), kind)
    return own_entry(one, other, t_id, kind, "user")


pairs = st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS))


@given(st.lists(pairs), st.lists(pairs, max_size=4))
def test_l1_each_transport_is_there_once_with_the_sides_that_list_it(links, half):
    lists = {key: [] for key in KEYS}
    for one, other in links:
        lists[one].append(entry(one, other))
        lists[other].append(entry(one, other))
    for one, other in half:
        lists[one].append(entry(one, other))
    seen = both_sides(lists.items())
    assert set(seen) == {entry(*pair).t_id for pair in [*links, *half]}
    for one, other in links:
        assert seen[entry(one, other).t_id].sides == 2
    told = {frozenset(pair) for pair in links}
    for one, other in half:
        if frozenset((one, other)) not in told and (other, one) not in half and one != other:
            assert seen[entry(one, other).t_id].sides == 1


def test_both_edges_write_the_same_entry():
    assert entry(KEYS[0], KEYS[1]) == entry(KEYS[1], KEYS[0])


def test_a_transport_of_others_does_not_count():
    assert not both_sides([(KEYS[2], [entry(KEYS[0], KEYS[1])])])


def test_an_id_with_other_edges_or_another_type_takes_no_transport_away():
    real = entry(KEYS[1], KEYS[2])
    assert is_sound(real) and is_sound(entry(KEYS[0], KEYS[0]))
    assert not is_sound(TransportEntry(real.t_id, (KEYS[0], KEYS[3]), "stcpr"))
    assert not is_sound(TransportEntry(real.t_id, (KEYS[1], KEYS[2]), "dmsg"))
    assert not is_sound(TransportEntry(real.t_id, ("no key", KEYS[3]), "stcpr"))


def test_a_transport_to_oneself_has_both_sides_at_once():
    own = entry(KEYS[0], KEYS[0])
    assert both_sides([(KEYS[0], [own])])[own.t_id].sides == 2


def test_l9_what_is_published_has_nothing_that_moves():
    one = entry(KEYS[0], KEYS[1])
    assert one.latency == 0.0
    assert msgspec.json.decode(msgspec.json.encode(one)) == {
        "t_id": str(one.t_id),
        "edges": [KEYS[0], KEYS[1]],
        "type": "stcpr",
        "label": "user",
    }
