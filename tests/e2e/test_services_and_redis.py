"""A real mirror service on a real Redis, and a full node that serves from it: what either says.

Server -> registry, mirror -> Redis -> full node -> back out, and the full node asks the service
over HTTP whether it is the same (L4, L22, L23). Records are held up on their way; answers are not.
"""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from skycore.model.keys import ED25519, parse_public
from skycore.model.network import NetworkConstants
from skycore.model.packets import transport_id
from skycore.model.requests import signed
from skycore.testing.fakes import identity
from skycore.testing.processes import NodeProcess, node_processes
from skycore.testing.redisserver import RedisServer

pytestmark = pytest.mark.processes
VISORS, HUB = 30, 300
AGAINST = ("--against", "http")


class Caller:
    """Visors that register with a service by nobody's code but Python's own."""

    def __init__(self, url: str, network: NetworkConstants) -> None:
        self.url = url
        self.network = network

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def register(self, name: str, others: list[str]) -> int:
        who = identity(name, self.network)
        told = json.loads(self.get(f"/security/nonces/{who.public.hex()}")[1])
        host, _, prefix = self.url.removeprefix("http://").partition("/")
        path, body = (
            f"/{prefix}/v3/transports/",
            json.dumps([self.entry(name, other) for other in others]).encode(),
        )
        nonce = told["next_nonce"]
        said = signed(self.network.id, "POST", host, path.encode(), nonce, body)
        headers = {
            "content-type": "application/json", "SW-Public": who.public.hex(),
            "SW-Nonce": str(nonce), "SW-Sig": who.sign(said).hex(),
        }  # fmt: skip
        request = urllib.request.Request(
            self.url + "/v3/transports/", data=body, headers=headers, method="POST"
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)

    def entry(self, name: str, other: str) -> dict[str, object]:
        one, two = (identity(n, self.network).public for n in (name, other))
        edges = sorted((one.hex(), two.hex()))
        return {"t_id": str(transport_id(one, two, "stcpr")), "edges": edges, "type": "stcpr"}


def fields(node: NodeProcess, part: str) -> dict:
    parts = {p["name"]: p for p in node.run("visor", "info")["parts"]}
    return parts[part]["fields"]


def until(is_so, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_l4_l22_l23_what_a_service_lists_is_what_full_nodes_on_its_redis_hold(
    tmp_path: Path,
) -> None:
    redis = RedisServer(tmp_path / "redis").start()
    try:
        with node_processes(tmp_path, "authority", "mirror", "full") as (authority, mirror, full):
            founded = authority.run("network", "new", "demo")
            token = authority.run("network", "delegate", mirror.key(), "--salt", "tp")
            network = NetworkConstants(
                ED25519, founded["name"], parse_public(ED25519, founded["authority"])
            )
            named = (
                f"network.name={json.dumps(founded['name'])}",
                f"network.authority={json.dumps(founded['authority'])}",
            )
            serving = (
                *named, 'node.enable=["registry_sqlite"]', 'node.disable=["registry_redis"]',
                f"mirror_redis.url={redis.url}",
                "http_server.requests_per_minute=0",
                "discovery_transport_server.requests_per_minute=0",
                "discovery_transport_server.verify_s=10",
                f"publisher.delegations={json.dumps(list(token['delegations'].values()))}",
            )  # fmt: skip
            mirror.start(*serving, "http_server.listen=127.0.0.1:0", profile="mirror")
            url = fields(mirror, "http")["url"] + "/tpd"
            full.start(
                *named, 'node.enable=["store_redis"]', 'node.disable=["store_sqlite"]',
                f"store_redis.url={redis.url}", f"discovery_transport.url={url}",
                "transport_stcpr.listen=127.0.0.1:0", profile="fullnode",
            )  # fmt: skip
            caller = Caller(url, network)
            peers = [f"peer{n}" for n in range(HUB)]
            assert caller.register("hub", peers) == 201
            for n in range(VISORS):
                assert caller.register(peers[n], ["hub", peers[(n + 1) % VISORS]]) == 201
            until(lambda: full.command("visor", "dht", "verify", *AGAINST).returncode == 0)
            same = full.run("visor", "dht", "verify", *AGAINST)
            assert same["equal"] and same["complete"] and same["same"] == VISORS + 1

            # L22: Redis stands still. The service answers and takes, and catches up afterwards.
            redis.signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                for n in range(VISORS):
                    assert caller.register(peers[n], ["hub"]) == 201
                assert caller.get("/all-transports")[0] == 200
                assert time.monotonic() - began < 30
                told = fields(mirror, "transport_discovery")
                assert told["feed_waiting"] <= VISORS
            finally:
                redis.signal(signal.SIGCONT)
            until(lambda: full.command("visor", "dht", "verify", *AGAINST).returncode == 0)
            until(lambda: fields(mirror, "transport_discovery")["differences"] == 0)
            text = full.command("visor", "dht", "verify", *AGAINST).stdout
            assert f"the same as http: {VISORS + 1} records" in text

            # What does not get through is named, and whoever scripts it gets exit code 1.
            assert mirror.stop() == 0
            assert "cannot be reached" in full.refused("visor", "dht", "verify", *AGAINST)
            listen = f"http_server.listen={url.removeprefix('http://').removesuffix('/tpd')}"
            mirror.start(
                *serving, listen, "discovery_transport_server.feed=false", profile="mirror"
            )
            assert caller.register("late", ["hub"]) == 201
            done = full.command("visor", "dht", "verify", *AGAINST)
            late = identity("late", network).public.hex()
            assert done.returncode == 1 and "not the same" in done.stderr
            assert f"missing   tp {late}" in done.stdout and "1 missing" in done.stdout
            assert "http  1, 1 only there; unsigned" in done.stdout
    finally:
        redis.stop()
