"""Three full nodes and four mirrors, as processes, on one real Redis: killed at random, 0 lost.

Writers publish increasing versions through each mirror's control socket, with the settings as they
are shipped. An answer is an acknowledgement, `queued` too; a call that ended otherwise is unknown,
and either outcome is right. Readers ask the nodes all the time: on one Redis no record may ever be
older than anybody has read before. At the end every node must serve, of every record, what was
acknowledged last or something newer, and all the same.

Redis itself is killed with an append-only file: what it acknowledged is in the page cache, which a
kill of the process leaves (M12). Without one, see test_chaos.py and docs/protocols/redis_schema.md.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import anyio
import pytest

from skycore.errors import SkycoreError
from skycore.jsonrpc import connect_control
from skycore.testing.fakes import identity
from skycore.testing.processes import NodeProcess, node_processes
from skycore.testing.redisserver import RedisServer

pytestmark = pytest.mark.processes
NODES = ("node1", "node2", "node3")
MIRRORS = ("mirror1", "mirror2", "mirror3", "mirror4")
RECORDS = 10
"""Of each mirror."""
PAUSE_S = 0.01
WHOLE_MAX_S = 60.0


class Chaos:
    """All processes of one run, and what is known of every record."""

    def __init__(self, folder: Path, seed: int, server: RedisServer, nodes: list[NodeProcess]):
        self.dice = random.Random(seed)
        self.server = server
        self.nodes = {node.name: node for node in nodes}
        self.settings: dict[str, tuple[str, ...]] = {}
        self.acknowledged: dict[str, int] = {}
        self.tried: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        self.regressed: list[str] = []
        self.counts: Counter[str] = Counter()
        self.is_over = False

    # --- processes ------------------------------------------------------------------------------

    def found(self, authority: NodeProcess) -> None:
        """Found the network; decide with what each process is started."""
        founded = authority.run("network", "new", "demo")
        network = (
            f"network.name={json.dumps(founded['name'])}",
            f"network.authority={json.dumps(founded['authority'])}",
        )
        for name in MIRRORS:
            key = self.nodes[name].key()
            token = authority.run("network", "delegate", key, "--salt", "dmsg")["delegations"]
            tokens = json.dumps(list(token.values()))
            self.settings[name] = (
                *network, f"publisher.delegations={tokens}", f"mirror_redis.url={self.server.url}",
                "http_server.listen=127.0.0.1:0",
            )  # fmt: skip
        for name in NODES:
            self.settings[name] = (
                *network, 'node.enable=["store_redis"]', 'node.disable=["store_sqlite"]',
                f"store_redis.url={self.server.url}", "transport_stcpr.listen=127.0.0.1:0",
            )  # fmt: skip

    def start(self, name: str) -> None:
        profile = "mirror" if name in MIRRORS else "fullnode"
        self.nodes[name].start(*self.settings[name], profile=profile)

    def start_all(self, names) -> None:
        with ThreadPoolExecutor(4) as pool:
            for started in [pool.submit(self.start, name) for name in names]:
                started.result()

    def kill_some(self, *, redis: bool) -> None:
        """Kill some (-9) at once, and start them again, Redis first or last."""
        victims = self.dice.sample(NODES, self.dice.choice((0, 1, 1, 2)))
        victims += self.dice.sample(MIRRORS, self.dice.choice((1, 1, 2)))
        self.dice.shuffle(victims)
        if redis:
            victims = victims[: self.dice.choice((0, 1))]
            self.server.stop()
            self.counts["redis killed"] += 1
        for name in victims:
            self.nodes[name].kill()
            self.counts["killed"] += 1
        if redis and self.dice.random() < 0.5:
            self.server.start()
            redis = False
        self.start_all(victims)
        if redis:
            self.server.start()

    # --- writers and readers --------------------------------------------------------------------

    async def write(self, name: str) -> None:
        """Publish increasing versions of this mirror's records, one call after another."""
        dice = random.Random(self.dice.random())
        subjects = [identity(f"{name}/{i}").public.hex() for i in range(RECORDS)]
        while not self.is_over:
            try:
                async with connect_control(self.nodes[name].data) as client:
                    while not self.is_over:
                        few = dice.sample(subjects, dice.choice((1, 1, 1, 2, RECORDS)))
                        await self._publish(client, few)
                        await anyio.sleep(dice.uniform(0, 2 * PAUSE_S))
            except SkycoreError as bad:
                assert "internal error" not in str(bad)
                self.counts["unknown"] += 1
                await anyio.sleep(0.1)

    async def _publish(self, client, subjects: list[str]) -> None:
        facts = []
        for subject in subjects:
            self.tried[subject] = self.tried.get(subject, 0) + 1
            entry = {"static": subject, "sequence": self.tried[subject]}
            facts.append({"salt": "dmsg", "subject": subject, "json": entry})
        done = await client.call("publish.facts", {"facts": facts})
        assert done["published"] == len(facts) and not done["refused"], done["reasons"]
        self.counts["acknowledged"] += len(facts)
        self.counts["queued"] += done["queued"]
        self.acknowledged |= {subject: self.tried[subject] for subject in subjects}

    async def read(self, name: str) -> None:
        """Read records from one node, for as long as there are any."""
        dice = random.Random(self.dice.random())
        while not self.is_over:
            try:
                async with connect_control(self.nodes[name].data) as client:
                    while not self.is_over:
                        if self.acknowledged:
                            subject = dice.choice(list(self.acknowledged))
                            least = self.seen.get(subject, 0)
                            version = await version_of(client, subject)
                            if version < least:
                                self.regressed.append(f"{name} {subject} {version} < {least}")
                            self.seen[subject] = max(version, self.seen.get(subject, 0))
                            self.counts["read"] += 1
                        await anyio.sleep(PAUSE_S)
            except SkycoreError:
                await anyio.sleep(0.1)

    # --- the end --------------------------------------------------------------------------------

    async def until_whole(self) -> None:
        """Wait until every node serves what was acknowledged last, or newer, and all the same."""
        async with (
            connect_control(self.nodes["node1"].data) as one,
            connect_control(self.nodes["node2"].data) as two,
            connect_control(self.nodes["node3"].data) as three,
        ):
            lost: dict[str, list[int]] = {}
            until = time.monotonic() + WHOLE_MAX_S
            while time.monotonic() < until:
                lost = {}
                for subject, least in self.acknowledged.items():
                    try:
                        versions = [await version_of(each, subject) for each in (one, two, three)]
                    except SkycoreError:  # Redis reads its file
                        versions = [0]
                    if min(versions) < least or len(set(versions)) > 1:
                        lost[subject] = [least, *versions]
                if not lost:
                    return
                await anyio.sleep(0.5)
        raise AssertionError(f"{len(lost)} of {len(self.acknowledged)} are not there: {lost}")


async def version_of(client, subject: str) -> int:
    asked = {"salt": "dmsg", "subject": subject, "local": True}
    found = await client.call("dht.get", asked)
    return found["item"]["value"]["sequence"] if found["found"] else 0


async def _run(chaos: Chaos, rounds: int, redis_rounds: int) -> None:
    async with anyio.create_task_group() as tasks:
        for name in MIRRORS:
            tasks.start_soon(chaos.write, name)
        for name in NODES:
            tasks.start_soon(chaos.read, name)
        kinds = [False] * rounds + [True] * redis_rounds
        chaos.dice.shuffle(kinds)
        for redis in kinds:
            await anyio.sleep(chaos.dice.uniform(0.2, 1.0))
            await anyio.to_thread.run_sync(partial(chaos.kill_some, redis=redis))
        await anyio.sleep(0.5)
        chaos.is_over = True
    await chaos.until_whole()


def chaos(folder: Path, seed: int, *, rounds: int, redis_rounds: int) -> None:
    # aof: what is acknowledged outlives the process
    server = RedisServer(folder / "redis", "--appendonly", "yes").start()
    try:
        with node_processes(folder, "authority", *NODES, *MIRRORS) as (authority, *nodes):
            run = Chaos(folder, seed, server, nodes)
            run.found(authority)
            run.start_all((*NODES, *MIRRORS))
            anyio.run(_run, run, rounds, redis_rounds)
            assert not run.regressed, run.regressed[:5]
            assert len(run.acknowledged) == RECORDS * len(MIRRORS)
            for node in nodes:
                log = node.log.read_text()
                assert "Traceback" not in log, (node.name, log[-4_000:])
            print(f"seed={seed}", dict(run.counts))
    finally:
        server.stop()


def test_c35_m12_nodes_mirrors_and_redis_are_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    chaos(tmp_path, 1, rounds=3, redis_rounds=1)


@pytest.mark.soak
@pytest.mark.parametrize(("seed", "redis"), [(2, 0), (3, 0), (4, 15), (5, 15), (6, 5), (7, 5)])
def test_c35_m12_and_so_it_is_for_long(tmp_path: Path, seed: int, redis: int) -> None:
    chaos(tmp_path, seed, rounds=15 if redis < 15 else 0, redis_rounds=redis)
