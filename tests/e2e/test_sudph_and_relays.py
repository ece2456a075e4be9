"""Real processes with all types at once: who is reached by which, and what losers leave."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from skycore.testing.deployment import part_fields
from skycore.testing.processes import NodeProcess, node_processes

pytestmark = pytest.mark.processes
READY_MAX_S = 60.0
NO_TCP = "transport_stcpr.listen="
TAKES = {
    "stcpr": ("transport_stcpr.listen=127.0.0.1:0",),
    "sudph": (NO_TCP,),
    "dmsg": (NO_TCP, "transport_sudph.accept=false"),
}
"""What three visors take connections by; all of them have all types."""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, NodeProcess]]:
    """A full node that relays and resolves, and visors that know it."""
    folder = tmp_path_factory.mktemp("town")
    with node_processes(folder, "server", "alice", *TAKES) as nodes:
        server, alice, *others = nodes
        server.start(
            'node.enable=["dmsg_server","http_server","registry_sqlite","discovery_address_server"]',
            "http_server.listen=127.0.0.1:0",
            "discovery_address_server.private_addresses=true",
            "discovery_address_server.udp_listen=127.0.0.1:0",
            "transport_stcpr.listen=127.0.0.1:0",
            "transport_sudph.listen=127.0.0.1:0",
            "dht_kademlia.bootstrap=[]",
            profile="fullnode",
        )
        known = (
            'node.enable=["dmsg_client"]',
            'node.disable=["dht_kademlia"]',  # nobody dials but the test
            f"dmsg_client.servers={json.dumps([server.contact])}",
            f"transport_sudph.resolver={part_fields(server, 'address_resolver')['udp']}",
            "transport_sudph.listen=127.0.0.1:0",
            f"access_whitelist.hypervisors={json.dumps([alice.key()])}",
        )

        def start(node: NodeProcess) -> None:
            node.start(*known, *TAKES.get(node.name, (NO_TCP,)))

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(start, (alice, *others)))
        end = time.monotonic() + READY_MAX_S
        while not is_ready(server, 1 + len(others)):
            assert time.monotonic() < end, alice.log.read_text()[-2_000:]
            time.sleep(0.2)
        yield {"server": server, "alice": alice} | {node.name: node for node in others}


def is_ready(server: NodeProcess, count: int) -> bool:
    parts = {p["name"]: p["fields"] for p in server.run("visor", "info")["parts"]}
    bound, attached = parts["address_resolver"]["udp_sessions"], parts["dmsg_server"]["sessions"]
    return bool(bound == attached == count)


@pytest.mark.parametrize("best", TAKES)
def test_m9_stcpr_before_sudph_before_a_relay(town: dict[str, NodeProcess], best: str) -> None:
    alice, bob = town["alice"], town[best]
    key, own = bob.key(), alice.key()
    where = ("--address", f"127.0.0.1:{bob.port}") if best == "stcpr" else ()
    began = time.monotonic()
    made = alice.run("tp", "add", key, *where)
    assert made["type"] == best and time.monotonic() - began <= 10
    assert alice.run("visor", "tp-rpc", key, "Overview")["public_key"] == key
    ends = {
        name: [(row["id"], row["type"]) for row in node.run("tp", "ls") if row["remote"] == other]
        for name, node, other in (("here", alice, key), ("there", bob, own))
    }
    assert ends["here"] == ends["there"] == [(made["id"], best)]


def test_losers_are_closed(town: dict[str, NodeProcess]) -> None:
    """As many QUIC connections and relayed streams as there are links, none of a dial that lost."""
    names = ("alice", *TAKES)
    end = time.monotonic() + 30
    while True:
        rows = [row["type"] for name in names for row in town[name].run("tp", "ls")]
        quic = sum(part_fields(town[name], "sudph")["connections"] for name in names)
        relayed = part_fields(town["server"], "dmsg_server")["streams"]
        if (quic, 2 * relayed) == (rows.count("sudph"), rows.count("dmsg")):
            return
        assert time.monotonic() < end, (quic, relayed, rows)
        time.sleep(0.5)
