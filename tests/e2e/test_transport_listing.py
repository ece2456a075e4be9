"""Real processes: visors, a full node with the service, and `tp all` from each, and from none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skycore.testing.processes import NodeProcess, NodeProcessError

pytestmark = pytest.mark.processes
SERVER = 'node.enable=["http_server","http_client","registry_sqlite","discovery_transport_server","discovery_transport"]'  # noqa: E501
CLIENT = 'node.enable=["http_client","discovery_transport"]'
OURS = ("network.name=test", "transport_stcpr.listen=127.0.0.1:0")
WAIT_MAX_S = 60


def eventually(ask: Callable[[], Any], is_so: Callable[[Any], object]) -> Any:
    """Ask until the answer is as wanted."""
    until, told = time.monotonic() + WAIT_MAX_S, None
    while time.monotonic() < until:
        try:
            if is_so(told := ask()):
                return told
        except NodeProcessError as trouble:
            told = trouble
        time.sleep(0.2)
    raise AssertionError(f"not so: {told}")


def test_tp_all_from_everywhere(tmp_path: Path) -> None:
    with (
        NodeProcess(tmp_path / "server") as server,
        NodeProcess(tmp_path / "one") as one,
        NodeProcess(tmp_path / "two") as two,
    ):
        server.start(SERVER, *OURS, "http_server.listen=127.0.0.1:0", profile="fullnode")
        parts = {p["name"]: p for p in server.run("visor", "info")["parts"]}
        url = f"{parts['http']['fields']['url']}/tpd"
        known = (f'dht_kademlia.bootstrap=["{server.contact}"]', *OURS)
        for visor in (one, two):
            visor.start(CLIENT, *known, f"discovery_transport.url={url}")
        made = one.run("tp", "add", two.key(), "--address", two.contact.partition("@")[2])
        entry = {
            "t_id": made["id"],
            "edges": sorted((one.key(), two.key())),
            "type": "stcpr",
        }

        def is_there(rows: Any) -> bool:
            return [{k: v for k, v in row.items() if k != "label"} for row in rows] == [entry]

        for node in (server, one):  # from its own store, and from the service
            eventually(lambda n=node: n.command("tp", "all").stdout, lambda page: " both " in page)
        rows = server.run("tp", "all")
        assert is_there(rows) and one.run("tp", "all") == rows
        nowhere = NodeProcess(tmp_path / "nowhere")
        assert nowhere.run("tp", "all", "--url", url) == rows
        done = nowhere.command("tp", "all", "--url", url, "--json")
        assert json.loads(done.stdout) == rows and "Source: the transport" in done.stderr
        assert not (tmp_path / "nowhere").exists()
        refused = one.refused("tp", "all", "--source", "dht")
        assert "does not know all" in refused and "hint:" in refused
        assert "no node runs" in nowhere.refused("tp", "all")
        parts = {p["name"]: p for p in one.run("visor", "info")["parts"]}
        assert parts["transport_registration"]["fields"]["registrations"] >= 1
        assert one.stop() == two.stop() == 0
        empty = eventually(lambda: server.run("tp", "all", "--url", url), lambda r: r == [])
        assert empty == server.run("tp", "all")
        assert server.stop() == 0
