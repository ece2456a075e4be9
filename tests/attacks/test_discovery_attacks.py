"""Attacks on a discovery server: forged, replayed, foreign, oversized, malformed, too many.

The server is the real HTTP server over real sockets, before the transport discovery. Rule for each:
the answer is a refusal with a status of its own (never 500), nothing is stored, nothing is kept for
the stranger, and an honest caller is answered afterwards.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import asynccontextmanager

import anyio
import pytest

from discovery_transport.server.service import open_desk, open_routes
from discovery_transport.server.settings import TransportServerSettings
from http_asgi.client import open_http_client
from http_asgi.service import open_http_server
from http_asgi.settings import HttpClientSettings, HttpServerSettings
from skycore import Live
from skycore.contracts.runtime import NodeInfo
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.model.packets import transport_id
from skycore.model.requests import signed, signed_old
from skycore.runtime.clock import RealClock
from skycore.runtime.network import RealNetwork
from skycore.testing.contracts.http import call_app
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import TEST_NETWORK, AlwaysReady, InlineWorkers, identity

INFO = NodeInfo("visor", (), "1", "skycore-test")
ALICE, BOB, MALLORY = identity("alice"), identity("bob"), identity("mallory")
POST = "/tpd/v3/transports/"
MALFORMED = 10_000


def entry(one, other, kind="stcpr"):
    edges = sorted((one.public.hex(), other.public.hex()))
    t_id = transport_id(one.public, other.public, kind)
    return {"t_id": str(t_id), "edges": edges, "type": kind, "label": "user"}


class Lab:
    """A server, what it stands on, and a client."""

    def __init__(self, url, client, desk, registry):
        self.url, self.client, self.desk, self.registry = url, client, desk, registry
        self.host = url.removeprefix("http://")

    def headers(self, who, method, path, body, nonce, *, host="", network=TEST_NETWORK):
        said = signed(network.id, method, host or self.host, path.encode(), nonce, body)
        return self.told(who, nonce, who.sign(said))

    def told(self, who, nonce, signature):
        return {
            "sw-public": who.public.hex(),
            "sw-nonce": str(nonce),
            "sw-sig": signature.hex(),
        }

    async def nonce(self, who):
        answer = await self.client.get(f"{self.url}/tpd/security/nonces/{who.public.hex()}")
        return answer.json()["next_nonce"]

    async def post(self, headers, body, path=POST, method="POST"):
        return await self.client.request(method, self.url + path, body=body, headers=headers)

    async def honest(self):
        """Register in Alice's name, as anybody may."""
        body = json.dumps([entry(ALICE, BOB)]).encode()
        headers = self.headers(ALICE, "POST", POST, body, await self.nonce(ALICE))
        assert (await self.post(headers, body)).status == 201

    @property
    def stored(self):
        return len(self.desk.directory), self.desk.directory.entry_count


@asynccontextmanager
async def running(*, server=None, **settings):
    clock, network = RealClock(), RealNetwork()
    registry = DictRegistry(clock)
    settings = TransportServerSettings(**{"requests_per_minute": 0, **settings})
    http = HttpServerSettings(
        **{"listen": "127.0.0.1:0", "requests_per_minute": 0, **(server or {})}
    )
    async with (
        open_desk(settings, registry, identity("server"), INFO, clock, InlineWorkers()) as desk,
        open_routes(desk) as routes,
        open_http_server(
            http,
            (routes,),
            Live([]),
            INFO,
            identity("server"),
            clock,
            AlwaysReady(),
            network,
            InlineWorkers(),
        ) as up,
        open_http_client(HttpClientSettings(), network, clock) as client,
    ):
        yield Lab(up.url, client, desk, registry)


@pytest.fixture
async def lab():
    async with running() as lab:
        yield lab


async def test_l21_forged_signatures_store_nothing_and_ask_the_registry_nothing(lab):
    body = json.dumps([entry(ALICE, BOB)]).encode()
    before, nonce = lab.registry.round_trips, 0
    right = lab.headers(ALICE, "POST", POST, body, nonce)
    forged = [
        {},
        lab.headers(MALLORY, "POST", POST, body, nonce) | {"sw-public": ALICE.public.hex()},
        lab.headers(ALICE, "DELETE", POST, body, nonce),
        lab.headers(ALICE, "POST", "/tpd/transports/", body, nonce),
        lab.headers(ALICE, "POST", POST, body, nonce, host="sd.example"),
        lab.headers(ALICE, "POST", POST, b"[]", nonce),
        lab.headers(ALICE, "POST", POST, body, nonce + 1) | {"sw-nonce": str(nonce)},
        lab.headers(ALICE, "POST", POST, body, nonce, network=NetworkConstants(ED25519, "another")),
        lab.told(ALICE, nonce, ALICE.sign(signed_old(body, nonce))),
        {**right, "sw-sig": right["sw-sig"][:-2]},
        {**right, "sw-sig": "0" * 128},
        {**right, "sw-nonce": "9" * 400},
    ]
    for headers in forged:
        answer = await lab.post(headers, body)
        assert answer.status == 401
        assert answer.json()["error"]["code"] == 401
    assert (await lab.post(right, body, path="/tpd/v3/transports/?sync=true")).status == 401
    assert (await lab.post(right, body, path="/tpd/v3/%74ransports/")).status == 401
    assert lab.registry.round_trips == before
    assert lab.stored == (0, 0)
    assert (await lab.post(right, body)).status == 201


async def test_l21_replays_are_refused_also_at_once(lab):
    body = json.dumps([entry(ALICE, BOB)]).encode()
    headers = lab.headers(ALICE, "POST", POST, body, await lab.nonce(ALICE))
    statuses = Counter()

    async def send():
        statuses[(await lab.post(headers, body)).status] += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(send)
    assert statuses == {201: 1, 401: 19}
    assert (await lab.post(headers, body)).json()["error"]["message"] == "SW-Nonce does not match"


async def test_l21_foreign_edges_are_refused_as_a_whole(lab):
    for told in (
        [entry(ALICE, BOB)],
        [entry(MALLORY, BOB), entry(ALICE, BOB)],
        [{**entry(ALICE, BOB), "edges": [MALLORY.public.hex(), BOB.public.hex()]}],
    ):
        for path, sent in ((POST, told), ("/tpd/transports/", [{"entry": e} for e in told])):
            body = json.dumps(sent).encode()
            headers = lab.headers(MALLORY, "POST", path, body, await lab.nonce(MALLORY))
            assert (await lab.post(headers, body, path=path)).status in (400, 403)
    assert lab.stored == (0, 0)
    await lab.honest()
    path = f"/tpd/transports/id:{entry(ALICE, BOB)['t_id']}"
    headers = lab.headers(MALLORY, "DELETE", path, b"", await lab.nonce(MALLORY))
    assert (await lab.post(headers, b"", path=path, method="DELETE")).status == 400
    path = "/tpd/transports/deregister"
    body = json.dumps([entry(ALICE, BOB)["t_id"]]).encode()
    headers = lab.headers(MALLORY, "DELETE", path, body, await lab.nonce(MALLORY))
    assert (await lab.post(headers, body, path=path, method="DELETE")).status == 403
    static = {"nm-pk": MALLORY.public.hex(), "nm-sign": MALLORY.sign(MALLORY.public).hex()}
    assert (await lab.post(static, body, path=path, method="DELETE")).status == 403
    assert lab.stored == (1, 1)


async def test_oversized_bodies_and_lists_are_refused():
    async with running(body_bytes_max=20_000, transports_max=50) as lab:
        big = b"[" + b" " * 30_000 + b"]"
        headers = lab.headers(MALLORY, "POST", POST, big, 0)
        assert (await lab.post(headers, big)).status == 413
        many = json.dumps([entry(MALLORY, identity(f"p{i}")) for i in range(51)]).encode()
        headers = lab.headers(MALLORY, "POST", POST, many, 0)
        assert (await lab.post(headers, many)).status == 413
        assert lab.stored == (0, 0)
        await lab.honest()


async def test_a_flood_of_strangers_is_bounded_and_leaves_nothing_behind():
    async with running(
        server={"requests_per_minute": 60, "burst": 50}, callers_remembered_max=100
    ) as lab:
        statuses = Counter()
        for i in range(300):
            who = identity(f"stranger{i}")
            statuses[(await lab.post(lab.told(who, 0, b"\0" * 64), b"[]")).status] += 1
        assert set(statuses) == {401, 429}
        assert statuses[429] > 200
        assert lab.stored == (0, 0)
        assert len(lab.desk._rates) == 0


async def test_a_flood_of_keys_from_one_address_leaves_the_table_to_others():
    """Keys are free: what they may list together counts by address, behind a proxy too."""
    proxied = {"trusted_proxies": ["127.0.0.0/8"]}
    async with running(server=proxied, address_keys_max=5) as lab:

        async def register(name, seen):
            who = identity(name)
            body = json.dumps([entry(who, BOB)]).encode()
            headers = lab.headers(who, "POST", POST, body, 0) | {"x-forwarded-for": seen}
            return await lab.post(headers, body)

        statuses = Counter()
        for i in range(40):
            answer = await register(f"free{i}", "198.51.100.7")
            statuses[answer.status] += 1
        assert statuses == {201: 5, 507: 35} and lab.stored == (5, 5)
        assert "address_keys_max" in answer.json()["error"]
        assert lab.desk.counters["refused_507"] == 35
        assert (await register("other", "203.0.113.9")).status == 201
        await lab.honest()


async def test_a_flood_of_one_key_is_bounded_by_its_rate():
    async with running(requests_per_minute=30, burst=10) as lab:
        statuses = Counter()
        for nonce in range(40):
            headers = lab.headers(MALLORY, "POST", POST, b"[]", min(nonce, 10))
            statuses[(await lab.post(headers, b"[]")).status] += 1
        assert statuses[201] == 10
        assert statuses[429] >= 25
        await lab.honest()


def mangled(dice, whole):
    """Return a body that is none, in one of many ways."""
    way = dice.randrange(6)
    if way == 0:
        return dice.randbytes(dice.randrange(200))
    if way == 1:
        return whole[: dice.randrange(len(whole))]
    if way == 2:
        body = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        return bytes(body)
    if way == 3:
        return b"[" * dice.randrange(5_000)
    value = json.loads(whole)
    for each in value:
        inner = each.get("entry", each)
        name = dice.choice(list(inner))
        inner[name] = dice.choice([None, 1, -1.5, [], {}, "x", "x" * 1_000, ["a", "b"], True])
    return json.dumps(value).encode()


async def test_ten_thousand_malformed_bodies_and_no_500():
    dice = random.Random(7)
    good = [entry(MALLORY, BOB), entry(MALLORY, ALICE)]
    bodies = {
        "/v3/transports/": json.dumps(good).encode(),
        "/transports/": json.dumps([{"entry": e, "signatures": ["", ""]} for e in good]).encode(),
        "/transports/delete-batch": json.dumps(good).encode(),
        "/transports/edges": json.dumps(good).encode(),
    }
    async with running() as lab:
        before, statuses = lab.registry.round_trips, Counter()
        app = lab.desk.app
        for _ in range(MALFORMED):
            path, whole = dice.choice(list(bodies.items()))
            body = mangled(dice, whole)
            headers = lab.headers(
                MALLORY, "POST", f"/tpd{path}", body, dice.choice([0, 1, 5]), host="h"
            )
            answer = await call_app(
                app,
                f"/tpd{path}",
                method="POST",
                root="/tpd",
                body=body,
                headers=[("host", "h"), *headers.items()],
            )
            statuses[answer.status] += 1
        assert set(statuses) <= {200, 201, 400, 401, 403, 413}, statuses
        assert statuses[400] > MALFORMED / 2
        assert lab.stored[0] <= 1
        assert lab.registry.round_trips - before < MALFORMED / 4
        for _ in range(200):
            body = mangled(dice, bodies["/v3/transports/"])
            headers = lab.headers(MALLORY, "POST", POST, body, 10**9)
            assert (await lab.post(headers, body)).status in (400, 401, 403)
        await lab.honest()


async def test_malformed_paths_and_queries_and_no_500(lab):
    dice = random.Random(11)
    pieces = ["id:", "edge:", "x", "%00", "%ff", "..", "{id}", "?a=%zz", "a" * 3_000, "\\", "?" * 9]
    routes = ["transports", "v3/transports", "all-transports", "uptimes", "security/nonces"]
    for _ in range(300):
        path = f"/tpd/{dice.choice(routes)}/" + "".join(dice.choices(pieces, k=dice.randint(1, 3)))
        answer = await lab.client.request(dice.choice(["GET", "POST", "DELETE"]), lab.url + path)
        assert answer.status in (200, 400, 401, 404, 405, 431), path
    many = "&".join(f"f{i}=1" for i in range(100))
    assert (await lab.client.get(f"{lab.url}/tpd/all-transports?{many}")).status == 400
    await lab.honest()
