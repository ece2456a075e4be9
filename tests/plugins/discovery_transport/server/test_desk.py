"""The routes: what they store, what they answer, and what they refuse."""

from __future__ import annotations

import json
import uuid

import anyio
import pytest

from discovery_transport.server.fleet import SIDES
from discovery_transport.server.told import entries_of
from http_asgi.core.tags import takes_gzip
from skycore.contracts.registry import Listed, RegistryWrite
from skycore.contracts.status import Health
from skycore.model.packets import transport_id
from skycore.testing.contracts.http import HttpRoutesContract
from skycore.testing.contracts.status import StatusSourceContract
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import identity
from skycore.testing.seams import SimClock

FOREIGN = "03" + "ab" * 32


class TestRoutes(HttpRoutesContract):
    @pytest.fixture
    async def routes(self, tpd):
        return tpd.routes


class TestStatus(StatusSourceContract):
    @pytest.fixture
    async def source(self, tpd):
        return tpd.status


async def test_a_transport_that_an_edge_lists_is_found_by_all_routes(tpd, tp, people):
    alice, bob, *_ = people
    told = tp(alice, bob)
    answer = await tpd.register(alice, told)
    assert (answer.status, answer.json()) == (201, [told])
    a = alice.public.hex()
    for path in (f"/transports/edge:{a}", f"/v3/transports/edge:{a}", "/all-transports"):
        assert (await tpd.get(path)).json() == [told]
    assert (await tpd.get(f"/transports/id:{told['t_id']}")).json() == told
    answer = await tpd.send("POST", "/transports/edges", json.dumps([a, "?", a]).encode())
    assert answer.json() == [told]
    stats = {"total_transports": 1, "by_type": {"stcpr": 1}, "unique_visors": 1, "one_sided": 1}
    assert (await tpd.get("/all-transports/stats")).json() == stats
    assert (await tpd.get("/all-transports/per-key-stats")).json() == {a: {"total": 1, "stcpr": 1}}
    assert (await tpd.get(f"/transports/stats/{a}")).json() == {"total": 1, "by_type": {"stcpr": 1}}


async def test_what_is_not_there_and_what_is_no_name(tpd, people):
    nobody = people[0].public.hex()
    for path in (
        f"/transports/id:{uuid.UUID(int=1)}",
        f"/transports/edge:{nobody}",
        f"/transports/edge:{FOREIGN}",
        f"/transports/stats/{nobody}",
        "/all-transports",
        "/all-transports/stats",
        "/all-transports/per-key-stats",
    ):
        answer = await tpd.get(path)
        assert answer.status == 404
        assert set(answer.json()) == {"error"}
    for path in ("/transports/id:x", "/transports/edge:x", "/transports/stats/00" + "00" * 31):
        assert (await tpd.get(path)).status == 400
    assert (await tpd.send("POST", "/transports/edges", b"[1]")).status == 400
    assert (await tpd.send("POST", "/transports/edges", b"[]")).json() == []
    assert (await tpd.send("POST", "/statuses", b"")).status == 410
    assert (await tpd.get("/security/nonces/x")).json()["error"]["code"] == 400


async def test_the_older_form_is_echoed_and_can_answer_the_whole_network(tpd, tp, people):
    alice, bob, carol, _ = people
    await tpd.register(carol, tp(carol, bob))
    envelope = {"entry": tp(alice, bob), "signatures": ["", ""], "more": 1}
    answer = await tpd.ask(alice, "POST", "/transports/", [envelope])
    (echoed,) = answer.json()
    assert answer.status == 201
    assert echoed["entry"] == envelope["entry"]
    assert echoed["registered"] == tpd.clock.wall_ns()
    answer = await tpd.ask(alice, "POST", "/transports/?sync=true", [envelope])
    assert answer.status == 201
    assert {e["t_id"] for e in answer.json()} == await tpd.listed()
    assert (await tpd.ask(alice, "POST", "/transports/", b"null")).json() == []


async def test_a_key_of_another_suite_is_an_edge_as_it_is(tpd, tp, people):
    told = tp(people[0], FOREIGN)
    assert (await tpd.register(people[0], told)).status == 201
    assert await tpd.listed() == {told["t_id"]}


async def test_self_transports_can_be_hidden(tpd, tp, people):
    alice, bob, *_ = people
    mine, ours = tp(alice, alice), tp(alice, bob)
    await tpd.register(alice, mine, ours)
    assert await tpd.listed() == {mine["t_id"], ours["t_id"]}
    assert (await tpd.get("/all-transports?selfTransports=hide")).json() == [ours]


async def test_one_sided_transports_are_marked_for_who_asks(tpd, tp, people):
    alice, bob, *_ = people
    told = tp(alice, bob)
    await tpd.register(alice, told)
    marked = {**told, "one_sided": True, "listed_by": alice.public.hex()}
    assert (await tpd.get("/all-transports?sides=1")).json() == [marked]
    assert (await tpd.get(f"/transports/id:{told['t_id']}?sides=1")).json() == marked
    assert (await tpd.get("/all-transports")).json() == [told]
    await tpd.register(bob, {**told, "label": "user"})
    assert (await tpd.get("/all-transports?sides=1")).json()[0].get("one_sided") is None
    assert (await tpd.get("/all-transports/stats")).json()["one_sided"] == 0


async def test_deleting_takes_off_the_own_list(tpd, tp, people):
    alice, bob, carol, _ = people
    told, other = tp(alice, bob), tp(carol, bob)
    path = f"/transports/id:{told['t_id']}"
    assert (await tpd.ask(alice, "DELETE", path)).status == 404
    await tpd.register(alice, told)
    await tpd.register(bob, told, other)
    assert (await tpd.ask(carol, "DELETE", path)).status == 400
    answer = await tpd.ask(alice, "DELETE", path)
    assert (answer.status, answer.body) == (200, b"transport deleted")
    assert (await tpd.get(f"{path}?sides=1")).json()["one_sided"]
    ids = [told["t_id"], other["t_id"], told["t_id"], str(uuid.UUID(int=1)), "bad"]
    answer = await tpd.ask(bob, "POST", "/transports/delete-batch", ids)
    assert answer.json() == {"deleted": 2, "skipped": 3}
    assert await tpd.listed() == set()
    assert (await tpd.ask(bob, "POST", "/transports/delete-batch", b"{")).status == 400


async def test_a_monitor_deregisters_what_both_edges_list(make, tp, people):
    alice, bob, carol, monitor = people
    async with make(monitors=(monitor.public.hex(),)) as tpd:
        told = tp(alice, bob)
        for who in (alice, bob):
            await tpd.register(who, told)
        path = "/transports/deregister"
        assert (await tpd.ask(carol, "DELETE", path, [told["t_id"]])).status == 403
        assert (await tpd.ask(monitor, "DELETE", path, ["x"])).status == 400
        assert await tpd.listed() == {told["t_id"]}
        answer = await tpd.ask(monitor, "DELETE", path, [told["t_id"]])
        assert (answer.status, answer.body) == (200, b"null")
        assert await tpd.listed() == set()


async def test_a_heartbeat_shows_in_the_uptimes(tpd, tp, people):
    alice, bob, *_ = people
    await tpd.register(alice, tp(alice, bob))
    assert (await tpd.ask(bob, "GET", "/v4/update")).status == 200
    rows = {row["key"]: row for row in (await tpd.get("/uptimes")).json()}
    assert set(rows) == {alice.public.hex(), bob.public.hex()}
    assert all(row["uptime"] == 300 for row in rows.values())
    answer = await tpd.get(f"/uptimes?v=v2&visors={bob.public.hex()}")
    (row,) = answer.json()
    assert row["pk"] == bob.public.hex()
    assert len(row["daily"]) == 1


async def test_health_and_status(tpd, tp, people):
    await tpd.register(people[0], tp(people[0], people[1]))
    health = (await tpd.get("/health")).json()
    assert health["service_name"] == "transport-discovery"
    assert health["build_info"] == {"version": "1.2.3"}
    told = await tpd.status.status()
    assert told.health is Health.OK
    assert told.fields["transports"] == told.fields["one_sided"] == 1
    tpd.registry.is_down = True
    await tpd.desk.directory.sweep()
    await tpd.desk.directory.load()
    told = await tpd.status.status()
    assert told.health is Health.DEGRADED
    assert (await tpd.get("/all-transports")).status == 200
    headers = await tpd.headers(people[0], "POST", "/v3/transports/", b"[]", nonce=1)
    assert (await tpd.send("POST", "/v3/transports/", b"[]", headers)).status == 503


async def test_signed_reads_use_their_nonce_up(tpd, tp, people):
    alice, bob, *_ = people
    told = tp(alice, bob)
    await tpd.register(alice, told)
    before = await tpd.nonce(alice)
    assert (await tpd.ask(alice, "GET", f"/transports/id:{told['t_id']}")).status == 200
    assert await tpd.nonce(alice) == before + 1


async def test_more_than_the_bounds_is_refused(make, tp, people):
    alice = people[0]
    many = [tp(alice, identity(f"p{i}")) for i in range(3)]
    async with make(transports_max=2) as tpd:
        assert (await tpd.register(alice, *many)).status == 413
        ids = [e["t_id"] for e in many]
        assert (await tpd.ask(alice, "POST", "/transports/delete-batch", ids)).status == 413
        keys = json.dumps([f"{i:064x}" for i in range(10_001)]).encode()
        assert (await tpd.send("POST", "/transports/edges", keys)).status == 413


async def test_what_several_keys_list_is_bounded(monkeypatch, tpd, tp, people):
    alice = people[0]
    monkeypatch.setattr("discovery_transport.server.desk.FOUND_MAX", 2)
    await tpd.register(alice, *(tp(alice, f"{i:064x}") for i in range(1, 4)))
    body = json.dumps([alice.public.hex()]).encode()
    assert (await tpd.send("POST", "/transports/edges", body)).status == 413


async def test_the_rate_counts_by_key_and_after_proof(make, tp, people):
    alice, bob, *_ = people
    told = [tp(alice, bob)]
    async with make(requests_per_minute=30, burst=10) as tpd:
        for _ in range(10):
            assert (await tpd.register(alice, *told)).status == 201
        answer = await tpd.register(alice, *told)
        text = b"Rate limit exceeded: maximum 30 requests per minute\n"
        assert (answer.status, answer.body) == (429, text)
        assert (await tpd.register(bob, *told)).status == 201
        forged = await tpd.headers(bob, "POST", "/v3/transports/", b"[]")
        for _ in range(20):
            assert (await tpd.send("POST", "/v3/transports/", b"[1]", forged)).status == 401
        assert (await tpd.register(bob, *told)).status == 201
        assert len(tpd.desk._rates) == 2


async def test_l21_a_foreign_transport_is_refused_and_nothing_is_stored(tpd, tp, people):
    alice, bob, carol, _ = people
    before = tpd.registry.round_trips
    body = json.dumps([tp(carol, alice), tp(alice, bob)]).encode()
    headers = await tpd.headers(carol, "POST", "/v3/transports/", body, nonce=0)
    answer = await tpd.send("POST", "/v3/transports/", body, headers)
    assert answer.status == 403
    assert tpd.registry.round_trips == before
    assert await tpd.listed() == set()


async def test_l21_a_replay_of_any_accepted_request_is_refused(tpd, tp, people):
    alice, bob, *_ = people
    told = tp(alice, bob)
    body = json.dumps([told]).encode()
    ids = json.dumps([told["t_id"]]).encode()
    for method, path, sent, status in (
        ("POST", "/v3/transports/", body, 201),
        ("POST", "/transports/delete-batch", ids, 200),
        ("POST", "/v3/transports/", body, 201),
        ("GET", f"/transports/edge:{alice.public.hex()}", b"", 200),
        ("DELETE", f"/transports/id:{told['t_id']}", b"", 200),
        ("GET", "/v4/update", b"", 200),
    ):
        headers = await tpd.headers(alice, method, path, sent)
        assert (await tpd.send(method, path, sent, headers)).status == status
        answer = await tpd.send(method, path, sent, headers)
        mismatch = b'{"error":{"message":"SW-Nonce does not match","code":401}}'
        assert (answer.status, answer.body) == (401, mismatch)


BAD = {
    "another id": lambda e: {**e, "t_id": str(uuid.UUID(int=7))},
    "another type": lambda e: {**e, "type": "dmsg"},
    "upper case": lambda e: {**e, "edges": [x.upper() for x in e["edges"]]},
    "one edge": lambda e: {**e, "edges": e["edges"][:1]},
    "no edges": lambda e: {k: v for k, v in e.items() if k != "edges"},
    "a long label": lambda e: {**e, "label": "x" * 300},
    "no type": lambda e: {**e, "type": ""},
    "text": lambda e: "x",
}


@pytest.mark.parametrize("what", BAD)
async def test_an_entry_that_is_none_is_refused(tpd, tp, people, what):
    answer = await tpd.register(people[0], BAD[what](tp(people[0], people[1])))
    assert answer.status == 400
    assert await tpd.listed() == set()


async def test_edges_in_another_order_are_the_same_transport(tpd, tp, people):
    told = tp(people[0], people[1])
    await tpd.register(people[0], {**told, "edges": told["edges"][::-1], "latency": 3})
    assert (await tpd.get("/all-transports")).json() == [told]


async def test_l1_both_services_of_a_hub_of_916_are_whole(tpd, tp, people):
    hub = people[0]
    peers = [identity(f"peer{i}") for i in range(916)]
    told = [tp(hub, peer) for peer in peers]
    assert (await tpd.register(hub, *told)).status == 201
    ids = {e["t_id"] for e in told}
    assert await tpd.listed() == ids
    answer = await tpd.get(f"/v3/transports/edge:{hub.public.hex()}")
    assert {e["t_id"] for e in answer.json()} == ids
    assert len(ids) == 916


@pytest.mark.parametrize("n", [1, 50, 916])
async def test_l7_a_registration_is_one_round_trip_whatever_its_size(tpd, tp, people, n):
    hub = people[0]
    told = [tp(hub, f"{i:064x}") for i in range(1, n + 1)]
    body = json.dumps(told).encode()
    for nonce in (0, 1):
        headers = await tpd.headers(hub, "POST", "/v3/transports/", body, nonce=await nonce_of(tpd))
        before = tpd.registry.round_trips
        assert (await tpd.send("POST", "/v3/transports/", body, headers)).status == 201
        assert tpd.registry.round_trips - before == 1, nonce


async def nonce_of(tpd):
    return await tpd.nonce(identity("alice"))


async def test_l10_l11_reads_ask_the_registry_for_nothing(tpd, tp, people):
    alice = people[0]
    await tpd.register(alice, *(tp(alice, f"{i:064x}") for i in range(1, 917)))
    told = tp(alice, f"{1:064x}")
    before = tpd.registry.round_trips
    for path in (
        "/all-transports",
        "/all-transports/stats",
        "/all-transports/per-key-stats",
        f"/transports/edge:{alice.public.hex()}",
        f"/transports/stats/{alice.public.hex()}",
        f"/transports/id:{told['t_id']}",
        "/health",
    ):
        for _ in range(3):
            assert (await tpd.get(path)).status == 200
    assert tpd.registry.round_trips == before


async def test_l25_a_conditional_poll_moves_nothing_until_something_changes(tpd, tp, people):
    alice, bob, carol, _ = people
    await tpd.register(alice, tp(alice, bob))
    for kind in ("", "?sides=1", "?selfTransports=hide", "/stats", "/per-key-stats"):
        first = await tpd.get(f"/all-transports{kind}")
        again = await tpd.get(f"/all-transports{kind}", if_none_match=first.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    built, first = tpd.desk.fleet.built, await tpd.get("/all-transports")
    await tpd.register(alice, tp(alice, bob))
    again = await tpd.get("/all-transports", if_none_match=first.headers["etag"])
    assert again.status == 304
    assert tpd.desk.fleet.built == built
    await tpd.register(carol, tp(carol, bob))
    again = await tpd.get("/all-transports", if_none_match=first.headers["etag"])
    assert again.status == 200
    assert again.headers["etag"] != first.headers["etag"]


async def test_l25_two_servers_tag_one_state_alike(make, tp, people):
    alice, bob, carol, _ = people
    tags = []
    for order in ((alice, bob, carol), (carol, alice, bob)):
        async with make() as tpd:
            for who in order:
                await tpd.register(who, tp(who, bob))
            await tpd.register(alice, tp(alice, carol))
            gone = tp(alice, carol)["t_id"]
            assert (await tpd.ask(alice, "DELETE", f"/transports/id:{gone}")).status == 200
            tags.append(((await tpd.get("/all-transports")).body, tpd.desk.fleet.tag(SIDES)))
    assert tags[0] == tags[1]


async def test_c29_both_edges_and_a_third_key_may_speak_of_it_only_for_themselves(tpd, tp, people):
    alice, bob, carol, _ = people
    told = tp(alice, bob)
    await tpd.register(alice, told)
    assert (await tpd.get(f"/transports/edge:{bob.public.hex()}")).status == 404
    assert (await tpd.register(carol, told)).status == 403
    await tpd.register(bob, {**told, "label": "user"})
    for who, label in ((alice, "automatic"), (bob, "user")):
        answer = await tpd.get(f"/v3/transports/edge:{who.public.hex()}")
        assert answer.json() == [{**told, "label": label}]
    assert len((await tpd.get("/all-transports")).json()) == 1


def test_the_rule_of_ids():
    one = "0323272a60895f56aad82cb767fb5c413807adcf7c9fb0578b1b1c5807c7f29d4c"
    other = "03ec4f6221e6b41b3740369fd8146c1be6229c7b265723b473c9822034bdbe1aa3"
    found = transport_id(bytes.fromhex(one), bytes.fromhex(other), "sudph")
    assert str(found) == "f1983e71-1681-0bda-bb08-c8ac60f1d6ac"


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b'{"t_id":1}', b"[" * 5_000])
async def test_a_body_that_others_put_into_the_registry_hides_nothing_else(tpd, people, tp, body):
    """Lists, counts and status go on; what cannot be read is not told."""
    alice, bob, carol, _ = people
    await tpd.register(alice, tp(alice, bob), tp(alice, carol))
    key = uuid.UUID(tp(alice, carol)["t_id"]).bytes
    await tpd.registry.write(
        "transport-discovery",
        [RegistryWrite(who.public, put=(Listed(key, body),)) for who in (alice, carol)],
    )
    await tpd.register(bob, tp(alice, bob))  # so that the table is read again
    await anyio.sleep(10)
    for _ in range(2):
        assert await tpd.listed() == {tp(alice, bob)["t_id"]}
        counts = json.loads((await tpd.get("/all-transports/per-key-stats")).body)
        assert counts[alice.public.hex()]["total"] == 1
        assert (await tpd.status.status()).fields["transports"] == 1
    assert len(entries_of(tpd.desk.directory.of(alice.public))) == 1


async def test_l21_who_repeats_what_somebody_signed_uses_up_no_rate_of_his(make, people, tp):
    alice, bob, *_ = people
    async with make(requests_per_minute=30, burst=3) as tpd:
        body = json.dumps([tp(alice, bob)]).encode()
        headers = await tpd.headers(alice, "POST", "/v3/transports/", body)
        answers = [await tpd.send("POST", "/v3/transports/", body, headers) for _ in range(20)]
        assert [answer.status for answer in answers] == [201] + [401] * 19
        assert (await tpd.register(alice, tp(alice, bob))).status == 201


async def test_a_key_lists_no_more_than_transports_max_over_all_its_requests(make, people, tp):
    alice, *others = people
    async with make(transports_max=2) as tpd:
        bob, carol, dave = (tp(alice, other) for other in others)
        assert (await tpd.register(alice, bob)).status == 201
        assert (await tpd.register(alice, carol)).status == 201
        assert (await tpd.register(alice, dave)).status == 413
        assert (await tpd.register(alice, bob, carol)).status == 201
        assert await tpd.listed() == {bob["t_id"], carol["t_id"]}
        await tpd.ask(alice, "DELETE", f"/transports/id:{bob['t_id']}")
        assert (await tpd.register(alice, carol, dave)).status == 201


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [
        (None, False),
        ("gzip", True),
        ("br, GZIP ; q=0.5", True),
        ("*", True),
        ("gzip;q=0, *", False),
        ("gzip;q=0.000", False),
        ("*;q=0", False),
        ("xgzip", False),
        ("identity", False),
    ],
)
async def test_l25_a_list_is_packed_for_those_who_take_it_and_for_no_others(
    tpd, people, tp, accepted, is_packed
):
    """Once for each state: what the desk does not pack, the HTTP server packs for each request."""
    alice, bob, *_ = people
    await tpd.register(alice, tp(alice, bob))
    headers = {} if accepted is None else {"accept_encoding": accepted}
    answer = await tpd.get("/all-transports", **headers)
    assert (answer.headers.get("content-encoding") == "gzip") == is_packed
    own = takes_gzip(accepted.encode()) if accepted else False
    assert own == is_packed, "the HTTP server says the same"


async def test_l6_what_was_never_read_is_not_told_as_empty(make, people):
    registry = DictRegistry(SimClock())
    registry.is_down = True
    async with make(registry) as tpd:
        for path in ("/all-transports", "/all-transports/stats", "/v3/transports/edge:{key}"):
            path = path.format(key=people[0].public.hex())
            assert (await tpd.get(path)).status == 503, path
        assert (await tpd.get("/health")).status == 200
        registry.is_down = False
        await anyio.sleep(60)
        assert (await tpd.get("/all-transports")).status in (200, 404)
