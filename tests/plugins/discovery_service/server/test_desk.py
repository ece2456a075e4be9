"""The routes of the service discovery: upstream's shapes, and what upstream let through."""

from __future__ import annotations

import json

import anyio
import pytest

from skycore.contracts.status import Health
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import identity
from skycore.testing.seams import SimClock


def said(answer):
    return json.loads(answer.body)


def vpn(who, port=44, **more):
    return {"address": f"{who.public.hex()}:{port}", "type": "vpn", "version": "v1.3", **more}


def socks(who, port=3, **more):
    return {**vpn(who, port, **more), "type": "skysocks"}


async def test_list_read_and_delete_a_service(sd, alice):
    row = vpn(alice, geo={"lat": 51.5, "lon": -0.1, "country": "GB", "region": "LDN"})
    answer = await sd.post(alice, row)
    assert (answer.status, said(answer)) == (200, row)
    assert said(await sd.get("/api/services?type=vpn")) == [row]
    assert said(await sd.get(f"/api/services/{row['address']}?type=vpn")) == row
    assert said(await sd.get(f"/api/services/{alice.public.hex()}?type=vpn")) == row
    answer = await sd.ask(alice, "DELETE", f"/api/services/{row['address']}?type=vpn")
    assert (answer.status, answer.body) == (200, b"true")
    assert said(await sd.get("/api/services?type=vpn")) == []


async def test_l1_two_services_of_one_visor_do_not_hide_each_other(sd, alice, bob):
    rows = [vpn(alice), socks(alice), socks(alice, 4)]
    for row in rows:
        assert (await sd.post(alice, row)).status == 200
    assert await sd.listed("vpn") == [rows[0]["address"]]
    assert await sd.listed("skysocks") == [rows[1]["address"], rows[2]["address"]]
    await sd.ask(alice, "DELETE", f"/api/services/{rows[1]['address']}?type=skysocks")
    assert await sd.listed("skysocks") == [rows[2]["address"]]
    assert await sd.listed("vpn") == [rows[0]["address"]]


async def test_a_list_is_all_that_its_signer_offers(sd, alice, bob):
    await sd.post(bob, vpn(bob))
    answer = await sd.post(alice, vpn(alice), socks(alice))
    assert [row["type"] for row in said(answer)] == ["vpn", "skysocks"]
    await sd.ask(alice, "POST", "/api/services", [socks(alice)])
    assert await sd.listed("vpn") == [vpn(bob)["address"]]
    await sd.ask(alice, "POST", "/api/services", [])
    assert await sd.listed("skysocks") == []
    assert await sd.listed("vpn") == [vpn(bob)["address"]]


async def test_proxy_is_skysocks_for_readers_alone(sd, alice):
    await sd.post(alice, socks(alice))
    assert await sd.listed("proxy") == await sd.listed("skysocks") != []
    assert (await sd.get(f"/api/services/{alice.public.hex()}?type=proxy")).status == 200
    assert (await sd.post(alice, {**socks(alice), "type": "proxy"})).status == 400


async def test_readers_choose_by_version_country_and_number(sd, alice):
    for port in range(1, 21):
        geo = {"country": "DE" if port % 2 else "GB"}
        await sd.post(alice, vpn(alice, port, geo=geo, version=f"v{port % 3}"))
    path = "/api/services?type=vpn"
    assert len(said(await sd.get(path))) == 20
    assert len(said(await sd.get(path + "&country=DE"))) == 10
    assert {r["version"] for r in said(await sd.get(path + "&version=v1"))} == {"v1"}
    one, other = [said(await sd.get(path + "&quantity=7")) for _ in range(2)]
    assert len(one) == len(other) == 7
    assert one != other
    assert len(said(await sd.get(path + "&quantity=99"))) == 20
    for bad in ("&quantity=x", "&quantity=-1", "&quantity=9999999999"):
        assert (await sd.get(path + bad)).status == 400


async def test_local_addresses_are_shown_where_the_service_says_so(sd, alice, bob):
    inside = ["192.168.1.5"]
    await sd.post(alice, vpn(alice, local_ips=inside))
    await sd.post(bob, vpn(bob, local_ips=inside, display_node_ip=True))
    for row in said(await sd.get("/api/services?type=vpn")):
        assert ("local_ips" in row) is bool(row.get("display_node_ip"))
    assert "local_ips" not in said(await sd.get(f"/api/services/{alice.public.hex()}?type=vpn"))


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"address": "ab" * 32 + ":1"}, 403, "not the signer's"),
        ({"address": ""}, 400, "invalid json"),
        ({"version": ""}, 403, "without a version"),
        ({"type": "visor"}, 403, "none of the visor's own"),
        ({"type": "Über"}, 400, "no type"),
        ({"type": None}, 400, "invalid json"),
        ({"geo": {"lat": 91}}, 400, "invalid json"),
        ({"info": {"x": {"deep": 1}}}, 400, "invalid json"),
        ({"local_ips": "one"}, 400, "invalid json"),
    ],
)
async def test_l21_what_may_not_be_listed_is_refused_and_nothing_stored(
    sd, alice, change, status, text
):
    answer = await sd.post(alice, {**vpn(alice), **change})
    assert answer.status == status
    assert said(answer)["code"] == status
    assert text in said(answer)["error"]
    assert len(sd.desk.directory) == 0
    assert await sd.nonce(alice) == 0


@pytest.mark.parametrize("port", ["", "0", "65536", "x", "1:2", "9" * 99])
async def test_an_address_is_a_key_and_a_port(sd, alice, port):
    row = {**vpn(alice), "address": f"{alice.public.hex()}:{port}"}
    assert (await sd.post(alice, row)).status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"5", b'"x"', b"[5]", b"\xff", b"[" * 9_999])
async def test_malformed_bodies_are_400(sd, alice, body):
    answer = await sd.ask(alice, "POST", "/api/services", body)
    assert (answer.status, said(answer)["code"]) == (400, 400)


async def test_what_we_do_not_know_in_a_service_is_left_alone(sd, alice):
    row = vpn(alice)
    assert (await sd.post(alice, {**row, "sort": 1, "info": None})).status == 200
    assert said(await sd.get("/api/services?type=vpn")) == [row]


async def test_a_visor_is_listed_where_it_is_seen_at_an_address_of_its_own(sd, alice):
    row = {"address": f"{alice.public.hex()}:44", "type": "visor", "local_ips": [sd.public]}
    assert (await sd.post(alice, row)).status == 200
    assert (await sd.post(alice, row, client=f"::ffff:{sd.public}")).status == 200
    assert (await sd.post(alice, row, client="203.0.114.5")).status == 403


async def test_too_many_services_in_one_request_are_413(make, alice):
    async with make(services_max=3) as sd:
        assert (await sd.post(alice, *(vpn(alice, p) for p in (1, 2, 3)))).status == 200
        assert (await sd.post(alice, *(vpn(alice, p) for p in (1, 2, 3, 4)))).status == 413


async def test_l21_a_replayed_request_is_refused(sd, alice):
    body = json.dumps(vpn(alice)).encode()
    headers = await sd.headers(alice, "POST", "/api/services", body)
    assert (await sd.send("POST", "/api/services", body, headers)).status == 200
    answer = await sd.send("POST", "/api/services", body, headers)
    assert answer.status == 401
    assert said(answer) == {"error": {"message": "SW-Nonce does not match", "code": 401}}


async def test_l21_who_repeats_what_somebody_signed_uses_up_no_rate_of_his(sd, alice):
    body = json.dumps(vpn(alice)).encode()
    headers = await sd.headers(alice, "POST", "/api/services", body)
    assert (await sd.send("POST", "/api/services", body, headers)).status == 200
    for _ in range(100):
        assert (await sd.send("POST", "/api/services", body, headers)).status == 401
    assert (await sd.post(alice, vpn(alice))).status == 200


async def test_l21_another_keys_service_cannot_be_deleted(sd, alice, bob):
    await sd.post(alice, vpn(alice))
    path = f"/api/services/{vpn(alice)['address']}?type=vpn"
    answer = await sd.ask(bob, "DELETE", path)
    assert (answer.status, said(answer)["code"]) == (403, 403)
    assert (await sd.send("DELETE", path)).status == 401
    assert await sd.listed() == [vpn(alice)["address"]]


async def test_l7_a_registration_of_any_size_is_one_round_trip_with_its_heartbeat(sd, alice):
    for rows in ([vpn(alice)], [vpn(alice, p) for p in range(1, 65)], [socks(alice)]):
        body = json.dumps(rows).encode()
        headers = await sd.headers(alice, "POST", "/api/services", body)
        before = sd.registry.round_trips
        assert (await sd.send("POST", "/api/services", body, headers)).status == 200
        assert sd.registry.round_trips - before == 1
    before = sd.registry.round_trips
    await sd.get("/api/services?type=vpn")
    await sd.get(f"/api/services/{alice.public.hex()}?type=vpn")
    assert sd.registry.round_trips == before
    (row,) = said(await sd.get("/uptimes?v=v2"))
    assert row["pk"] == alice.public.hex()
    assert float(max(row["daily"].values())) > 0


async def test_l19_a_service_is_gone_after_its_lifetime_the_first_time_too(sd, alice):
    await sd.post(alice, vpn(alice))
    await anyio.sleep(290)
    assert await sd.listed()
    await anyio.sleep(20)
    assert not await sd.listed()
    for _ in range(6):  # repeated every 90 s it stays
        await sd.post(alice, vpn(alice))
        await anyio.sleep(90)
    assert await sd.listed()


async def test_uptimes(sd, alice, bob):
    await sd.post(alice, vpn(alice))
    await sd.post(bob, vpn(bob))
    assert len(said(await sd.get("/uptimes"))) == 2
    await anyio.sleep(61)
    body = json.dumps({"pks": [bob.public.hex()], "v": "v2"}).encode()
    (row,) = said(await sd.send("POST", "/uptimes", body))
    assert row["pk"] == bob.public.hex()
    for bad in (b"{", b'{"pks": ["xyz"]}', b'{"pks": 5}'):
        assert (await sd.send("POST", "/uptimes", bad)).status == 400


async def test_l6_monitors_deregister_and_nobody_else(make, alice, bob):
    monitor = identity("monitor")
    async with make(monitors=(monitor.public.hex(),)) as sd:
        await sd.post(alice, vpn(alice), vpn(alice, 45), socks(alice))
        path, keys = "/api/services/deregister/vpn", [alice.public.hex()]
        assert (await sd.ask(bob, "DELETE", path, keys)).status == 403
        assert (await sd.ask(monitor, "DELETE", path, ["xyz"])).status == 400
        assert (await sd.ask(monitor, "DELETE", path, "no list")).status == 400
        answer = await sd.ask(monitor, "DELETE", path, keys)
        assert (answer.status, answer.body) == (200, b"true")
        assert await sd.listed("vpn") == []
        assert await sd.listed("skysocks") == [socks(alice)["address"]]


async def test_readers_are_told_what_is_wrong(sd, alice):
    for path, status in (
        ("/api/services", 400),
        (f"/api/services/{alice.public.hex()}", 400),
        ("/api/services/xyz?type=vpn", 400),
        (f"/api/services/{alice.public.hex()}?type=vpn", 404),
        (f"/api/services/{alice.public.hex()}:9?type=vpn", 404),
    ):
        answer = await sd.get(path)
        assert answer.status == status, path
        assert set(said(answer)) == {"code", "error"}


async def test_every_type_at_once(sd, alice, bob):
    await sd.post(alice, vpn(alice), socks(alice))
    await sd.post(bob, vpn(bob))
    assert len(said(await sd.get("/api/services?type=*"))) == 3
    assert len(said(await sd.get(f"/api/services/{alice.public.hex()}?type=*"))) == 2
    assert said(await sd.get(f"/api/services/{identity('carol').public.hex()}?type=*")) == []


async def test_nonces_health_and_options(sd, alice):
    answer = await sd.get(f"/security/nonces/{alice.public.hex()}")
    assert said(answer) == {"edge": alice.public.hex(), "next_nonce": 0}
    assert (await sd.get("/security/nonces/xyz")).status == 400
    await sd.post(alice, vpn(alice))
    told = said(await sd.get("/health"))
    assert told["service_name"] == "service-discovery"
    assert told["services"] == {"vpn": 1}
    assert sd.routes.options.cors
    assert sd.routes.options.etags


async def test_a_registry_that_is_away_is_503_and_reading_goes_on(sd, alice, bob):
    await sd.post(alice, vpn(alice))
    body = json.dumps(vpn(bob)).encode()
    headers = await sd.headers(bob, "POST", "/api/services", body)
    sd.registry.is_down = True
    assert (await sd.send("POST", "/api/services", body, headers)).status == 503
    assert await sd.listed() == [vpn(alice)["address"]]
    await anyio.sleep(10)
    assert (await sd.status.status()).health is Health.DEGRADED


async def test_status_and_rates(make, alice, bob):
    async with make(requests_per_minute=2, burst=2) as sd:
        statuses = [(await sd.post(alice, vpn(alice))).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert (await sd.post(bob, vpn(bob))).status == 200
        told = await sd.status.status()
        assert told.health is Health.OK
        assert told.fields["services"] == 2
        assert told.fields["by_type"] == {"vpn": 2}
        assert told.fields["requests"]["refused_429"] == 1


async def test_l6_what_was_never_read_is_not_told_as_empty(make, alice):
    registry = DictRegistry(SimClock())
    registry.is_down = True
    async with make(registry) as sd:
        for path in ("/api/services?type=vpn", "/api/services/{key}?type=vpn"):
            path = path.format(key=alice.public.hex())
            assert (await sd.get(path)).status == 503, path
        assert (await sd.get("/health")).status == 200
        registry.is_down = False
        await anyio.sleep(60)
        assert (await sd.get("/api/services?type=vpn")).status in (200, 404)
