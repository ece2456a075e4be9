"""Starting, stopping and dying: exit codes, dead sockets, lost peers, start orders."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from skycore.testing.processes import NodeProcess, node_processes

pytestmark = pytest.mark.processes
LISTEN = "transport_stcpr.listen=127.0.0.1:0"


def ends(node: NodeProcess, *settings: str, profile: str = "visor") -> tuple[int, str]:
    """Start a node that must end by itself; return its exit code and what it said."""
    words = [w for s in settings for w in ("--set", s)]
    done = subprocess.run(
        [sys.executable, "-m", "skycore", "--data", str(node.data), "--profile", profile, *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_signal_ends_it_in_order_and_the_folder_is_ready_for_the_next_run(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "n") as node:
        node.start(LISTEN)
        key = node.key()
        assert node.stop() == 0
        assert "made a new key" in node.log.read_text()
        assert not (node.data / "control.sock").exists()
        node.start(LISTEN)
        assert node.key() == key
        assert node.stop() == 0


def test_the_control_socket_of_a_dead_node_is_replaced(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "n") as node:
        node.start(LISTEN)
        node.kill()
        assert (node.data / "control.sock").exists()
        said = node.refused("visor", "info")
        assert "error:" in said
        assert "hint:" in said
        node.start(LISTEN)
        assert node.run("visor", "info")["health"]["health"] == "ok"


def test_a_second_node_on_one_folder_is_refused_by_name(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "n") as node:
        node.start(LISTEN)
        code, said = ends(node, LISTEN)
        assert code == 1
        assert "already" in said
        assert "hint:" in said
        assert node.run("visor", "info")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = ends(NodeProcess(tmp_path / "n"), f"transport_stcpr.listen=127.0.0.1:{port}")
    assert code == 1
    assert str(port) in said
    assert "hint:" in said


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("node.enable=['no_such_plugin']", "no_such_plugin"),
        ("dht_kademlia.bootstrap=['nonsense']", "nonsense"),
        ("access_whitelist.hypervisors=['00']", "hypervisors"),
        ("network.authority=12", "network.authority"),
        ("transport_stcpr.listne=1", "listen"),
        ("node.enable=['store_sqlite']", "store_sqlite"),
    ],
)
def test_a_wrong_configuration_ends_with_2_and_a_hint(
    tmp_path: Path, setting: str, says: str
) -> None:
    code, said = ends(NodeProcess(tmp_path / "n"), LISTEN, setting)
    assert code == 2, said
    assert says in said
    assert "error:" in said
    assert "Traceback" not in said


def test_bad_toml_is_named(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "n")
    node.data.mkdir()
    (node.data / "node.toml").write_text("[node\n")
    code, said = ends(node, LISTEN)
    assert code == 2
    assert "node.toml is not TOML" in said


def test_c55_either_may_start_first(tmp_path: Path) -> None:
    port = free_port()
    with node_processes(tmp_path, "full", "visor") as (full, visor):
        bootstrap = f"dht_kademlia.bootstrap={json.dumps([f'{full.key()}@127.0.0.1:{port}'])}"
        quick = "dht_kademlia.bootstrap_retry_s=1"
        visor.start(LISTEN, bootstrap, quick)
        full.start(f"transport_stcpr.listen=127.0.0.1:{port}", profile="fullnode")
        for _ in range(100):
            if visor.run("visor", "dht", "peers")["peers"]:
                break
        assert visor.run("visor", "dht", "put", "late but well", "--salt", "a")["stored"] == 2
        full.run("visor", "whitelist", "add", visor.key())
        assert visor.run("visor", "tp-rpc", full.key(), "Health")["health"] == "ok"
        assert visor.run("visor", "dht", "sync")["complete"]


def test_q1_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "full") as full:
        full.start(LISTEN, profile="fullnode")
        seqs = {}
        for i in range(6):
            seqs[f"s{i}"] = full.run("visor", "dht", "put", f"v{i}", "--salt", f"s{i}")["seq"]
            if i % 2:
                full.kill()
                full.start(LISTEN, profile="fullnode")
        held = {r["salt"]: r["seq"] for r in full.run("visor", "dht", "list")["records"]}
        assert {k: held.get(k) for k in seqs} == seqs


def test_nodes_of_different_networks_refuse_each_other_by_name(tmp_path: Path) -> None:
    with node_processes(tmp_path, "one", "other") as (one, other):
        one.start(LISTEN, "network.name='a'")
        other.start(LISTEN, "network.name='b'")
        said = other.refused("tp", "add", one.key(), "--address", f"127.0.0.1:{one.port}")
        assert "network" in said


def test_logs_are_json_where_asked_for(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "n")
    done = subprocess.run(
        [sys.executable, "-m", "skycore", "--data", str(node.data), "--log-format", "json",
         "--set", "transport_stcpr.listen=256.0.0.1:0"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    lines = [x for x in done.stderr.splitlines() if x.startswith("{")]
    assert lines
    assert all({"ts", "level", "logger", "message"} <= set(json.loads(x)) for x in lines)
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stderr)
