"""U10 on a kernel's NATs: the 16 pairs, real visors, one resolver, all of them processes."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from skycore.testing.deployment import part_fields
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
REBOUND_MAX_S = 70.0
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
        self.visors = {}
        for kind in RealNat:
            for side in ("here", "there"):
                name = f"{kind.value}-{side}"
                before = lab.host(name, nat=kind).exec_words()
                self.visors[kind, side] = NodeProcess(folder / name, before=before)
        with ThreadPoolExecutor(2) as pool:
            made = pool.map(NodeProcess.key, (self.resolver, *self.visors.values()))
        self.keys = dict(zip((self.resolver, *self.visors.values()), made, strict=True))

    def start_resolver(self, *, relays=False):
        self.relays = relays
        at = self.server_host.address
        switch = 'node.enable=[%s"http_server","registry_sqlite","discovery_address_server"]'
        self.resolver.start(
            switch % ('"dmsg_server",' * relays),
            'node.disable=["transport_sudph"%s]' % (',"dmsg_server"' * (not relays)),
            f"http_server.listen={at}:{HTTP}",
            "http_server.requests_per_minute=0",
            "discovery_address_server.private_addresses=true",
            "discovery_address_server.requests_per_minute=0",
            f"discovery_address_server.udp_listen={at}:{UDP}",
            f"transport_stcpr.listen={at}:{PEERS}",
            profile="fullnode",
        )

    def start(self, kinds=RealNat, *, relays=False):
        """Start visors of some kinds; with relays they use that of the resolver's node."""
        at = self.server_host.address
        settings = [
            "transport_stcpr.listen=",
            f"transport_sudph.listen=0.0.0.0:{PEERS}",
            f"transport_sudph.resolver={at}:{UDP}",
            f"discovery_address.url=http://{at}:{HTTP}/ar",
        ]
        if relays:
            contact = f"{self.keys[self.resolver]}@{at}:{PEERS}"
            callers = json.dumps([self.keys[self.visors[kind, "here"]] for kind in kinds])
            settings += [
                'node.enable=["dmsg_client"]',
                f"dmsg_client.servers={json.dumps([contact])}",
                f"access_whitelist.hypervisors={callers}",
            ]
        else:
            settings += ['node.disable=["dmsg_client"]']
        visors = [self.visors[kind, side] for kind in kinds for side in ("here", "there")]
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(visor.start, *settings) for visor in visors]:
                done.result()

    def bound(self, limit_s=BOUND_MAX_S):
        """Wait until all visors are bound; return the seconds that it took."""
        began = time.monotonic()
        while self.status()["udp_sessions"] < len(self.visors):
            assert time.monotonic() - began < limit_s, self.status()
            time.sleep(0.5)
        return time.monotonic() - began

    def status(self):
        return dict(part_fields(self.resolver, "address_resolver"))

    def links(self, node, other):
        """Return the types of a node's links to another one."""
        return [row["type"] for row in node.run("tp", "ls") if row["remote"] == self.keys[other]]

    def stop(self):
        for node in (self.resolver, *self.visors.values()):
            node.kill()


@pytest.fixture(scope="module")
def town(needs_lab, tmp_path_factory):
    with Lab() as lab:
        town = Town(lab, tmp_path_factory.mktemp("town"))
        try:
            town.start_resolver()
            town.start()
            town.bound()
            yield town
        finally:
            town.stop()


@pytest.fixture(scope="module")
def refusals(town):
    """What the hard pairs said, and after how long. Together: each takes as long as it may."""

    def refused(pair):
        alice, bob = town.visors[pair[0], "here"], town.visors[pair[1], "there"]
        began = time.monotonic()
        return alice.refused("tp", "add", town.keys[bob]), time.monotonic() - began

    hard = sorted(HARD, key=str)
    with ThreadPoolExecutor(len(hard)) as pool:
        return dict(zip(hard, pool.map(refused, hard), strict=True))


@pytest.mark.parametrize("there", RealNat)
@pytest.mark.parametrize("here", RealNat)
def test_u10_open_pairs_meet_and_hard_pairs_fail_cleanly(town, refusals, here, there):
    alice, bob = town.visors[here, "here"], town.visors[there, "there"]
    if (here, there) in HARD:
        said, took_s = refusals[here, there]
        assert "punching failed: NAT here" in said
        assert took_s <= FAIL_MAX_S + COMMAND_S
        assert not town.links(alice, bob)
        return
    began = time.monotonic()
    try:
        made = alice.run("tp", "add", town.keys[bob])
    except NodeProcessError as bad:
        raise AssertionError(f"{bad}\n{alice.traceback()}\n{json.dumps(town.status())}") from bad
    print(f"{here.value} x {there.value}: {time.monotonic() - began:.2f} s")
    assert made["type"] == "sudph"


def test_t3106_a_resolver_that_is_killed_has_every_visor_again_within_70_s(town):
    """Killed and started again as a process, now with a relay beside it."""
    town.resolver.kill()
    town.start_resolver(relays=True)
    print(f"all are bound again after {town.bound(REBOUND_MAX_S):.1f} s")


def test_u10_hard_pairs_talk_through_a_relay(town):
    """Where no hole can be punched and both know a relay, RPC goes through it."""
    kinds = (RealNat.PORT_RESTRICTED, RealNat.SYMMETRIC)
    visors = [town.visors[kind, side] for kind in kinds for side in ("here", "there")]
    with ThreadPoolExecutor(len(visors)) as pool:
        assert set(pool.map(NodeProcess.stop, visors)) == {0}
    if not town.relays:
        town.resolver.kill()
        town.start_resolver(relays=True)
    town.start(kinds, relays=True)
    town.bound()
    until = time.monotonic() + BOUND_MAX_S
    while part_fields(town.resolver, "dmsg_server")["sessions"] < len(visors):
        assert time.monotonic() < until
        time.sleep(0.5)
    for here, there in sorted(HARD, key=str):
        alice, bob = town.visors[here, "here"], town.visors[there, "there"]
        began = time.monotonic()
        made = alice.run("tp", "add", town.keys[bob])
        print(f"{here.value} x {there.value}: a relay after {time.monotonic() - began:.2f} s")
        assert made["type"] == "dmsg" and time.monotonic() - began <= FAIL_MAX_S + COMMAND_S
        told = alice.run("visor", "tp-rpc", town.keys[bob], "Overview")
        assert told["public_key"] == town.keys[bob]
        assert town.links(alice, bob) == town.links(bob, alice) == ["dmsg"]
    alice, bob = (town.visors[RealNat.PORT_RESTRICTED, side] for side in ("here", "there"))
    assert alice.run("tp", "add", town.keys[bob])["type"] == "sudph"  # a relay is the last way
