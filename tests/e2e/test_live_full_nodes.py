"""Two full nodes and a visor, as processes: what is put at one is at the other within seconds."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from skycore.testing.processes import NodeProcess, node_processes

pytestmark = pytest.mark.processes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def arrives(node: NodeProcess, writer: NodeProcess, salt: str, value: str, limit_s: float) -> float:
    """Return the seconds until a node's own store has a record."""
    began = time.monotonic()
    words = ("visor", "dht", "get", writer.key(), "--salt", salt, "--local", "--json")
    while time.monotonic() - began < limit_s:
        got = json.loads(node.command(*words).stdout or "{}")
        if got.get("found") and got["item"]["value"] == value:
            return time.monotonic() - began
        time.sleep(0.05)
    raise AssertionError(f"{node.name} has no {value!r} after {limit_s} s")


@pytest.mark.parametrize("seed_first", [True, False])
def test_c33_a_visors_record_is_on_the_other_full_node(tmp_path: Path, seed_first: bool) -> None:
    """The visor knows one full node only, and starts before or after the other is up."""
    with node_processes(tmp_path, "one", "two", "visor") as (one, two, visor):
        port = free_port()
        seed = f"{one.key()}@127.0.0.1:{port}"

        def start_one() -> None:
            one.start(f"transport_stcpr.listen=127.0.0.1:{port}", profile="fullnode")

        def start_two() -> None:
            # it cannot be dialled, so the visor puts nothing there: it comes by the watch, or not
            two.start(
                "transport_stcpr.listen=",
                'node.disable=["transport_sudph"]',
                f"dht_kademlia.bootstrap={json.dumps([seed])}",
                "dht_kademlia.bootstrap_retry_s=2",
                profile="fullnode",
            )

        for start in (start_one, start_two) if seed_first else (start_two, start_one):
            start()
        visor.start(
            "transport_stcpr.listen=127.0.0.1:0",
            f"dht_kademlia.bootstrap={json.dumps([seed])}",
        )
        put = visor.run("visor", "dht", "put", "hello", "--salt", "note")
        assert two.key() not in [replica["peer"] for replica in put["replicas"]]
        arrives(two, visor, "note", "hello", 30)
        assert one.run("visor", "dht", "status")["advertised"]
