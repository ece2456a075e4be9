"""A relay and two visors that take no connections, as real processes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from skycore.testing.processes import NodeProcess, NodeProcessError, node_processes

pytestmark = pytest.mark.processes


def part(node: NodeProcess, name: str) -> dict[str, object]:
    """Return what a part says of itself."""
    (found,) = [p for p in node.run("visor", "info")["parts"] if p["name"] == name]
    return dict(found["fields"])


def attached(node: NodeProcess, limit_s: float = 60.0) -> None:
    """Wait until a node is attached to a server."""
    until = time.monotonic() + limit_s
    while not part(node, "dmsg_client")["sessions"]:
        assert time.monotonic() < until, node.log.read_text()[-2000:]
        time.sleep(0.2)


def asked(node: NodeProcess, key: str, limit_s: float = 60.0) -> dict[str, object]:
    """Ask a node through another for its overview; return the answer."""
    until = time.monotonic() + limit_s
    while True:
        try:
            return dict(node.run("visor", "tp-rpc", key, "Overview"))
        except NodeProcessError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def test_a_real_relay(tmp_path: Path) -> None:
    with node_processes(tmp_path, "server", "alice", "bob") as (server, alice, bob):
        server.start("transport_stcpr.listen=127.0.0.1:0", profile="fullnode")
        contact = server.contact
        port = contact.rpartition(":")[2]
        trusts = f"access_whitelist.hypervisors={json.dumps([alice.key()])}"
        for node in (alice, bob):
            node.start(
                'node.disable=["transport_sudph"]',  # else they would meet without a relay
                "transport_stcpr.listen=",
                f"dmsg_client.servers={json.dumps([contact])}",
                trusts,
            )
        attached(alice)
        attached(bob)
        answer = asked(alice, bob.key())
        assert answer["public_key"] == bob.key()
        kinds = {t["type"] for t in alice.run("visor", "info")["overview"]["transports"]}
        assert "dmsg" in kinds
        relay = part(server, "dmsg_server")
        assert relay["sessions"] == 2 and relay["streams"] >= 1 and relay["bytes"] > 0
        server.kill()
        server.start(f"transport_stcpr.listen=127.0.0.1:{port}", profile="fullnode")
        attached(alice)
        attached(bob)
        assert asked(alice, bob.key())["public_key"] == bob.key()
        assert [node.stop() for node in (alice, bob, server)] == [0, 0, 0]
