"""`make demo-redis`: a mirror without a DHT, one Redis, two full nodes on it, and a visor.

A mirror process imports the first snapshot of a recorded network into Redis, in the name of the
network's authority. Two full nodes that were running before serve it from that Redis, and a visor
that knows them only reads it back over the DHT, equal record for record. A single change is then
followed to both full nodes and, over Kademlia, to the visor; each later snapshot replaces the one
before; Redis is flushed and filled again by the mirror alone. The last line is the figures; the
exit code is 0 only if all held.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from examples.demo import (
    REPOSITORY,
    DemoError,
    check,
    compared,
    found_network,
    living,
    records,
    say,
)
from skycore.jsonrpc import connect_control
from skycore.model.recording import facts, read_recording
from skycore.testing.processes import NodeProcess, NodeProcessError, node_processes
from skycore.testing.recording import generate_recording, real_recording
from skycore.testing.redisserver import RedisServer

SERVED_MAX_S = 2.0
"""How long after a mirror's write every full node on that Redis may take to serve it."""
HEALED_MAX_S = 60.0
PATIENCE_S = 60.0


def start(
    settings: Sequence[str],
    delegations: str,
    url: str,
    mirror: NodeProcess,
    fulls: Sequence[NodeProcess],
    visor: NodeProcess,
) -> None:
    """Start a mirror and a full node; then another on the same Redis, and a visor."""
    store = ['node.enable=["store_redis"]', 'node.disable=["store_sqlite"]',
             f"store_redis.url={url}"]  # fmt: skip
    network = [text for text in settings if text.startswith("network.")]
    own = (
        *network,
        delegations,
        f"mirror_redis.url={url}",
        "http_server.listen=127.0.0.1:0",
    )
    with ThreadPoolExecutor(2) as pool:
        starts = [
            pool.submit(mirror.start, *own, profile="mirror"),
            pool.submit(fulls[0].start, *settings, *store, profile="fullnode"),
        ]
        first = f"dht_kademlia.bootstrap={json.dumps([starts[1].result().contact])}"
        starts += [
            pool.submit(fulls[1].start, *settings, *store, first, profile="fullnode"),
            pool.submit(visor.start, *settings, first),
        ]
        for started in starts:
            started.result()


def listed(recording: Path, at: int) -> set[str]:
    found = facts(read_recording(recording.read_bytes()), at)
    return {f"{fact.subject.hex()}/{fact.salt.decode()}" for fact in found}


def wait(what: str, holds: Callable[[], bool], limit_s: float) -> float:
    """Wait until something holds; return how long it took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > limit_s:
            check(f"{what} within {limit_s:g} s", False)
        time.sleep(0.1)
    return time.monotonic() - began


def served(nodes: Sequence[NodeProcess], recording: Path, at: int, expected: set[str]) -> None:
    """Check that nodes hold what is recorded, and nothing else that lives."""
    rows = records(nodes[0])
    salts = {key.partition("/")[2] for key in expected}
    check(f"{nodes[0].name} serves exactly what is listed", living(rows, salts) == expected)
    for node in nodes[1:]:
        same = compared(records(node)) == compared(rows)
        check(f"{node.name} has the same, record for record", same)
    against = ("visor", "dht", "verify", "--against", str(recording), "--at", str(at))
    check("and it says what is recorded", nodes[-1].run(*against)["equal"])


def one_change(
    folder: Path, mirror: NodeProcess, nodes: Sequence[NodeProcess], visor: NodeProcess
) -> float:
    """Publish one new record; return how long after the mirror had it the last node served it.

    Redis keeps with a record when the mirror admitted it, so the times are of one clock.
    """
    key = bytes(range(1, 34)).hex()
    tiny = folder / "one.json"
    tiny.write_text(json.dumps({"snapshots": [{"dmsg_clients": [key]}]}))
    seen: dict[str, float] = {}
    began: list[float] = []

    async def until_served(node: NodeProcess, *, local: bool) -> None:
        async with connect_control(node.data) as client:
            asked: dict[str, Any] = {"salt": "dmsg", "subject": key, "local": local}
            while True:
                found = await client.call("dht.get", asked)
                if found["found"]:
                    break
                await anyio.sleep(0.01)
            seen[node.name] = time.time()
            if local:
                began.append(found["item"]["stored_at"])

    async def follow() -> None:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for node in nodes:
                    tasks.start_soon(partial(until_served, node, local=True))
                tasks.start_soon(partial(until_served, visor, local=False))
                await anyio.to_thread.run_sync(mirror.run, "mirror", "import", str(tiny))

    anyio.run(follow)
    for name, at in seen.items():
        behind_s = at - min(began)
        how = "reads it over the DHT" if name == visor.name else "serves it"
        check(f"one new record: {name} {how} {behind_s:.2f} s later", behind_s < SERVED_MAX_S)
    return max(seen.values()) - min(began)


def healed(server: RedisServer, full: NodeProcess) -> float:
    """Empty Redis; return how long the mirror took to fill it again from its own store."""
    before = compared(records(full))
    server.send("FLUSHALL")
    took_s = wait("Redis is filled again", lambda: compared(records(full)) == before, HEALED_MAX_S)
    check(f"Redis was emptied, and is as it was after {took_s:.1f} s", took_s < HEALED_MAX_S)
    return took_s


def demo(folder: Path, recording: Path) -> str:
    """Run it all; return the figures. Raises `DemoError` for what does not hold."""
    names = ("authority", "mirror", "full node", "full node 2", "visor")
    server = RedisServer(folder / "redis").start()
    try:
        with node_processes(folder, *names) as (authority, mirror, one, two, visor):
            began = time.monotonic()
            settings, delegations = found_network(authority, mirror, "stcpr")
            start(settings, delegations, server.url, mirror, (one, two), visor)
            up_s = time.monotonic() - began
            say(f"Redis, two full nodes, a visor and a mirror are up ({up_s:.1f} s)")

            at = time.monotonic()
            imported = mirror.run("mirror", "import", str(recording), "--at", "0")
            import_s, count = time.monotonic() - at, imported["published"]
            say(f"the mirror imported {recording.name}: {count} records in {import_s:.1f} s")
            check("nothing of it was refused", not imported["refused"] and not imported["queued"])
            synced = visor.run("visor", "dht", "sync")
            say(f"the visor synced {synced['received']} records")
            check("to the end, none refused", synced["complete"] and not synced["refused"])
            served((one, two, visor), recording, 0, listed(recording, 0))

            behind_s = one_change(folder, mirror, (one, two), visor)
            snapshots = len(read_recording(recording.read_bytes()).snapshots)
            for index in range(1, snapshots):
                words = ("mirror", "import", str(recording), "--at", str(index), "--replace")
                done = mirror.run(*words)
                changed = done["published"] - done["unchanged"]
                say(f"snapshot {index}: {changed} changed, {done['deleted']} deleted")
            visor.run("visor", "dht", "sync")
            served((one, two, visor), recording, snapshots - 1, listed(recording, snapshots - 1))
            heal_s = healed(server, two)
            told = mirror.run("visor", "info")
            check("the mirror has no transports", not told["overview"]["transport_count"])
            total = time.monotonic() - began
            return (
                f"demo-redis: {count} records; import {count / import_s:.0f}/s (with the start of "
                f"its command); one change read by all after {behind_s:.2f} s; "
                f"{snapshots - 1} snapshots replaced; emptied Redis filled again in {heal_s:.1f} s;"
                f" {total:.1f} s in all"
            )
    finally:
        server.stop()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="skynode-demo-") as name:
        folder = Path(name)
        recording = real_recording(REPOSITORY)
        if recording is None:
            recording = folder / "generated.json"
            recording.write_bytes(generate_recording(seed=1))
        try:
            figures = demo(folder, recording)
        except (DemoError, NodeProcessError, subprocess.TimeoutExpired, ImportError) as bad:
            print(f"demo failed: {bad}", file=sys.stderr)
            return 1
    print(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
