"""Real processes: two address resolvers on one Redis are one table for visors bound at either."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from skycore.testing.deployment import part_fields
from skycore.testing.processes import NodeProcess, NodeProcessError, node_processes
from skycore.testing.redisserver import RedisServer

pytestmark = pytest.mark.processes
GAP_MAX_S = 90.0
BOUND_MAX_S = 60.0


class Town:
    """A Redis, two resolvers on it, and a visor bound at each. Nobody takes TCP connections."""

    def __init__(self, redis: RedisServer, nodes: list[NodeProcess]) -> None:
        self.redis = redis
        self.one, self.two, self.alice, self.bob = nodes

    def start(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.start_resolver, (self.one, self.two)))
            list(pool.map(self.start_visor, (self.alice, self.bob), (self.one, self.two)))
        end = time.monotonic() + BOUND_MAX_S
        while sum(self.sessions(resolver) for resolver in (self.one, self.two)) < 2:
            assert time.monotonic() < end, self.alice.log.read_text()[-2_000:]
            time.sleep(0.2)

    def start_resolver(self, node: NodeProcess) -> None:
        node.start(
            'node.enable=["http_server","registry_redis","discovery_address_server"]',
            f"registry_redis.url={self.redis.url}",
            "http_server.listen=127.0.0.1:0",
            "discovery_address_server.private_addresses=true",
            "discovery_address_server.udp_listen=127.0.0.1:0",
            "discovery_address.publish=false",
            "transport_stcpr.listen=127.0.0.1:0",
            "transport_sudph.listen=127.0.0.1:0",
            "dht_kademlia.bootstrap=[]",
            profile="fullnode",
        )

    def start_visor(self, node: NodeProcess, resolver: NodeProcess) -> None:
        node.start(
            f"discovery_address.url={part_fields(resolver, 'http')['url']}/ar",
            'node.disable=["transport_stcpr","dmsg_client"]',
            "transport_sudph.listen=127.0.0.1:0",
            "dht_kademlia.bootstrap=[]",
        )

    def sessions(self, resolver: NodeProcess) -> int:
        return int(part_fields(resolver, "address_resolver")["udp_sessions"])

    def meets(self, limit_s: float) -> float:
        """Let alice find bob by his key alone; return after how long."""
        began = time.monotonic()
        while True:
            try:
                made = self.alice.run("tp", "add", self.bob.key())
            except NodeProcessError as not_yet:
                assert time.monotonic() - began < limit_s, not_yet
                time.sleep(0.5)
            else:
                assert made["type"] == "sudph"
                return time.monotonic() - began


@pytest.fixture
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    redis = RedisServer(folder / "redis").start()
    try:
        with node_processes(folder, "one", "two", "alice", "bob") as nodes:
            town = Town(redis, nodes)
            town.start()
            yield town
    finally:
        redis.stop()


def counted(resolver: NodeProcess, name: str) -> int:
    return int(part_fields(resolver, "address_resolver")["udp_datagrams"].get(name, 0))


def test_m9_a_key_bound_at_one_resolver_is_found_by_who_asks_the_other(town: Town) -> None:
    assert (town.sessions(town.one), town.sessions(town.two)) == (1, 1)
    town.meets(GAP_MAX_S)
    # his resolver dies: what it wrote is still in the table that the other one reads
    town.two.kill()
    town.alice.kill()  # she forgets where he is
    (town.alice.data / "transports.json").unlink()
    was = counted(town.one, "resolved_elsewhere")
    assert was >= 1
    town.start_visor(town.alice, town.one)
    town.meets(GAP_MAX_S)
    assert counted(town.one, "resolved_elsewhere") > was
