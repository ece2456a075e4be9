"""Labels: bounded, plain, and never a way to grow a time series database from outside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metrics_prometheus.families import LABEL_CHARS_MAX, OTHER, Facts, families, salt_label
from skycore.contracts.runtime import NodeInfo
from skycore.contracts.status import Health, Status
from skycore.contracts.store import Usage

INFO = NodeInfo("visor", (), "1", "test")
BOUNDS = {"salts_max": 3, "peers_max": 2, "fields_max": 4}


def samples(facts, **bounds):
    """Return samples as {name: {labels: value}}."""
    found = {}
    for family in families(facts, **{**BOUNDS, **bounds}):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


@given(st.binary(max_size=200))
def test_a_salt_is_a_short_printable_label(salt):
    label = salt_label(salt)
    assert label.isprintable()
    assert len(label) <= LABEL_CHARS_MAX
    assert salt_label(b"tp") == "tp"


@given(st.dictionaries(st.binary(min_size=1, max_size=4), st.integers(1, 9), max_size=30))
def test_salts_beyond_the_bound_are_counted_together(counts):
    usage = {salt: Usage(n, n * 10) for salt, n in counts.items()}
    found = samples(Facts(INFO, usage=usage))
    rows = found.get("skycore_items", {})
    assert len(rows) <= BOUNDS["salts_max"] + 1
    assert sum(rows.values()) == sum(counts.values())
    assert sum(found.get("skycore_item_bytes", {}).values()) == 10 * sum(counts.values())
    if len(counts) > BOUNDS["salts_max"]:
        assert any(("salt", OTHER) in labels for labels in rows)


def dht(**fields):
    return [("dht", Status(Health.OK, "fine", {"peers": 0, **fields}))]


def test_watched_peers_beyond_the_bound_are_left_out():
    row = {"salt": None, "live": True, "lag_s": 1.0, "items": 0, "trouble": ""}
    watching = [{**row, "peer": f"{n:08x}" * 8} for n in range(5)]
    found = samples(Facts(INFO, told=dht(watching=watching)))
    assert len(found["skycore_dht_watch_up"]) == len(found["skycore_dht_watch_lag_seconds"]) == 2


def test_keys_that_begin_alike_are_one_row():
    """Two rows with the same labels end a scrape; anybody can make keys that begin alike."""
    row = {"salt": None, "live": True, "lag_s": 1.0, "items": 0, "trouble": ""}
    ends = ("00" * 28, "11" * 28)
    watching = [{**row, "peer": "abababab" + end, "live": end == ends[0]} for end in ends]
    found = list(families(Facts(INFO, told=dht(watching=watching)), **BOUNDS))
    (up,) = [family for family in found if family.name == "skycore_dht_watch_up"]
    assert len(up.samples) == 1
    assert up.samples[0].value == 0.0, "the worse of the two is told"


def test_a_peer_that_was_never_heard_has_no_lag():
    row = {"peer": "ab" * 32, "salt": "tp", "live": False, "lag_s": None, "items": 0, "trouble": ""}
    found = samples(Facts(INFO, told=dht(watching=[row])))
    assert found["skycore_dht_watch_up"] == {(("peer", "abababab"), ("salt", "tp")): 0.0}
    assert "skycore_dht_watch_lag_seconds" not in found


def test_numbers_of_a_part_are_bounded_and_text_is_left_out():
    fields = {f"n{i}": i for i in range(10)} | {"text": "x", "list": [1], "none": None}
    found = samples(Facts(INFO, told=[("mine", Status(Health.DEGRADED, "so so", fields))]))
    assert len(found["skycore_part_number"]) == BOUNDS["fields_max"]
    health = found["skycore_part_health"]
    assert health[("health", "degraded"), ("part", "mine")] == 1
    assert sum(health.values()) == 1


def test_c45_every_reason_of_a_drop_has_its_row_from_the_start():
    """A rate that begins with the first drop would show the first drop as none."""
    told = dht(waiting_dropped=3, hints_dropped=2, contacts_left=1)
    gate = {"stored": 9, "expired": 4, "QuotaError": 7, "tampered": 5}
    found = samples(Facts(INFO, told=told, gate=gate))
    drops = {labels[0][1]: value for labels, value in found["skycore_drops_total"].items()}
    assert drops == {
        "expired": 4,
        "dropped": 0,
        "tampered": 5,
        "unproven": 0,
        "waiting_dropped": 3,
        "hints_dropped": 2,
        "contacts_left": 1,
    }
    assert found["skycore_rejects_total"] == {(("reason", "QuotaError"),): 7}
    assert found["skycore_admitted_total"] == {(("outcome", "stored"),): 9}


def test_what_the_http_server_counts_is_told_apart():
    found = samples(Facts(INFO, requests={"200 metrics": 3, "rate": 2}))
    assert found["skycore_http_requests_total"] == {(("routes", "metrics"), ("status", "200")): 3}
    assert found["skycore_http_refused_total"] == {(("reason", "rate"),): 2}
