"""`make demo-services`: visors register over HTTP, and the DHT says the same.

Redis, a mirror with all four discovery services and two full nodes on that Redis. The visors of a
recorded network (a real one where it is at hand, each key mapped to one of ours; else a generated
one of the same shape) register their transports, services, DMSG entries and addresses with signed
requests over real sockets, and are read back out of both full nodes' stores, value by value: equal
sets, nothing missing, nothing besides. Each later snapshot replaces the one before; the mirror is
killed and comes back. Meanwhile two real visors keep a transport between them registered: one hands
it over to the DHT, the other does not, and their requests are counted. The last line is the
figures; the exit code is 0 only if all held.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from examples.demo import REPOSITORY, DemoError, check, say
from http_asgi.client import open_http_client
from http_asgi.settings import HttpClientSettings
from namespaces_skywire.declarations import ALL
from skycore.contracts.namespace import Namespaces
from skycore.errors import SkycoreError
from skycore.model.recording import Recording, Snapshot, read_recording
from skycore.runtime.clock import RealClock
from skycore.runtime.network import RealNetwork
from skycore.testing.deployment import Deployment, deployment, part_fields
from skycore.testing.fakes import identity
from skycore.testing.processes import NodeProcess, NodeProcessError
from skycore.testing.recording import generate_recording, real_recording
from skycore.testing.visors import SimulatedFleet, SimulatedVisor, visors_of_snapshot

Make = Callable[[Snapshot], Sequence[SimulatedVisor]]
NAMESPACES = Namespaces(ALL)
PATIENCE_S = 120.0
CYCLE_S = 10
"""Of the two visors, so that a minute shows what takes minutes: the real ones are 90 and 60 s."""
HAND_OVER_MAX_S = 60.0
FAILURES = (
    DemoError, NodeProcessError, SkycoreError, AssertionError, subprocess.TimeoutExpired,
    ImportError,
)  # fmt: skip
WATCHED_S = 20.0
"""How long their requests are counted after the hand-over, at least."""


def later(known: Snapshot, snapshot: Snapshot) -> Snapshot:
    """Return what is known after a snapshot: an empty list of it was not recorded."""
    names = ("services", "dmsg_clients", "transports", "sudph", "stcpr")
    rows = {name: getattr(snapshot, name) or getattr(known, name) for name in names}
    return Snapshot(snapshot.taken, **rows)


def start_visors(deployed: Deployment) -> None:
    """Start two visors with a transport between them; the first may hand it over to the DHT."""
    full = deployed.fulls[0]
    ours = (
        *deployed.named, *deployed.client_settings(), "transport_stcpr.listen=127.0.0.1:0",
        f"dht_kademlia.bootstrap={json.dumps([full.contact])}",
        f"discovery_transport.register_s={CYCLE_S}", f"discovery_transport.publish_s={CYCLE_S}",
        "discovery_transport.debounce_s=1",
    )  # fmt: skip
    one, other = deployed.others
    one.start(*ours)
    other.start(*ours, "discovery_transport.hand_over=false")
    one.run("tp", "add", other.key(), "--address", other.contact.partition("@")[2])


def told(visor: NodeProcess) -> Mapping[str, Any]:
    return part_fields(visor, "transport_registration")


async def handed_over(visor: NodeProcess) -> float:
    """Wait until the DHT carries a visor's transports; return how long it took."""
    began = time.monotonic()
    fields: Mapping[str, Any] = {}
    while time.monotonic() - began < HAND_OVER_MAX_S:
        fields = await anyio.to_thread.run_sync(told, visor)
        if fields["carried_by_dht"]:
            return time.monotonic() - began
        await anyio.sleep(0.5)
    raise DemoError(f"no hand-over within {HAND_OVER_MAX_S:g} s: {fields.get('lacking')}")


async def counted(deployed: Deployment) -> str:
    """Count the registrations of both visors from the hand-over on; return them per minute."""
    one, other = deployed.others
    took_s = await handed_over(one)
    say(f"visor 1 handed its transport over to the DHT (after {took_s:.1f} s)")
    began, before = time.monotonic(), [told(visor)["registrations"] for visor in (one, other)]
    await anyio.sleep(WATCHED_S)
    after = [told(visor)["registrations"] for visor in (one, other)]
    minutes = (time.monotonic() - began) / 60
    with_it, without = ((a - b) / minutes for a, b in zip(after, before, strict=True))
    say(
        f"registrations over HTTP per minute, at a cycle of {CYCLE_S} s: {with_it:.1f} by who "
        f"handed over, {without:.1f} by who did not"
    )
    check("who handed over sends none", with_it == 0 < without)
    rows = NodeProcess(deployed.redis.folder / "nobody").run(
        "tp", "all", "--url", f"{deployed.url}/tpd"
    )
    edges = sorted(visor.key() for visor in (one, other))
    check("the service lists its transport all the same", edges in [row["edges"] for row in rows])
    return f"{with_it:.1f} instead of {without:.1f} registrations a minute after the hand-over"


async def same(deployed: Deployment, fleet: SimulatedFleet) -> float:
    """Check that both full nodes hold what the visors said; return how long that took to be."""
    took_s = await deployed.settled(fleet, NAMESPACES, PATIENCE_S)
    counts = ", ".join(f"{len(rows)} {salt}" for salt, rows in fleet.expected().items())
    check(f"both full nodes hold exactly that, {took_s:.1f} s later: {counts}", True)
    return took_s


async def by_command(deployed: Deployment) -> None:
    """Check the same as a person would."""
    words = ("visor", "dht", "verify", "--against", "http")
    done = await anyio.to_thread.run_sync(partial(deployed.fulls[1].command, *words))
    if done.returncode:  # all of it: who says what of whom, and since when
        say((done.stdout + done.stderr).rstrip())
    said = (done.stderr or done.stdout).strip().splitlines()
    check(f"skynode {' '.join(words)}: {said[0] if said else ''}", done.returncode == 0)
    nobody = NodeProcess(deployed.redis.folder / "nobody")
    asked = (
        (deployed.fulls[0], ("tp", "all", "--source", "dht")),
        (nobody, ("tp", "all", "--url", f"{deployed.url}/tpd")),
    )
    rows = [await anyio.to_thread.run_sync(partial(node.run, *words)) for node, words in asked]
    check(f"skynode tp all: {len(rows[0])} by the DHT and by HTTP alike", rows[0] == rows[1])


async def story(
    deployed: Deployment, recording: Recording, fleet: SimulatedFleet, make: Any
) -> str:
    """Register, change, kill; return the figures."""
    known, first = Snapshot(), True
    lags = []
    for snapshot in recording.snapshots:
        known = later(known, snapshot)
        at, before = time.monotonic(), fleet.requests
        await fleet.replace(make(known))
        took_s, count = time.monotonic() - at, fleet.requests - before
        if first:
            rate = count / took_s
            say(f"{len(fleet.visors)} visors registered: {count} requests, {rate:.0f}/s")
        else:
            say(f"the next snapshot: {count} requests in {took_s:.1f} s")
        lags.append(await same(deployed, fleet))
        first = False
    await by_command(deployed)
    deployed.mirror.kill()
    one = next(visor for visor in fleet.visors.values() if visor.transports)
    one.link(identity("somebody new", one.who.network).public, "stcpr")
    await anyio.to_thread.run_sync(deployed.start_mirror)
    await fleet.register([one])
    say("the mirror was killed and is back, and one visor has a new transport")
    await same(deployed, fleet)
    await by_command(deployed)
    return (
        f"{len(fleet.visors)} visors at {rate:.0f} requests/s; behind by {max(lags):.1f} s at most"
    )


async def demo(folder: Path, recording: Recording) -> str:
    """Run it all; return the figures. Raises `DemoError` for what does not hold."""
    began, clock = time.monotonic(), RealClock()
    servers = {server.static: server.address for server in recording.dmsg_servers}
    figures: list[str] = []
    with deployment(folder, others=("visor 1", "visor 2")) as deployed:
        network = deployed.found()
        await anyio.to_thread.run_sync(deployed.start)
        await anyio.to_thread.run_sync(start_visors, deployed)
        up_s = time.monotonic() - began
        say(f"Redis, a mirror, two full nodes and two visors are up ({up_s:.1f} s)")

        def make(known: Snapshot) -> list[SimulatedVisor]:
            made = visors_of_snapshot(known, servers, lambda key: identity(key, network))
            return list(made.values())

        async def hand_over() -> None:
            figures.append(await counted(deployed))

        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(
                open_http_client(HttpClientSettings(timeout_s=60), RealNetwork(), clock)
            )
            fleet = SimulatedFleet((), http, deployed.url, clock, NAMESPACES)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hand_over)
                figures.insert(0, await story(deployed, recording, fleet, make))
    return f"demo-services: {'; '.join(figures)}; {time.monotonic() - began:.1f} s in all"


def first_of(bad: Exception) -> Exception:
    """Return the first of several failures, or the only one; what is no failure is raised."""
    while isinstance(bad, ExceptionGroup):
        bad = bad.exceptions[0]
    if not isinstance(bad, FAILURES):
        raise bad
    return bad


def main() -> int:
    """Run the demo; return its exit code."""
    with tempfile.TemporaryDirectory(prefix="skynode-demo-") as name:
        path = real_recording(REPOSITORY)
        recording = read_recording(path.read_bytes() if path else generate_recording(seed=1))
        say(f"visors of {path.name if path else 'a generated network'}")
        try:
            figures = anyio.run(demo, Path(name), recording)
        except (*FAILURES, ExceptionGroup) as bad:
            print(f"demo failed: {first_of(bad)}", file=sys.stderr)
            return 1
    print(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
