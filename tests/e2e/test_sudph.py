"""Real processes: two visors without TCP meet through an address resolver's UDP side."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from skycore.testing.processes import NodeProcess, node_processes

pytestmark = pytest.mark.processes

SERVER = (
    'node.enable=["http_server","registry_sqlite","discovery_address_server"]',
    "http_server.listen=127.0.0.1:0",
    "discovery_address_server.private_addresses=true",
    "discovery_address_server.udp_listen=127.0.0.1:0",
    "discovery_address.publish=false",
    "transport_stcpr.listen=127.0.0.1:0",
    "transport_sudph.listen=127.0.0.1:0",
    "dht_kademlia.bootstrap=[]",
)


def part(node: NodeProcess, name: str) -> dict[str, object]:
    """Return what a part of a node says of itself."""
    (found,) = (p for p in node.run("visor", "info")["parts"] if p["name"] == name)
    return dict(found["fields"])


def until(is_so, limit_s: float = 30.0) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def country(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NodeProcess]]:
    """A resolver that is a full node, and two visors that know its URL and nothing else."""
    with node_processes(tmp_path_factory.mktemp("sudph"), "server", "alice", "bob") as nodes:
        server, alice, bob = nodes
        server.start(*SERVER, profile="fullnode")
        url = part(server, "http")["url"]
        for visor, profile in ((alice, "visor"), (bob, "fullnode")):
            visor.start(
                f'discovery_address.url="{url}/ar"',
                'node.disable=["transport_stcpr"]',
                "transport_sudph.listen=127.0.0.1:0",
                f'access_whitelist.whitelist=["{alice.key()}"]',
                "dht_kademlia.bootstrap=[]",
                profile=profile,
            )
        until(lambda: part(alice, "sudph")["bound"] and part(bob, "sudph")["bound"])
        yield nodes


def test_one_line_of_config_binds_at_the_resolver(country: list[NodeProcess]) -> None:
    server, alice, _ = country
    said = part(alice, "sudph")
    assert said["resolver"] == part(server, "address_resolver")["udp"]
    assert said["mapped"] == said["listen"]
    assert said["nat"] == "none"
    until(lambda: part(alice, "address")["seen_at"] == {"sudph": said["mapped"]})
    assert part(alice, "address")["addresses"] == [f"sudph {said['mapped']}"]


def test_m9_visors_without_tcp_meet_and_tp_ls_shows_it(country: list[NodeProcess]) -> None:
    _, alice, bob = country
    row = alice.run("tp", "add", bob.key())
    assert (row["type"], row["remote"]) == ("sudph", bob.key())
    (shown,) = alice.run("tp", "ls")
    assert shown["id"] == row["id"] and shown["loss"] is not None and shown["age_s"] >= 0
    (far,) = bob.run("tp", "ls")
    assert (far["type"], far["remote"], far["dialled"]) == ("sudph", alice.key(), False)
    text = alice.command("tp", "ls").stdout
    assert "LOSS" in text and "sudph" in text


def test_m27_rpc_and_the_dht_work_over_it(country: list[NodeProcess]) -> None:
    _, alice, bob = country
    alice.run("tp", "add", bob.key())
    overview = alice.run("visor", "tp-rpc", bob.key(), "Overview")
    assert bob.key() in str(overview)
    synced = alice.run("visor", "dht", "sync", bob.key())
    assert synced["complete"]
    assert {t["type"] for t in alice.run("tp", "ls")} == {"sudph"}
