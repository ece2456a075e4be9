"""A full node and a visor, as processes, over real sockets: what users do first."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from skycore.testing.processes import NodeProcess, node_processes

pytestmark = pytest.mark.processes
LISTEN = "transport_stcpr.listen=127.0.0.1:0"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    folder = tmp_path_factory.mktemp("pair")
    with node_processes(folder, "full", "visor") as (full, visor):
        full.start(LISTEN, profile="fullnode")
        visor.start(LISTEN, f"dht_kademlia.bootstrap={json.dumps([full.contact])}")
        yield full, visor


Pair = tuple[NodeProcess, NodeProcess]


def test_a_record_put_at_one_is_read_at_the_other(pair: Pair) -> None:
    full, visor = pair
    put = visor.run("visor", "dht", "put", "hello", "--salt", "note")
    assert put["stored"] == 2
    got = full.run("visor", "dht", "get", visor.key(), "--salt", "note")
    assert got["found"]
    assert got["item"]["value"] == "hello"
    assert got["item"]["signer"] == visor.key()
    assert got["item"]["item_class"] == "owner"
    assert got["item"]["seq"] == put["seq"]


def test_c12_deleted_is_neither_a_miss_nor_an_empty_value(pair: Pair) -> None:
    full, visor = pair
    visor.run("visor", "dht", "put", "gone soon", "--salt", "brief")
    visor.run("visor", "dht", "delete", "--salt", "brief")
    got = full.command("visor", "dht", "get", visor.key(), "--salt", "brief", "--json")
    assert got.returncode == 1
    assert json.loads(got.stdout)["deleted"] is True
    missing = full.command("visor", "dht", "get", visor.key(), "--salt", "never", "--json")
    assert json.loads(missing.stdout)["deleted"] is False


def test_c10_compare_and_swap_tells_the_loser(pair: Pair) -> None:
    _, visor = pair
    first = visor.run("visor", "dht", "put", "one", "--salt", "swap", "--cas", "0")
    second = visor.run("visor", "dht", "put", "two", "--salt", "swap", "--cas", first["seq"])
    assert int(second["seq"]) > int(first["seq"])
    said = visor.refused("visor", "dht", "put", "three", "--salt", "swap", "--cas", first["seq"])
    assert "error:" in said
    assert second["seq"] in said


def test_sync_brings_everything_and_then_nothing(pair: Pair) -> None:
    full, visor = pair
    for i in range(5):
        full.run("visor", "dht", "put", f"value {i}", "--salt", f"s{i}")
    first = visor.run("visor", "dht", "sync")
    assert first["complete"]
    assert first["refused"] == 0
    again = visor.run("visor", "dht", "sync")
    assert again["received"] == 0
    assert again["bytes"] <= 1024
    held = {r["salt"] for r in visor.run("visor", "dht", "list")["records"]}
    assert {f"s{i}" for i in range(5)} <= held


def test_m10_a_call_is_refused_until_the_key_is_listed(pair: Pair) -> None:
    full, visor = pair
    said = visor.refused("visor", "tp-rpc", full.key(), "Overview")
    assert "not authorised" in said
    assert "hint:" in said
    full.run("visor", "whitelist", "add", visor.key())
    assert visor.run("visor", "tp-rpc", full.key(), "Overview")["public_key"] == full.key()
    said = visor.refused("visor", "tp-rpc", full.key(), "dht.put", '{"salt": "x", "text": "y"}')
    assert "not authorised" in said  # listed for reading, not for writing
    full.run("visor", "whitelist", "rm", visor.key())
    assert "not authorised" in visor.refused("visor", "tp-rpc", full.key(), "Overview")


def test_m11_an_unknown_node_is_an_answer_not_a_wait(pair: Pair) -> None:
    _, visor = pair
    stranger = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    said = visor.refused("visor", "tp-rpc", stranger, "Health")
    assert "error:" in said
    assert "hint:" in said


def test_the_proxy_is_for_local_callers_only(pair: Pair) -> None:
    full, visor = pair
    full.run("visor", "whitelist", "add", visor.key(), "--level", "admin")
    args = json.dumps({"remote": visor.key(), "method": "Health", "params": {}})
    said = visor.refused("visor", "tp-rpc", full.key(), "visor.tp_rpc", args)
    assert "error:" in said
    full.run("visor", "whitelist", "rm", visor.key())


def test_info_and_peers_speak_the_truth(pair: Pair) -> None:
    full, visor = pair
    info = visor.run("visor", "info")
    dht = next(p for p in info["parts"] if p["name"] == "dht")
    assert dht["fields"]["mode"] == "regular"
    assert dht["fields"]["peers"] == 1
    peers = visor.run("visor", "dht", "peers")["peers"]
    assert [p["public"] for p in peers] == [full.key()]
    assert full.run("visor", "dht", "status")["mode"] == "full"


def test_transports_by_hand(pair: Pair) -> None:
    full, visor = pair
    row = visor.run("tp", "add", full.key(), "--address", f"127.0.0.1:{full.port}")
    assert row["label"] == "user"
    assert any(t["id"] == row["id"] for t in visor.run("tp", "ls"))
    assert visor.run("tp", "rm", row["id"]) == {"closed": [row["id"]], "forgotten": True}
    # the visor may dial it again, for a session with the relay that it is; nobody has this one
    assert "error:" in visor.refused("tp", "rm", str(uuid.UUID(int=0)))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("visor", "dht", "get", "xyz"), "error:"),
        (("visor", "dht", "put", "v", "--salt", "x" * 201), "200"),
        (("visor", "dht", "put", "{}", "--salt", "dmsg"), "error:"),
        (("visor", "dht", "sync", "00" * 32), "error:"),
        (("visor", "dht", "reconcile", "00" * 32), "error:"),
        (("visor", "dht", "history", "--salt", "never"), "no version"),
        (("visor", "whitelist", "add", "00" * 32), "error:"),
        (("visor", "tp-rpc", "xx", "Health"), "lower-case hex"),
        (("tp", "add", "00" * 32), "error:"),
    ],
)
def test_bad_input_is_refused_with_a_hint(pair: Pair, words: tuple[str, ...], says: str) -> None:
    said = pair[1].refused(*words)
    assert says in said
    assert "hint:" in said
    assert "Traceback" not in said


def test_tables_for_people(pair: Pair) -> None:
    for words in (("visor", "info"), ("visor", "dht", "list"), ("visor", "dht", "status"),
                  ("tp", "ls"), ("plugins",), ("plan",), ("config", "show", "--explain"),
                  ("visor", "dht", "peers"), ("visor", "whitelist", "ls"),
                  ("visor", "dht", "full-nodes")):  # fmt: skip
        done = pair[0].command(*words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_secrets_are_neither_logged_nor_shown(pair: Pair, tmp_path: Path) -> None:
    for node in pair:
        secret = (node.data / "secret.key").read_text().strip()
        shown = node.command("config", "show", "--json").stdout
        assert secret not in node.log.read_text() + shown
        assert (node.data / "secret.key").stat().st_mode & 0o777 == 0o600
        assert (node.data / "control.sock").stat().st_mode & 0o777 == 0o600


# --- records that are large, old, compared, watched ----------------------------------------------


def test_a_large_set_costs_a_line_in_a_list_and_is_all_there(pair: Pair, tmp_path: Path) -> None:
    full, visor = pair
    key = visor.key()
    rows = [
        {"address": f"{key}:{port}", "type": "vpn", "version": "v1.3.31"}
        for port in range(1_000, 4_000)
    ]
    file = tmp_path / "svc.json"
    file.write_text(json.dumps(rows))
    assert visor.run("visor", "dht", "put", "--salt", "svc", "--file", str(file))["stored"] == 2
    item = full.run("visor", "dht", "get", key, "--salt", "svc")["item"]
    assert sorted(r["address"] for r in item["value"]) == sorted(r["address"] for r in rows)
    assert "3,000 entries" in full.command("visor", "dht", "list", "--salt", "svc").stdout
    shown = full.command("visor", "dht", "get", key, "--salt", "svc").stdout
    assert "its own key" in shown
    assert "in blocks" in shown
    assert visor.run("visor", "dht", "delete", "--salt", "svc")["stored"] == 2
    assert "was deleted" in full.refused("visor", "dht", "get", key, "--salt", "svc")
    row = full.run("visor", "dht", "history", key, "--salt", "svc")["versions"]
    assert [v["kind"] for v in row] == ["tombstone", "manifest"]


def test_c47_the_version_of_a_moment(pair: Pair) -> None:
    full, visor = pair
    first = visor.run("visor", "dht", "put", "then", "--salt", "moments")["seq"]
    visor.run("visor", "dht", "put", "now", "--salt", "moments")
    words = ("visor", "dht", "history", visor.key(), "--salt", "moments", "--at")
    assert full.run(*words, first)["versions"][0]["value"] == "then"
    assert "no version" in full.refused(*words, "2020-01-01")


def test_c46_two_nodes_are_compared_and_put_right(pair: Pair) -> None:
    full, visor = pair
    full.run("visor", "dht", "put", "both", "--salt", "alike")
    visor.run("visor", "dht", "reconcile", full.key())
    verdict = visor.run("visor", "dht", "verify", "--against", full.key(), "--salt", "alike")
    assert verdict["equal"]
    assert "not authorised" not in visor.command("visor", "dht", "reconcile", full.key()).stderr
    said = visor.refused("visor", "dht", "verify", "--against", "ab" * 32)
    assert "hint:" in said


def test_a_watch_ends_by_itself_after_so_many_changes(pair: Pair) -> None:
    full, visor = pair
    words = ("visor", "dht", "watch", "--salt", "live", "--json")
    with visor.background(*words, "--count", "1") as once, full.background(*words) as lines:
        for i in range(20):
            full.run("visor", "dht", "put", f"value {i}", "--salt", "live")
            if once and lines:
                break
    assert json.loads(once[0])["what"] == "stored"
    assert json.loads(lines[0])["item"]["salt"] == "live"


def test_a_visor_is_a_full_node_for_a_while(pair: Pair) -> None:
    full, visor = pair
    assert "until its next start" in visor.command("visor", "dht", "full-node", "on").stdout
    assert visor.run("visor", "dht", "status")["mode"] == "full"
    assert visor.run("visor", "dht", "full-node", "off")["mode"] == "regular"
    keys = {n["public"] for n in visor.run("visor", "dht", "full-nodes")["full_nodes"]}
    assert full.key() in keys
