"""The routes of the address resolver: upstream's shapes, and what upstream let through."""

from __future__ import annotations

import json

import anyio
import pytest

from skycore.contracts.status import Health
from skycore.discovery.callers import Caller
from skycore.errors import RequestRefusedError
from skycore.model.entries import AddressBind
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import identity
from skycore.testing.seams import SimClock


def said(answer):
    return json.loads(answer.body)


async def test_bind_resolve_and_unbind(ar, alice, bob):
    answer = await ar.bind(alice, "30001", [ar.public, "192.168.1.5"])
    assert answer.status == 200
    assert said(answer)["remote_addr"] == ar.public  # a visor learns how it is seen
    answer = await ar.resolve(bob, alice)
    assert answer.status == 200
    assert said(answer) == {
        "remote_addr": ar.public, "port": "30001", "addresses": [ar.public, "192.168.1.5"],
    }  # fmt: skip
    answer = await ar.ask(alice, "DELETE", "/bind/stcpr", b"{}\n")
    assert answer.status == 200
    assert (await ar.resolve(bob, alice)).status == 404


async def test_is_local_is_true_for_who_is_seen_at_the_same_address(ar, alice, bob):
    await ar.bind(alice)
    assert said(await ar.resolve(bob, alice, client=ar.public))["is_local"] is True
    assert "is_local" not in said(await ar.resolve(bob, alice))
    assert b"is_local" not in ar.desk.directory.of(alice.public).entries[0].body


@pytest.mark.parametrize("seen", ["127.0.0.1", "10.1.2.3", "192.168.0.9", "::1", "fe80::1%eth0"])
async def test_an_address_that_is_not_public_is_bound_by_a_setting_alone(
    ar, make, alice, bob, seen
):
    answer = await ar.bind(alice, client=seen)
    assert answer.status == 400
    assert "not public" in said(answer)["error"]
    assert ar.desk.directory.entry_count == 0
    async with make(private_addresses=True) as laptop:
        assert (await laptop.bind(alice, client=seen)).status == 200
        assert (await laptop.resolve(bob, alice)).status == 200


async def test_a_bind_from_behind_a_router_that_does_not_lead_back_is_refused(ar, alice):
    answer = await ar.bind(alice, addresses=["192.168.1.5"])
    assert answer.status == 400
    assert "none of your addresses" in said(answer)["error"]


async def test_a_public_address_that_is_only_claimed_is_not_believed(ar, alice, bob):
    body = {"port": "1", "addresses": [], "public_ip": "203.0.114.1", "cert_hash": "x"}
    await ar.ask(alice, "POST", "/bind/stcpr", body)
    assert said(await ar.resolve(bob, alice))["remote_addr"] == ar.public


async def test_public_addresses_that_nobody_saw_are_left_out(ar, alice, bob):
    """Else whoever asks for alice would knock at places of others, eight at a time."""
    claimed = [ar.public, "8.8.8.8", "8.8.4.4:22", "192.168.1.5", "2001:4860:4860::8888"]
    assert (await ar.bind(alice, "30001", claimed)).status == 200
    assert said(await ar.resolve(bob, alice))["addresses"] == [ar.public, "192.168.1.5"]


async def test_ipv6_stands_in_a_field_of_its_own_and_mapped_ipv4_is_ipv4(ar, alice, bob):
    await ar.bind(alice, client="2001:41d0::7")
    assert said(await ar.resolve(bob, alice)) == {"port": "7777", "remote_addr_v6": "2001:41d0::7"}
    await ar.bind(alice, client=f"::ffff:{ar.public}")
    assert said(await ar.resolve(bob, alice))["remote_addr"] == ar.public


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"port":""}', b'{"port":"0"}', b'{"port":70000}', b'{"port":"x"}',
     b'{"port":"1","addresses":["not one"]}', b'{"port":"1","addresses":5}', b"\xff",
     b'{"port":"1","addresses":["127.0.0.1","127.0.0.1","127.0.0.1","127.0.0.1","127.0.0.1",'
     b'"127.0.0.1","127.0.0.1","127.0.0.1","127.0.0.1","127.0.0.1","127.0.0.1","127.0.0.1",'
     b'"127.0.0.1","127.0.0.1","127.0.0.1","127.0.0.1","127.0.0.1"]}'],
)  # fmt: skip
async def test_malformed_binds_are_400_and_use_no_nonce_up(ar, alice, body):
    answer = await ar.ask(alice, "POST", "/bind/stcpr", body)
    assert answer.status == 400
    assert "error" in said(answer)
    assert await ar.nonce(alice) == 0
    assert ar.desk.directory.entry_count == 0


async def test_l21_a_replayed_request_is_refused_and_so_is_another_route(ar, alice, bob):
    body = b'{"port":"7777","addresses":[]}'
    headers = await ar.headers(alice, "POST", "/bind/stcpr", body)
    assert (await ar.send("POST", "/bind/stcpr", body, headers)).status == 200
    answer = await ar.send("POST", "/bind/stcpr", body, headers)
    assert answer.status == 401
    assert said(answer) == {"error": {"message": "SW-Nonce does not match", "code": 401}}
    path = f"/resolve/stcpr/{alice.public.hex()}"
    headers = await ar.headers(bob, "GET", path)
    assert (await ar.send("GET", path, b"", headers)).status == 200
    assert (await ar.send("GET", path, b"", headers)).status == 401
    headers = await ar.headers(alice, "POST", "/bind/stcpr", body)
    assert (await ar.send("DELETE", "/bind/stcpr", body, headers)).status == 401
    assert (await ar.resolve(bob, alice)).status == 200


async def test_l21_unsigned_requests_store_nothing(ar, alice):
    for method, path in (
        ("POST", "/bind/stcpr"),
        ("DELETE", "/bind/stcpr"),
        ("GET", f"/resolve/stcpr/{alice.public.hex()}"),
        ("DELETE", "/deregister/stcpr"),
    ):
        answer = await ar.send(method, path, b'{"port":"1"}')
        assert answer.status == 401, path
        assert said(answer)["error"]["message"] == "SW-Public missing"
    assert ar.desk.directory.entry_count == 0


async def test_l21_upstreams_signature_is_believed_by_a_setting_alone(make, alice):
    body = b'{"port":"7777","addresses":[]}\n'
    for setting, status in ((False, 401), (True, 200)):
        async with make(unbound_signatures=setting) as ar:
            headers = await ar.headers(alice, "POST", "/bind/stcpr", body, old=True)
            assert (await ar.send("POST", "/bind/stcpr", body, headers)).status == status


async def test_l19_a_bind_is_gone_after_its_lifetime_the_first_one_too(ar, alice, bob):
    await ar.bind(alice)
    await anyio.sleep(290)
    assert (await ar.resolve(bob, alice)).status == 200
    await anyio.sleep(20)
    assert (await ar.resolve(bob, alice)).status == 404
    await ar.bind(alice)
    for _ in range(5):  # repeated every 90 s it stays
        await anyio.sleep(90)
        await ar.bind(alice)
    assert (await ar.resolve(bob, alice)).status == 200


async def test_l7_every_request_is_one_round_trip(ar, alice, bob):
    async def cost(method, path, body=b""):
        headers = await ar.headers(alice, method, path, body)
        before = ar.registry.round_trips
        assert (await ar.send(method, path, body, headers)).status in (200, 404)
        return ar.registry.round_trips - before

    assert await cost("POST", "/bind/stcpr", b'{"port":"1"}') == 1
    assert await cost("POST", "/bind/stcpr", b'{"port":"1"}') == 1
    assert await cost("GET", f"/resolve/stcpr/{bob.public.hex()}") == 1
    assert await cost("DELETE", "/bind/stcpr", b"{}") == 1


async def test_lists_of_all_that_is_bound(ar, alice, bob):
    assert said(await ar.get("/transports")) == {"stcpr": [], "sudph": []}
    await ar.bind(alice)
    await ar.desk.bind("sudph", bob.public, AddressBind(remote_addr="203.0.114.9:5000"))
    told = said(await ar.get("/transports"))
    assert told == {"stcpr": [alice.public.hex()], "sudph": [bob.public.hex()]}
    assert said(await ar.ask(bob, "GET", "/transports")) == told  # signed, as upstream's clients do
    assert await ar.nonce(bob) == 1
    by_key = {e["pk"]: e for e in said(await ar.get("/entries"))}
    assert by_key[alice.public.hex()]["stcpr"]["remote_addr"] == ar.public
    assert by_key[bob.public.hex()]["sudph"]["remote_addr"] == "203.0.114.9:5000"
    assert len(by_key) == 2


async def test_binds_of_both_types_do_not_hide_each_other(ar, alice, bob):
    await ar.bind(alice)
    await ar.desk.bind("sudph", alice.public, AddressBind(remote_addr=f"{ar.public}:5000"))
    heard = []
    with ar.desk.on_resolve(lambda *told: heard.append(told)):
        assert said(await ar.resolve(bob, alice, "sudph"))["remote_addr"] == f"{ar.public}:5000"
    assert heard == [("sudph", alice.public, bob.public)]
    assert said(await ar.resolve(bob, alice, "sudph", client=ar.public))["is_local"]
    assert (await ar.resolve(bob, alice)).status == 200
    assert await ar.desk.unbind("sudph", alice.public)
    assert not await ar.desk.unbind("sudph", alice.public)
    assert (await ar.resolve(bob, alice)).status == 200
    with pytest.raises(RequestRefusedError):
        await ar.desk.bind("sudph", alice.public, AddressBind(port="1"), Caller(alice.public, 99))


async def test_l6_monitors_deregister_and_nobody_else(make, alice, bob):
    monitor = identity("monitor")
    async with make(monitors=(monitor.public.hex(),)) as ar:
        await ar.bind(alice)
        keys = [alice.public.hex(), bob.public.hex()]
        answer = await ar.ask(bob, "DELETE", "/deregister/stcpr", keys)
        assert answer.status == 403
        answer = await ar.ask(monitor, "DELETE", "/deregister/quic", keys)
        assert answer.status == 400
        answer = await ar.ask(monitor, "DELETE", "/deregister/stcpr", ["nonsense"])
        assert answer.status == 400
        assert (await ar.resolve(bob, alice)).status == 200
        answer = await ar.ask(monitor, "DELETE", "/deregister/stcpr", keys)
        assert (answer.status, answer.body) == (200, b"null")
        assert (await ar.resolve(bob, alice)).status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [("/resolve/quic/{}", 400), ("/resolve/stcpr/xyz", 400), ("/resolve/stcpr/{}", 404)],
)
async def test_resolve_tells_what_is_wrong(ar, alice, bob, path, status):
    answer = await ar.ask(bob, "GET", path.format(alice.public.hex()))
    assert answer.status == status
    assert isinstance(said(answer)["error"], str)


async def test_nonces_and_health(ar, alice):
    answer = await ar.get(f"/security/nonces/{alice.public.hex()}")
    assert said(answer) == {"edge": alice.public.hex(), "next_nonce": 0}
    assert (await ar.get("/security/nonces/xyz")).status == 400
    told = said(await ar.get("/health"))
    assert told["service_name"] == "address-resolver"
    assert {"build_info", "started_at", "dmsg_address", "dmsg_servers", "udp_address"} <= set(told)


async def test_too_many_requests_of_one_key_are_429(make, alice, bob):
    async with make(requests_per_minute=2, burst=2) as ar:
        statuses = [(await ar.bind(alice)).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert (await ar.bind(bob)).status == 200


async def test_a_registry_that_is_away_is_503_and_reading_goes_on(ar, alice, bob):
    await ar.bind(alice)
    body = b'{"port":"1"}'
    headers = await ar.headers(bob, "POST", "/bind/stcpr", body)
    ar.registry.is_down = True
    assert (await ar.send("POST", "/bind/stcpr", body, headers)).status == 503
    assert said(await ar.get("/transports"))["stcpr"] == [alice.public.hex()]
    await anyio.sleep(10)
    told = await ar.status.status()
    assert told.health is Health.DEGRADED


async def test_status(ar, alice):
    await ar.bind(alice)
    told = await ar.status.status()
    assert told.health is Health.OK
    assert told.fields["binds"] == 1
    assert told.fields["requests"] == {"bound": 1}


async def test_l6_what_was_never_read_is_not_told_as_empty(make, alice):
    registry = DictRegistry(SimClock())
    registry.is_down = True
    async with make(registry) as ar:
        for path in ("/entries", "/transports"):
            path = path.format(key=alice.public.hex())
            assert (await ar.get(path)).status == 503, path
        assert (await ar.get("/health")).status == 200
        registry.is_down = False
        await anyio.sleep(60)
        assert (await ar.get("/entries")).status in (200, 404)
