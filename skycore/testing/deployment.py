"""A network as processes: Redis, a mirror with the discovery services, full nodes on that Redis.

What the services are told must come out of the full nodes' DHT stores again. Everything listens on
this machine alone, on ports that were free.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio

from skycore.contracts.namespace import Namespaces
from skycore.errors import SkycoreError
from skycore.jsonrpc import connect_control
from skycore.model.keys import ED25519, parse_public
from skycore.model.network import NetworkConstants
from skycore.testing.processes import NodeProcess, NodeProcessError, node_processes
from skycore.testing.redisserver import RedisServer
from skycore.testing.visors import SALTS, Content, SimulatedFleet, held_by

__all__ = ["CLIENTS", "SERVERS", "Deployment", "deployment", "differences", "part_fields"]

SERVERS: Final = {
    "tp": "discovery_transport_server",
    "dmsg": "discovery_dmsg_server",
    "svc": "discovery_service_server",
    "addr": "discovery_address_server",
}
"""The plugin that serves a salt."""
CLIENTS: Final = {
    "tp": "discovery_transport",
    "dmsg": "discovery_dmsg",
    "svc": "discovery_service",
    "addr": "discovery_address",
}
PATHS: Final = {"tp": "/tpd", "dmsg": "/dmsgd", "svc": "/sd", "addr": "/ar"}
SHOWN: Final = 5
LOOK_S: Final = 0.5


class Deployment:
    """The processes. `await settled(fleet)` returns once the full nodes say what a fleet said."""

    def __init__(
        self, redis: RedisServer, authority: NodeProcess, mirror: NodeProcess,
        fulls: Sequence[NodeProcess], others: Sequence[NodeProcess],
        served: Collection[str], lifetime_s: float,
    ) -> None:  # fmt: skip
        self.redis, self.authority, self.mirror, self.fulls = redis, authority, mirror, fulls
        self.others = others
        """Nodes that nobody has started: what they say of themselves is not the fleet's."""
        self.named: tuple[str, ...] = ()
        """Settings that every node of this network needs."""
        self.served = tuple(salt for salt in SERVERS if salt in served)
        self.host = "127.0.0.1"
        """Where the mirror listens; another one where it runs in a network of its own."""
        self.redis_url = redis.url
        self.url = ""
        """Where the services are: "http://HOST:PORT"."""
        self._lifetime_s = lifetime_s
        self.delegations = ""
        """The setting by which the mirror may publish of others."""
        self._keys: frozenset[str] = frozenset()

    @property
    def salts(self) -> tuple[str, ...]:
        """Return the salts under which the services publish."""
        also = ("dmsg-server",) if "dmsg" in self.served else ()
        return tuple(salt for salt in SALTS if salt in (*self.served, *also))

    def found(self) -> NetworkConstants:
        """Make a network of its own, in which the mirror may publish of others."""
        founded = self.authority.run("network", "new", "demo")
        words = [word for salt in SALTS for word in ("--salt", salt)]
        tokens = self.authority.run("network", "delegate", self.mirror.key(), *words)["delegations"]
        self.named = (
            f"network.name={json.dumps(founded['name'])}",
            f"network.authority={json.dumps(founded['authority'])}",
        )
        self.delegations = f"publisher.delegations={json.dumps(list(tokens.values()))}"
        authority = parse_public(ED25519, founded["authority"])
        return NetworkConstants(ED25519, founded["name"], authority)

    def start(self) -> None:
        """Start the mirror, then the full nodes, the second of which knows the first."""
        self.start_mirror()
        ours = (
            *self.named, 'node.enable=["store_redis"]', 'node.disable=["store_sqlite"]',
            f"store_redis.url={self.redis_url}", "transport_stcpr.listen=127.0.0.1:0",
            *self.client_settings(),
        )  # fmt: skip
        first, *others = self.fulls
        first.start(*ours, profile="fullnode")
        contact = f"dht_kademlia.bootstrap={json.dumps([first.contact])}"
        with ThreadPoolExecutor(len(others) or 1) as pool:
            for done in [pool.submit(n.start, *ours, contact, profile="fullnode") for n in others]:
                done.result()

    def start_mirror(self) -> None:
        """Start the mirror; a second time at the port of the first."""
        left_out = [plugin for salt, plugin in SERVERS.items() if salt not in self.served]
        settings = [
            *self.named, self.delegations, f"node.disable={json.dumps(left_out)}",
            f"mirror_redis.url={self.redis_url}",
            f"http_server.listen={self.url.removeprefix('http://') or f'{self.host}:0'}",
            "http_server.requests_per_minute=0", "http_server.client_connections_max=256",
        ]  # fmt: skip
        for salt in self.served:
            settings += [f"{SERVERS[salt]}.{text}" for text in self._server_settings(salt)]
        self.mirror.start(*settings, profile="mirror")
        self.url = str(part_fields(self.mirror, "http")["url"])

    def _server_settings(self, salt: str) -> Sequence[str]:
        """Everybody is at one address here, and some speak more often than visors do."""
        life = f"{self._lifetime_s:g}"
        lives = (f"client_lifetime_s={life}", f"server_lifetime_s={life}")
        return {
            "tp": ("requests_per_minute=0", "transports_max=8192", f"entry_lifetime_s={life}"),
            "svc": ("requests_per_minute=0", f"entry_lifetime_s={life}"),
            "addr": ("requests_per_minute=0", "private_addresses=true", f"entry_lifetime_s={life}"),
            "dmsg": ("loopback=true", *lives),
        }[salt] + (() if salt == "dmsg" else ("verify_s=20",))

    def client_settings(self) -> Sequence[str]:
        """Return what a node needs to know the services."""
        return [f"{CLIENTS[salt]}.url={self.url}{PATHS[salt]}" for salt in self.served]

    @property
    def own_keys(self) -> frozenset[str]:
        """Return the keys of the nodes: what they say of themselves is no visor's."""
        if len(self._keys) < len(self.fulls) + len(self.others):
            self._keys = frozenset(node.key() for node in (*self.fulls, *self.others))
        return self._keys

    async def held(self, node: NodeProcess, namespaces: Namespaces) -> Content:
        """Return what a full node holds of everybody but the nodes themselves."""
        async with connect_control(node.data) as client:
            told = await held_by(client, self.salts, namespaces)
        own = self.own_keys
        return {
            salt: {subject: v for subject, v in rows.items() if subject not in own}
            for salt, rows in told.items()
        }

    async def settled(
        self, fleet: SimulatedFleet, namespaces: Namespaces, limit_s: float = 60.0
    ) -> float:
        """Wait until every full node holds exactly what the fleet said; return how long it took.

        Raises `AssertionError` with what differs after `limit_s`.
        """
        began = time.monotonic()
        differing: Sequence[str] = ("nothing was read yet",)
        while time.monotonic() - began < limit_s:
            differing = []
            for node in self.fulls:
                try:
                    held = await self.held(node, namespaces)
                except SkycoreError as trouble:
                    differing.append(f"{node.name}: {trouble}")
                    break
                differing += [f"{node.name}: {d}" for d in differences(held, fleet.expected())]
                if differing:
                    break
            if not differing:
                return time.monotonic() - began
            await anyio.sleep(LOOK_S)
        raise AssertionError(f"not the same after {limit_s:g} s: " + "; ".join(differing))


def differences(held: Content, expected: Content) -> list[str]:
    """Return by salt what is missing, besides, or otherwise, each with some of it; empty: equal."""
    found = []
    for salt in sorted(held.keys() | expected.keys()):
        ours, theirs = held.get(salt, {}), expected.get(salt, {})
        other = [key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]]
        for what, keys in (
            ("missing", theirs.keys() - ours.keys()),
            ("extra", ours.keys() - theirs.keys()),
            ("different", other),
        ):
            if keys:
                some = ", ".join(key[:8] for key in sorted(keys)[:SHOWN])
                found.append(f"{salt}: {len(keys)} {what} ({some})")
    return found


def part_fields(node: NodeProcess, part: str) -> Mapping[str, Any]:
    """Return the fields of a part's status. Raises `NodeProcessError` where there is no such."""
    parts = {p["name"]: p for p in node.run("visor", "info")["parts"]}
    if part not in parts:
        raise NodeProcessError(f"{node.name} has no part {part}: {sorted(parts)}")
    fields: Mapping[str, Any] = parts[part]["fields"]
    return fields


@contextmanager
def deployment(
    folder: Path,
    served: Collection[str] = tuple(SERVERS),
    *,
    lifetime_s: float = 300.0,
    fulls: int = 2,
    others: Sequence[str] = (),
) -> Iterator[Deployment]:
    """Make the processes, Redis started, the nodes not; whatever runs at the end is ended."""
    socket = folder / "redis" / "sock"  # crosses network namespaces, as a port does not
    redis = RedisServer(folder / "redis", "--unixsocket", str(socket)).start()
    names = ["authority", "mirror", *(f"full node {n + 1}" for n in range(fulls)), *others]
    try:
        with node_processes(folder, *names) as (authority, mirror, *nodes):
            yield Deployment(
                redis, authority, mirror, nodes[:fulls], nodes[fulls:], served, lifetime_s
            )
    finally:
        redis.stop()
