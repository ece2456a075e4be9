"""Real processes: an address resolver and a service discovery, and visors that find each other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skycore.testing.processes import NodeProcess, node_processes

pytestmark = pytest.mark.processes

STRANGER = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
SERVER = (
    'node.enable=["http_server","registry_sqlite","discovery_address_server",'
    '"discovery_service_server"]',
    "http_server.listen=127.0.0.1:0",
    "discovery_address_server.private_addresses=true",
    "discovery_address.publish=false",
    "transport_stcpr.listen=127.0.0.1:0",
    "dht_kademlia.bootstrap=[]",
)


def url_of(node: NodeProcess) -> str:
    """Return where a node says that it serves HTTP."""
    parts = {p["name"]: p for p in node.run("visor", "info")["parts"]}
    return str(parts["http"]["fields"]["url"])


def part(node: NodeProcess, name: str) -> dict[str, object]:
    """Return what a part of a node says of itself."""
    (found,) = (p for p in node.run("visor", "info")["parts"] if p["name"] == name)
    return dict(found["fields"])


def until(is_so, limit_s: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def country(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NodeProcess]]:
    """A server, and two visors that know it and nobody else."""
    folder = tmp_path_factory.mktemp("addresses")
    with node_processes(folder, "server", "alice", "bob") as nodes:
        server, alice, bob = nodes
        server.start(*SERVER, profile="fullnode")
        url = url_of(server)
        for visor in (alice, bob):
            visor.start(
                f'discovery_address.url="{url}/ar"',
                f'discovery_service.url="{url}/sd"',
                'discovery_service.services=[{type="vpn",port=44},{type="skysocks",port=3}]',
                "transport_stcpr.listen=127.0.0.1:0",
                "dht_kademlia.bootstrap=[]",
            )
        until(lambda: part(server, "address_resolver")["binds"] == 2)
        until(lambda: part(server, "service_discovery")["services"] == 4)
        yield nodes


def test_m27_tp_add_needs_no_address(country: list[NodeProcess]) -> None:
    _, alice, bob = country
    row = alice.run("tp", "add", bob.key())
    assert row["remote"] == bob.key()
    assert row["label"] == "user"
    said = alice.refused(
        "tp", "add", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    )
    assert "no address is known" in said
    assert "--address" in said


def test_a_visor_knows_how_it_is_seen(country: list[NodeProcess]) -> None:
    _, alice, _ = country
    told = part(alice, "address")
    assert told["bound"]
    assert told["seen_at"] == {"stcpr": "127.0.0.1"}
    assert told["addresses"] == [f"stcpr 127.0.0.1:{alice.port}"]


def test_l1_svc_ls_with_a_node_and_without_one(country: list[NodeProcess], tmp_path: Path) -> None:
    server, alice, bob = country
    answer = alice.run("svc", "ls", "--source", "http")
    assert len(answer["services"]) == 4
    assert not answer["partial"]
    wanted = {f"{node.key()}:44" for node in (alice, bob)}
    answer = alice.run("svc", "ls", "--type", "vpn")
    assert {row["address"] for row in answer["services"]} == wanted
    nobody = NodeProcess(tmp_path / "nobody")
    url = f"{url_of(server)}/sd"
    answer = nobody.run("svc", "ls", "--url", url, "--type", "proxy")
    assert {row["address"] for row in answer["services"]} == {
        f"{node.key()}:3" for node in (alice, bob)
    }
    shown = nobody.command("svc", "ls", "--url", url)
    assert shown.returncode == 0, shown.stderr
    assert "4 services. Source: http" in shown.stdout
    assert "error:" in nobody.refused("svc", "ls")
    assert "error:" in nobody.refused("svc", "ls", "--url", "http://127.0.0.1:1/sd")


def test_l6_who_stops_is_taken_off_at_once(country: list[NodeProcess]) -> None:
    server, _, bob = country
    assert bob.stop() == 0
    assert part(server, "address_resolver")["binds"] == 1
    assert part(server, "service_discovery")["services"] == 2
