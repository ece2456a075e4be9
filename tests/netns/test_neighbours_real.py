"""Two visors behind one NAT of a kernel, which has no hairpin: they meet inside of it."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from skycore.testing.deployment import part_fields
from skycore.testing.netns import Lab, RealNat
from skycore.testing.processes import node_processes

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("needs_lab")]
HTTP, UDP, PEERS = 9_080, 30_178, 7_777
BOUND_MAX_S = 60.0


@pytest.mark.parametrize(
    "nat",
    [RealNat.SYMMETRIC]
    + [
        pytest.param(nat, marks=pytest.mark.soak) for nat in RealNat if nat is not RealNat.SYMMETRIC
    ],
)
def test_m9_neighbours_meet_inside_their_nat(tmp_path, nat):
    """They listen everywhere, and know a resolver and each other's key."""
    with Lab() as lab, node_processes(tmp_path, "server", "alice", "bob") as nodes:
        server, alice, bob = nodes
        outside = lab.host("server")
        home = lab.host("alice", nat=nat)
        neighbour = lab.host("bob", behind=home)
        for node, host in zip(nodes, (outside, home, neighbour), strict=True):
            node.before = tuple(host.exec_words())
        server.start(
            'node.enable=["http_server","registry_sqlite","discovery_address_server"]',
            f"http_server.listen={outside.address}:{HTTP}",
            "discovery_address_server.private_addresses=true",
            f"discovery_address_server.udp_listen={outside.address}:{UDP}",
            f"transport_stcpr.listen={outside.address}:{PEERS}",
            profile="fullnode",
        )
        settings = (
            'node.disable=["dmsg_client"]',
            "transport_stcpr.listen=",
            f"transport_sudph.listen=0.0.0.0:{PEERS}",
            f"transport_sudph.resolver={outside.address}:{UDP}",
            f"discovery_address.url=http://{outside.address}:{HTTP}/ar",
            f"access_whitelist.hypervisors={json.dumps([alice.key()])}",
        )
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda node: node.start(*settings), (alice, bob)))
        end = time.monotonic() + BOUND_MAX_S
        while part_fields(server, "address_resolver")["udp_sessions"] < 2:
            assert time.monotonic() < end
            time.sleep(0.2)
        mapped = [part_fields(node, "sudph")["mapped"] for node in (alice, bob)]
        assert {at.rpartition(":")[0] for at in mapped} == {home.public}
        key = bob.key()
        assert alice.run("tp", "add", key)["type"] == "sudph"
        home.unplug()  # what they say to each other goes no way but inside
        assert alice.run("visor", "tp-rpc", key, "Overview")["public_key"] == key
        assert [row["type"] for row in alice.run("tp", "ls") if row["remote"] == key] == ["sudph"]
