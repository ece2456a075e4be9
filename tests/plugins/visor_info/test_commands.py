"""`visor info`, as people read it."""

from visor_info.commands import rows

KEY = "ab" * 32
SUMMARY = {
    "overview": {
        "public_key": KEY, "network": "demo", "profile": "visor", "version": "1", "uptime_s": 3_725,
        "listening": [], "transport_count": 1,
    },
    "health": {"health": "ok", "reasons": [], "parts": []},
    "parts": [
        {
            "name": "dht",
            "health": "degraded",
            "summary": "full node, 2 peers, 5000 items",
            "fields": {
                "mode": "full", "node_id": KEY, "complete": True, "advertised": False, "puts": 0,
                "bytes": 1_234_567, "items": {"tp": 5_000, "svc": 0}, "refused": {}, "lag_s": 0.25,
                "last_reconcile": None,
                "last_sync": {"peer": KEY, "stored": 7, "refused": 0, "bytes": 1_000,
                              "reasons": [], "complete": True, "seconds_ago": 61.5},
                "watching": [{"peer": KEY, "salt": "tp", "live": True, "lag_s": 3.0},
                             {"peer": KEY, "salt": None, "live": False, "trouble": "lost"}],
            },
        }
    ],
}  # fmt: skip


def test_what_matters_is_said_with_units_and_nothing_is_left_out_silently():
    found = dict(rows(SUMMARY))
    assert found["up for"] == "1 h 2 min 5 s"
    assert found["listening"] == "no"
    assert found["dht"] == "[!!] full node, 2 peers, 5000 items"
    assert found["  complete"] == "yes"
    assert found["  bytes"] == "1.2 MB"
    assert found["  items"] == "tp 5,000"
    assert found["  lag"] == "0.2 s"
    assert found["  node id"] == KEY
    assert found["  last sync"] == (
        "1 min 1 s ago, peer abababababababab…, stored 7, bytes 1.0 kB, complete yes"
    )
    assert found["  watching"] == (
        "peer abababababababab…, salt tp, live yes, lag 3 s\npeer abababababababab…, trouble lost"
    )
    assert not {"  advertised", "  puts", "  refused", "  last reconcile"} & set(found)


def test_how_long_a_state_lasts_does_not_look_like_the_state():
    fields = {"state": "down", "state_s": 90.0, "server": "127.0.0.1:6379/0"}
    part = {"name": "redis", "health": "down", "summary": "down", "fields": fields}
    found = dict(rows({**SUMMARY, "parts": [part]}))
    assert (found["  state"], found["  state for"]) == ("down", "1 min 30 s")
