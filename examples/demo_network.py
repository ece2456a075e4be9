"""`make demo-network`: a network of nodes behind NATs, which then loses all its HTTP discovery.

Redis, a mirror with all services, three full nodes (the first on that Redis, the others on SQLite)
that are DMSG servers, too, and visors that nobody can dial. A recorded network (a real one where it
is at hand, else a generated one of the same shape) is imported at the mirror and comes to all full
nodes. Half of the visors find their relays by the HTTP services, the others by one relay that their
configuration names. Then the mirror is ended: no HTTP discovery is left. A new visor, whose whole
configuration is one relay's address, finds the other relays and its peers by the DHT, reads every
record, and calls visors behind NATs through relays; it starts again with no address at all, and a
relay that it uses is killed. The last line is the figures; the exit code is 0 only if all held.

The NATs are the kernel's, each node in a network namespace, where that can be made (root, nftables,
conntrack). Elsewhere visors take no connections and have no UDP, which leaves them what the hardest
NAT would: connections that they make themselves. `--nat kernel|none` asks for either.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from examples.demo import REPOSITORY, DemoError, Rows, check, compared, living, records, say
from skycore.testing.deployment import Deployment, deployment, part_fields
from skycore.testing.netns import Lab, LabError, RealNat, missing
from skycore.testing.processes import NodeProcess, NodeProcessError
from skycore.testing.recording import generate_recording, real_recording

PATIENCE_S = 60.0
STARTS_AT_ONCE = 4
NATS = (RealNat.SYMMETRIC, RealNat.PORT_RESTRICTED)
FAILURES = (DemoError, NodeProcessError, LabError, subprocess.TimeoutExpired, ImportError)


@dataclass(frozen=True)
class Size:
    """How large the network is."""

    fulls: int = 3
    visors: int = 10


class Country:
    """Where nodes run: hosts of a lab, or this machine's loopback."""

    def __init__(self, lab: Lab | None) -> None:
        self._lab = lab

    def settle(self, node: NodeProcess) -> str:
        """Let a node run on the open network; return its host."""
        if self._lab is None:
            return "127.0.0.1"
        host = self._lab.host(node.name.replace(" ", ""))
        node.before = tuple(host.exec_words())
        return host.address

    def hide(self, node: NodeProcess, nat: RealNat) -> Sequence[str]:
        """Let a node run behind a NAT; return the settings that this takes."""
        if self._lab is None:
            return 'node.disable=["transport_sudph"]', "transport_stcpr.listen="
        host = self._lab.host(node.name.replace(" ", ""), nat=nat)
        node.before = tuple(host.exec_words())
        # a host that is not public: so it follows hints to others of that kind
        return (f"transport_stcpr.listen={host.address}:0",)


def together(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do several things at a time; return what came of each."""
    with ThreadPoolExecutor(STARTS_AT_ONCE) as pool:
        return [done.result() for done in [pool.submit(job) for job in jobs]]


def until(what: str, look: Callable[[], bool], limit_s: float = PATIENCE_S) -> float:
    """Wait until something is so, and check it; return how long it took."""
    began = time.monotonic()
    while not look():
        if time.monotonic() - began > limit_s:
            check(f"{what} within {limit_s:g} s", held=False)
        time.sleep(0.2)
    took_s = time.monotonic() - began
    check(f"{what} ({took_s:.1f} s)", held=True)
    return took_s


class Network:
    """The nodes, and what their configurations must say."""

    def __init__(self, deployed: Deployment, country: Country, size: Size) -> None:
        self.deployed, self.country = deployed, country
        self.fulls, self.visors = deployed.fulls, deployed.others[: size.visors]
        self.newcomer = deployed.others[size.visors]
        self.contacts: list[str] = []
        """PK@host:port of each full node."""
        self.keys: Mapping[str, str] = {}

    def start(self) -> None:
        """Start the mirror and the first full node, then the others, then the visors."""
        deployed = self.deployed
        deployed.found()
        deployed.host = self.country.settle(deployed.mirror)
        deployed.redis_url = f"unix://{deployed.redis.folder / 'sock'}"
        deployed.start_mirror()
        store = (
            'node.enable=["store_redis"]', 'node.disable=["store_sqlite"]',
            f"store_redis.url={deployed.redis_url}",
        )  # fmt: skip
        self._start_full(self.fulls[0], *store)
        known = f"dht_kademlia.bootstrap={json.dumps(self.contacts[:1])}"
        for full in self.fulls[1:]:
            self._start_full(full, known)
        trusts = f"access_whitelist.hypervisors={json.dumps([self.newcomer.key()])}"
        relay = f"dmsg_client.servers={json.dumps(self.contacts[:1])}"
        jobs: list[Callable[[], Any]] = []
        for at, visor in enumerate(self.visors):
            hidden = self.country.hide(visor, NATS[at % len(NATS)])
            known_by = deployed.client_settings() if at % 2 else (relay,)
            jobs.append(partial(visor.start, *deployed.named, *hidden, *known_by, trusts))
        together(jobs)
        nodes = (*self.fulls, *self.visors)
        keys = together([node.key for node in nodes])
        self.keys = dict(zip([node.name for node in nodes], keys, strict=True))

    def _start_full(self, full: NodeProcess, *more: str) -> None:
        host = self.country.settle(full)
        services = self.deployed.client_settings()
        listen = f"transport_stcpr.listen={host}:0"
        full.start(*self.deployed.named, *services, listen, *more, profile="fullnode")
        self.contacts.append(f"{full.key()}@{host}:{full.port}")

    def mirrored(self, node: NodeProcess) -> Rows:
        """Return what a node holds of the recording: what concerns none of these nodes."""
        own = self.deployed.own_keys
        return {key: row for key, row in records(node).items() if row["subject"] not in own}


def sessions(node: NodeProcess, but: str = " ") -> int:
    """Return with how many relays a visor has a session, not counting one of a key."""
    return sum(not but.startswith(key) for key in part_fields(node, "dmsg_client")["sessions"])


def same_everywhere(network: Network, expected: int) -> None:
    """Wait until all full nodes hold the same records of the recording."""

    def look() -> bool:
        held = together([partial(network.mirrored, full) for full in network.fulls])
        same = all(compared(rows) == compared(held[0]) for rows in held)
        return same and len(living(held[0])) == expected

    until(f"all {len(network.fulls)} full nodes have all {expected} records, the same", look)


def call_through_relay(caller: NodeProcess, name: str, key: str) -> float:
    """Call a visor that nobody can dial; return how long the whole command took."""
    began = time.monotonic()
    overview = caller.run("visor", "tp-rpc", key, "Overview")
    took_s = time.monotonic() - began
    kinds = {row["type"] for row in caller.run("tp", "ls") if row["remote"] == key}
    held = overview["public_key"] == key and kinds == {"dmsg"}
    check(f"{caller.name} calls {name} through a relay ({took_s:.1f} s)", held)
    return took_s


def join(network: Network, settings: Sequence[str]) -> tuple[float, float]:
    """Let the new visor join by one relay; return when the DHT answered, and when it had all."""
    new, fulls = network.newcomer, network.fulls
    relay = f"dmsg_client.servers={json.dumps(network.contacts[-1:])}"
    began = time.monotonic()
    new.start(*settings, relay)
    until("a DHT node has answered it", lambda: bool(new.run("visor", "dht", "peers")["peers"]))
    peers_s = time.monotonic() - began
    servers = {key_of(contact) for contact in network.contacts}

    def knows_all() -> bool:
        told = new.run("dmsg", "servers", "--source", "dht")["servers"]
        return servers <= {row["pk"] for row in told}

    until(f"it knows all {len(fulls)} relays, of which its configuration names one", knows_all)
    until("it is attached to two of them", lambda: sessions(new) >= 2)
    found = {row["public"] for row in new.run("visor", "dht", "full-nodes")["full_nodes"]}
    check(f"it finds all {len(fulls)} full nodes", found == servers)
    synced = new.run("visor", "dht", "sync")
    check(f"it read {synced['received']} records, none refused", not synced["refused"])
    rows = compared(network.mirrored(new))
    check("they are the same, record for record", rows == compared(network.mirrored(fulls[0])))
    return peers_s, time.monotonic() - began


def key_of(contact: str) -> str:
    """Return the key of PK@host:port."""
    return contact.partition("@")[0]


def outlive(network: Network, settings: Sequence[str]) -> float:
    """Start the new visor again, told nothing; kill a relay; return how long calls were lost."""
    new = network.newcomer
    new.stop()
    (new.data / "routing_table.msgpack").unlink()  # else its peers would lead it to relays, too
    new.start(*settings)
    until(
        "started again without any address, it is attached: it remembers", lambda: sessions(new) > 0
    )
    first = network.fulls[0]
    first.kill()
    left = len(network.fulls) - 1
    say(f"{first.name} is killed; {left} are left")
    expected, visors = min(2, left), (*network.visors, new)
    gone = network.keys[first.name]
    lost_s = until(
        f"all visors are attached to {expected} of the others",
        lambda: all(n >= expected for n in together([partial(sessions, v, gone) for v in visors])),
    )
    call_through_relay(new, network.visors[0].name, network.keys[network.visors[0].name])
    return lost_s


def demo(folder: Path, recording: Path, country: Country, size: Size) -> str:
    """Run it all; return the figures. Raises `DemoError` for what does not hold."""
    began = time.monotonic()
    names = [*(f"visor {n + 1}" for n in range(size.visors)), "new visor"]
    with deployment(folder, fulls=size.fulls, others=names) as deployed:
        network = Network(deployed, country, size)
        network.start()
        up_s = time.monotonic() - began
        say(f"a mirror, {size.fulls} full nodes and {size.visors} visors are up ({up_s:.1f} s)")
        imported = deployed.mirror.run("mirror", "import", str(recording), "--at", "0")
        check(f"{recording.name}: {imported['published']} imported", not imported["refused"])
        same_everywhere(network, imported["published"])
        wanted = min(2, size.fulls)
        until(
            f"each visor is attached to {wanted} relays",
            lambda: all(
                n >= wanted for n in together([partial(sessions, v) for v in network.visors])
            ),
        )
        deployed.mirror.stop()
        say("the mirror has ended, and with it all HTTP discovery")
        settings = (*deployed.named, *country.hide(network.newcomer, RealNat.SYMMETRIC))
        answer_s, all_s = join(network, settings)
        calls = [
            call_through_relay(network.newcomer, visor.name, network.keys[visor.name])
            for visor in network.visors[:2]
        ]
        lost_s = outlive(network, settings)
        return (
            f"demo-network: {size.fulls} full nodes, {size.visors} visors behind NATs, "
            f"{imported['published']} records; without HTTP a new visor had its first DHT answer "
            f"after {answer_s:.1f} s and everything after {all_s:.1f} s; calls through a relay "
            f"{max(calls):.1f} s at most, with the start of their commands; {lost_s:.1f} s until "
            f"all had left a killed relay; {time.monotonic() - began:.1f} s in all"
        )


@contextmanager
def country_of(nat: str) -> Iterator[Country]:
    """Make what is asked for; `auto`: the kernel's NATs where they can be made."""
    why = missing() if nat != "none" else "not asked for"
    if nat == "kernel" and why:
        raise LabError(why)
    if why:
        say(f"no NATs of the kernel ({why}): visors take no connections and have no UDP")
        yield Country(None)
        return
    say("each node is in a network of its own; visors are behind NATs of the kernel")
    with Lab() as lab:
        yield Country(lab)


def main() -> int:
    """Run the demo; return its exit code."""
    parser = argparse.ArgumentParser(description="A network that loses its HTTP discovery.")
    parser.add_argument("--nat", choices=("auto", "kernel", "none"), default="auto")
    nat = parser.parse_args().nat
    with tempfile.TemporaryDirectory(prefix="skynode-demo-") as name:
        folder = Path(name)
        recording = real_recording(REPOSITORY)
        if recording is None:
            recording = folder / "generated.json"
            recording.write_bytes(generate_recording(seed=1))
        try:
            with country_of(nat) as country:
                figures = demo(folder, recording, country, Size())
        except FAILURES as bad:
            print(f"demo failed: {bad}", file=sys.stderr)
            return 1
    print(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
