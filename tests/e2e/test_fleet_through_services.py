"""Visors register with real services; what the DHT of two full nodes says then is what they said.

Redis, a mirror with all services and two full nodes as processes; visors as keys that send signed
requests over real sockets. L1, L6, C54: nothing missing, nothing besides, also after a churn and
after the mirror, and Redis, died.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from benchmarks.workloads import FLEET_HUBS, FLEET_VISORS, fleet
from examples.demo_services import demo, later
from http_asgi.client import open_http_client
from http_asgi.settings import HttpClientSettings
from namespaces_skywire.declarations import ALL
from skycore.contracts.namespace import Namespaces
from skycore.model.entries import DmsgServer, Geo, ServiceEntry
from skycore.model.network import NetworkConstants
from skycore.model.recording import Snapshot, read_recording
from skycore.runtime.clock import RealClock
from skycore.runtime.network import RealNetwork
from skycore.testing.deployment import SERVERS, Deployment, deployment, part_fields
from skycore.testing.fakes import identity
from skycore.testing.processes import NodeProcess, node_processes
from skycore.testing.recording import generate_recording, real_recording
from skycore.testing.redisserver import RedisServer
from skycore.testing.visors import (
    SimulatedFleet,
    SimulatedVisor,
    visors_of_pairs,
    visors_of_snapshot,
)

pytestmark = pytest.mark.processes
NAMESPACES = Namespaces(ALL)
LAPTOP = Path(__file__).parents[2] / "examples" / "laptop.toml"
HUBS = len(FLEET_HUBS)
GIANT, GIANT_LINKS = 100_000, 5_000
VISORS = 150
LIFETIME_S = 60.0
REPEAT_S = 12.0
REPOSITORY = Path(__file__).parents[2]


def fleet_of(network: NetworkConstants, wanted: Iterable[int]) -> list[SimulatedVisor]:
    """Return visors of W-fleet, and one with 5,000 transports; all are DMSG clients, some more."""
    giant = [(GIANT, GIANT + n, "stcpr") for n in range(1, GIANT_LINKS + 1)]
    made = visors_of_pairs(
        [*fleet(), *giant], {*wanted, GIANT}, lambda n: identity(f"v{n}", network)
    )
    servers = [SimulatedVisor(identity(f"dmsg {n}", network)) for n in range(4)]
    for n, server in enumerate(servers):
        address = f"192.0.2.{n + 1}:30080"
        server.server = DmsgServer(address, available_sessions=2048, dht_bootstrap=n % 2 == 0)
    for number, visor in made.items():
        visor.delegated = (servers[number % 4].key, servers[(number + 1) % 4].key)
        visor.port = 10_000 + number % 50_000
        kinds = ("vpn", "skysocks")[: number % 3]
        visor.services = tuple(
            ServiceEntry(f"{visor.key}:{44 + at}", kind, "v1.3", Geo(country="IT"))
            for at, kind in enumerate(kinds)
        )
    return [*servers, *made.values()]


@asynccontextmanager
async def registering(
    deployed: Deployment, visors: Iterable[SimulatedVisor]
) -> AsyncIterator[SimulatedFleet]:
    clock = RealClock()
    async with open_http_client(HttpClientSettings(timeout_s=60), RealNetwork(), clock) as http:
        yield SimulatedFleet(visors, http, deployed.url, clock, NAMESPACES, deployed.served)


async def command(node: NodeProcess, *words: str):
    """Run a command while the fleet goes on."""
    return await anyio.to_thread.run_sync(partial(node.run, *words))


async def same_by_command(
    deployed: Deployment, folder: Path, limit_s: float = 60.0, *, is_empty: bool = False
) -> None:
    """`verify` says equal; `tp all` of a full node's store and of the service is one list.

    It is empty only where nobody has a transport: a recorded network that lists none.
    """
    told = {}
    with anyio.move_on_after(limit_s):
        while not told.get("equal"):
            done = await anyio.to_thread.run_sync(
                partial(deployed.fulls[1].command, "visor", "dht", "verify", "--against", "http")
            )
            told = {"equal": done.returncode == 0, "said": done.stdout + done.stderr}
    assert told.get("equal"), told.get("said")
    if "tp" not in deployed.served:
        return
    from_dht = await command(deployed.fulls[0], "tp", "all", "--source", "dht")
    nowhere = NodeProcess(folder / "nowhere")
    from_http = await command(nowhere, "tp", "all", "--url", f"{deployed.url}/tpd")
    assert from_dht == from_http and bool(from_dht) != is_empty


async def churn(fleet: SimulatedFleet, dice: random.Random) -> None:
    """1 % of the transports change, some visors leave, some die, some take back a part."""
    living = [v for v in fleet.visors.values() if v.transports and len(v.transports) < 300]
    dice.shuffle(living)
    leaving, dying, deleting, changing = living[:5], living[5:10], living[10:20], living[20:60]
    await fleet.leave(leaving)
    fleet.forget(dying)
    for visor in deleting:
        await fleet.unlink(visor, sorted(visor.transports)[: len(visor.transports) // 2])
    hubs = [v for v in fleet.visors.values() if len(v.transports) >= 300]
    for visor in (*hubs, *changing):
        for t_id in dice.sample(sorted(visor.transports), max(1, len(visor.transports) // 100)):
            far = next(k for k in visor.transports[t_id].edges if k != visor.key)
            visor.link(bytes.fromhex(far), visor.transports[t_id].type, "changed")
    for visor in changing[:10]:
        visor.services = visor.services[:1]
        visor.port += 1
    await fleet.register((*hubs, *changing))


async def whole_story(
    folder: Path, wanted: Iterable[int], limit_s: float, lifetime_s: float = LIFETIME_S
) -> None:
    ended_s = 2 * lifetime_s + limit_s
    with deployment(folder, lifetime_s=lifetime_s) as deployed:
        network = deployed.found()
        await anyio.to_thread.run_sync(deployed.start)
        settled = partial(deployed.settled, namespaces=NAMESPACES)
        async with (
            registering(deployed, fleet_of(network, wanted)) as fleet,
            anyio.create_task_group() as tasks,
        ):
            await fleet.register()
            tasks.start_soon(fleet.keep, REPEAT_S)
            await settled(fleet, limit_s=limit_s)
            expected = fleet.expected()
            sizes = sorted(len(v.transports) for v in fleet.visors.values())
            assert sizes[-2:] == [FLEET_HUBS[0], GIANT_LINKS]
            assert all(expected.values())
            await same_by_command(deployed, folder)

            await churn(fleet, random.Random(1))
            await settled(fleet, limit_s=ended_s)  # the dead end by themselves
            await same_by_command(deployed, folder)

            deployed.mirror.kill()
            one, *others = (v for v in fleet.visors.values() if v.transports and v.services)
            one.link(identity("somebody new", network).public, "sudph")
            await anyio.to_thread.run_sync(deployed.start_mirror)
            await settled(fleet, limit_s=limit_s)
            await same_by_command(deployed, folder)

            deployed.redis.stop()  # with all that was in it
            others[0].link(identity("somebody new", network).public, "sudph")
            deployed.redis.start()
            await settled(fleet, limit_s=ended_s)
            await same_by_command(deployed, folder)
            for part in ("transport_discovery", "service_discovery", "address_resolver"):
                assert part_fields(deployed.mirror, part)["differences"] == 0, part
            tasks.cancel_scope.cancel()


async def test_l1_l6_c54_what_a_fleet_registers_is_what_the_dht_says(tmp_path: Path) -> None:
    await whole_story(tmp_path, range(VISORS), 120)


@pytest.mark.soak
async def test_c54_the_whole_fleet(tmp_path: Path) -> None:
    await whole_story(tmp_path, range(FLEET_VISORS), 300, lifetime_s=300)


@pytest.mark.soak
async def test_c54_a_recorded_network_snapshot_after_snapshot(tmp_path: Path) -> None:
    """W-real: each recorded key is a key of ours; what the next snapshot lacks leaves."""
    path = real_recording(REPOSITORY)
    recording = read_recording(path.read_bytes() if path else generate_recording(seed=1))
    servers = {server.static: server.address for server in recording.dmsg_servers}
    with deployment(tmp_path) as deployed:
        network = deployed.found()
        await anyio.to_thread.run_sync(deployed.start)
        async with registering(deployed, ()) as fleet:
            known = Snapshot()
            for snapshot in recording.snapshots:
                known = later(known, snapshot)
                made = visors_of_snapshot(known, servers, lambda key: identity(key, network))
                now = {visor.key: visor for visor in made.values()}
                await fleet.replace(now.values())
                await deployed.settled(fleet, NAMESPACES, 300)
                none = not any(visor.transports for visor in fleet.visors.values())
                await same_by_command(deployed, tmp_path, is_empty=none)


async def test_a_mirror_serves_what_is_picked(tmp_path: Path) -> None:
    with deployment(tmp_path, ("tp", "svc"), fulls=1) as deployed:
        network = deployed.found()
        await anyio.to_thread.run_sync(deployed.start)
        async with registering(deployed, fleet_of(network, range(HUBS, HUBS + 5))) as fleet:
            await fleet.register()
            await deployed.settled(fleet, NAMESPACES)
            assert set(fleet.expected()) == {"tp", "svc"}
            gone = await fleet.http.get(f"{deployed.url}/dmsgd/health")
            assert gone.status == 404
        parts = {part["name"] for part in deployed.mirror.run("visor", "info")["parts"]}
        assert {"transport_discovery", "service_discovery"} < parts
        assert not {"dmsg_discovery", "address_resolver"} & parts


async def test_a_laptop_has_all_of_it_in_one_process(tmp_path: Path) -> None:
    """Services, registry and full node together; what was registered survives kill -9."""
    with node_processes(tmp_path, "authority", "laptop") as (authority, laptop):
        no_redis = RedisServer(tmp_path / "never started")
        deployed = Deployment(no_redis, authority, laptop, (laptop,), (), SERVERS, 300)
        network = deployed.found()
        (laptop.data / "node.toml").write_text(LAPTOP.read_text())
        ours = (
            *deployed.named, deployed.delegations, "transport_stcpr.listen=127.0.0.1:0",
            "http_server.requests_per_minute=0",
        )  # fmt: skip

        def start(listen: str) -> None:
            laptop.start(*ours, f"http_server.listen={listen}", profile="fullnode")

        await anyio.to_thread.run_sync(start, "127.0.0.1:0")
        deployed.url = part_fields(laptop, "http")["url"]
        async with registering(deployed, fleet_of(network, range(HUBS, HUBS + 20))[:-1]) as fleet:
            await fleet.register()
            await deployed.settled(fleet, NAMESPACES)
            laptop.kill()
            await anyio.to_thread.run_sync(start, deployed.url.removeprefix("http://"))
            await deployed.settled(fleet, NAMESPACES)
            first = next(v for v in fleet.visors.values() if v.transports)
            await fleet.leave([first])
            await deployed.settled(fleet, NAMESPACES)
            from_dht = await command(laptop, "tp", "all", "--source", "dht")
            nowhere = NodeProcess(tmp_path / "nowhere")
            assert from_dht == await command(nowhere, "tp", "all", "--url", f"{deployed.url}/tpd")
        assert laptop.stop() == 0


async def test_the_demo_of_services(tmp_path: Path) -> None:
    recording = generate_recording(
        seed=3, clients=80, visors_with_services=40, transports=20, snapshots=2
    )
    figures = await demo(tmp_path, read_recording(recording))
    assert "0.0 instead of" in figures
