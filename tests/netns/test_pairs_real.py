"""U10 on a kernel's NATs: the 16 pairs, real visors, one resolver, all of them processes."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from skycore.testing.netns import Lab, RealNat
from skycore.testing.processes import NodeProcess, NodeProcessError

HTTP, UDP, PEERS = 9_080, 30_178, 7_777
HARD = {
    (RealNat.SYMMETRIC, RealNat.SYMMETRIC),
    (RealNat.SYMMETRIC, RealNat.PORT_RESTRICTED),
    (RealNat.PORT_RESTRICTED, RealNat.SYMMETRIC),
}
FOUND_AS = {
    RealNat.FULL_CONE: "cone",
    RealNat.ADDRESS_RESTRICTED: "cone",
    RealNat.PORT_RESTRICTED: "port-restricted",
    RealNat.SYMMETRIC: "symmetric",
}
BOUND_MAX_S = 60.0
FAIL_MAX_S = 10.0
COMMAND_S = 6.0
"""What a command's own start may take on a busy machine."""

pytestmark = pytest.mark.processes


class Town:
    """Two visors behind each kind of NAT, and a resolver that all of them reach."""

    def __init__(self, lab, folder):
        self.lab = lab
        self.server_host = lab.host("resolver")
        self.resolver = NodeProcess(folder / "resolver", before=self.server_host.exec_words())
        self.hosts, self.visors = {}, {}
        for kind in RealNat:
            for side in ("here", "there"):
                host = lab.host(f"{kind.value}-{side}", nat=kind)
                self.hosts[kind, side] = host
                self.visors[kind, side] = NodeProcess(
                    folder / f"{kind.value}-{side}", before=host.exec_words()
                )

    def start(self):
        at = self.server_host.address
        self.resolver.start(
            'node.enable=["http_server","registry_sqlite","discovery_address_server"]',
            f"http_server.listen={at}:{HTTP}",
            "http_server.requests_per_minute=0",
            "discovery_address_server.private_addresses=true",
            "discovery_address_server.requests_per_minute=0",
            f"discovery_address_server.udp_listen={at}:{UDP}",
            f"transport_stcpr.listen={at}:{PEERS}",
            profile="fullnode",
        )
        settings = [
            'node.enable=["transport_sudph"]',
            "transport_stcpr.listen=",
            f"transport_sudph.listen=0.0.0.0:{PEERS}",
            f"transport_sudph.resolver={at}:{UDP}",
            f"discovery_address.url=http://{at}:{HTTP}/ar",
        ]
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(v.start, *settings) for v in self.visors.values()]:
                done.result()
        until = time.monotonic() + BOUND_MAX_S
        while time.monotonic() < until and self.status()["udp_sessions"] < len(self.visors):
            time.sleep(0.5)
        assert self.status()["udp_sessions"] == len(self.visors), self.status()

    def status(self):
        parts = {p["name"]: p for p in self.resolver.run("visor", "info")["parts"]}
        return parts["address_resolver"]["fields"]

    def stop(self):
        for node in (self.resolver, *self.visors.values()):
            node.kill()


@pytest.fixture(scope="module")
def town(needs_lab, tmp_path_factory):
    with Lab() as lab:
        town = Town(lab, tmp_path_factory.mktemp("town"))
        try:
            town.start()
            yield town
        finally:
            town.stop()


@pytest.mark.parametrize("there", RealNat)
@pytest.mark.parametrize("here", RealNat)
def test_u10_open_pairs_meet_and_hard_pairs_fail_cleanly(town, here, there):
    alice, bob = town.visors[here, "here"], town.visors[there, "there"]
    began = time.monotonic()
    if (here, there) in HARD:
        said = alice.refused("tp", "add", bob.key(), "--type", "sudph")
        took_s = time.monotonic() - began
        assert "punching failed: NAT here" in said
        assert took_s <= FAIL_MAX_S + COMMAND_S
        assert not [row for row in alice.run("tp", "ls") if row["remote"] == bob.key()]
        return
    try:
        made = alice.run("tp", "add", bob.key(), "--type", "sudph")
    except NodeProcessError as bad:
        raise AssertionError(f"{bad}\n{alice.traceback()}\n{json.dumps(town.status())}") from bad
    print(f"{here.value} x {there.value}: {time.monotonic() - began:.2f} s")
    assert made["type"] == "sudph"
