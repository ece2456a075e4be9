"""Routes, messages, codes and rules of the service."""

from __future__ import annotations

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skycore.model import dmsg_entry
from skycore.model.entries import DmsgClient, DmsgServer
from skycore.testing.contracts.http import HttpRoutesContract

AT = "/dmsg-discovery"
WROTE = (200, {"message": "wrote a new entry", "code": 200})
AGAIN = (200, {"message": "wrote new entry iteration", "code": 200})


def wrong(cause):
    return 422, {"message": f"entry validation error: {cause}", "code": 422}


WRONG_SEQUENCE = wrong("sequence field of new entry is not sequence of old entry + 1")


class TestRoutes(HttpRoutesContract):
    @pytest.fixture
    async def routes(self, running):
        return running.routes


async def test_an_entry_is_written_served_and_iterated(running):
    alice, server = running.person("alice"), running.person("server")
    assert await running.ask("GET", f"{AT}/entry/{alice.key}") == (
        404,
        {"message": "entry of public key is not found", "code": 404},
    )
    first = alice.as_client(server)
    assert await running.post(first) == WROTE
    assert await running.ask("POST", f"{AT}/entry/{alice.key}", alice.as_client()) == AGAIN
    second = alice.as_client(server)
    assert await running.post(second) == AGAIN
    told = await running.list(f"/entry/{alice.key}")
    assert told == msgspec.json.decode(dmsg_entry.encode(second))
    assert list(told)[:4] == ["version", "sequence", "timestamp", "static"]
    assert (await running.ask("GET", f"{AT}/entry/nonsense"))[0] == 400


async def test_lists(running):
    visors = [running.person(f"visor{n}") for n in range(3)]
    one, other, full = (running.person(name) for name in ("one", "other", "full"))
    await running.list("/available_servers", status=404)
    await running.list("/all_servers", status=404)
    assert await running.list("/entries") == [] and await running.list("/visorEntries") == []
    await running.post(one.as_server(free=5))
    await running.post(other.as_server(free=7, bootstrap=True))
    await running.post(full.as_server(free=0))
    for visor in visors:
        await running.post(visor.as_client(one, other))
    setup = running.person("setup")
    await running.post(setup.entry(client=DmsgClient((other.key,))))
    everybody = sorted(p.key for p in (*visors, one, other, full, setup))
    assert await running.list("/entries") == everybody
    assert await running.list("/visorEntries") == sorted(v.key for v in visors)
    available = await running.list("/available_servers")
    assert [e["static"] for e in available] == [other.key, one.key]
    assert available[0]["server"]["dht_bootstrap"] is True
    assert len(await running.list("/all_servers")) == 3
    by_server = await running.list("/servers/clients")
    assert by_server == {
        one.key: sorted(v.key for v in visors),
        other.key: sorted([setup.key, *(v.key for v in visors)]),
    }
    assert await running.list(f"/server/{one.key}/clients") == by_server[one.key]
    assert await running.list(f"/server/{full.key}/clients") == []
    await running.post(visors[0].as_client(other))
    assert await running.list(f"/server/{one.key}/clients") == sorted(v.key for v in visors[1:])
    for visor in visors[1:]:
        await running.post(visor.as_server())
    assert list(await running.list("/servers/clients")) == [other.key]


async def test_a_batch_leaves_out_who_has_none(running):
    alice, bob = running.person("alice"), running.person("bob")
    await running.post(alice.as_client())
    body = msgspec.json.encode([alice.key, bob.key, "nonsense", alice.key])
    status, told = await running.ask("POST", f"{AT}/entries/batch", body)
    assert status == 200 and list(told) == [alice.key]
    assert told[alice.key] == await running.list(f"/entry/{alice.key}")
    many = msgspec.json.encode([alice.key] * 1_025)
    assert (await running.ask("POST", f"{AT}/entries/batch", many))[0] == 400


async def test_available_servers_is_a_sample_of_512_the_emptiest_first(lab):
    async with lab.service(feed=False, take=False):
        for n in range(600):
            person = lab.person(f"server{n}")
            await lab.post(person.as_server(free=n % 50 + 1))
        samples = []
        for _ in range(2):
            told = await lab.list("/available_servers")
            free = [entry["server"]["availableSessions"] for entry in told]
            assert len(told) == 512 and free == sorted(free, reverse=True)
            samples.append({entry["static"] for entry in told})
        assert samples[0] != samples[1]
        assert len(await lab.list("/all_servers")) == 600


async def test_l16_a_servers_type_is_told_in_lists_and_never_in_what_it_signed(lab):
    one, other = lab.person("one"), lab.person("other")
    async with lab.service(official=(one.key,)):
        claims = DmsgServer("203.0.113.9:8081", 3, server_type="official")
        await lab.post(one.as_server(free=9))
        await lab.post(other.entry(server=claims))
        told = await lab.list("/available_servers")
        kinds = {entry["static"]: entry["server"]["serverType"] for entry in told}
        assert kinds == {one.key: "official", other.key: "community"}
        for entry in told:  # still as it was signed
            dmsg_entry.verify(one.identity.network, msgspec.convert(entry, dmsg_entry.DmsgEntry))
        assert "serverType" not in (await lab.list(f"/entry/{other.key}"))["server"]


async def test_rules_of_an_entry(running):
    alice, now = running.person("alice"), running.clock.wall_ns()
    client, server = DmsgClient(), DmsgServer("203.0.113.7:8081", 1)
    say = alice.entry
    assert await running.post(say(client=client, version="")) == wrong("entry has no version")
    unsigned = msgspec.structs.replace(say(client=client), signature="")
    assert await running.post(unsigned) == wrong("entry has no signature")
    neither = wrong("entry has neither client or server field")
    assert await running.post(say()) == neither
    empty = wrong("server address cannot be empty")
    for address in ("", ":8081", "203.0.113.7"):
        assert await running.post(alice.as_server(address=address)) == empty
    local = wrong("advertising localhost listening address is not allowed in production mode")
    for address in (
        "127.0.0.1:8081", "[::1]:8081", "localhost:8081", "127.9.9.9:1", "0.0.0.0:8081",
        "[::ffff:127.0.0.1]:8081", "127.1:8081", "LocalHost.:1",
    ):  # fmt: skip
        assert await running.post(alice.as_server(address=address)) == local
    outdated = wrong("advertised entry has outdated timestamp")
    for off_s in (-61, 6, 3600):
        assert await running.post(say(server=server, timestamp=now + off_s * 10**9)) == outdated
    for off_s in (-3301, 301):
        assert await running.post(say(client=client, timestamp=now + off_s * 10**9)) == outdated
    assert await running.post(say(server=server, timestamp=now + 4 * 10**9)) == WROTE
    assert running.desk.counters["refused"] == 19


async def test_who_did_not_sign_is_refused(running):
    alice, bob = running.person("alice"), running.person("bob")
    before = running.registry.round_trips
    refused = {"message": "invalid signature", "code": 401}
    entry = msgspec.structs.replace(alice.as_client(), signature="ab" * 64)
    assert await running.post(entry) == (401, refused)
    assert await running.post(bob.entry(static=alice.key, client=DmsgClient())) == (401, refused)
    changed = msgspec.structs.replace(alice.as_client(), client=DmsgClient((bob.key,)))
    assert await running.post(changed) == (401, refused)
    production = "02" + "ab" * 32  # another suite's key: nothing of it can be verified here
    status, told = await running.post(bob.entry(static=production, client=DmsgClient()))
    assert status == 401 and told["message"].startswith("invalid signature: ")
    assert (await running.ask("POST", f"{AT}/entry/{bob.key}", alice.as_client()))[0] == 400
    assert running.registry.round_trips == before  # none of them reached it
    assert len(running.desk.directory) == 0


async def test_an_entry_that_is_too_large_or_has_a_strange_field_is_bad_input(running):
    alice = running.person("alice")
    large = alice.entry(client=DmsgClient(tuple(f"{n:0256}" for n in range(64))))
    status, told = await running.post(large)
    assert status == 400 and told["message"].startswith("error bad input: ")
    body = dmsg_entry.encode(alice.as_client()).replace(b'{"version"', b'{"more":1,"version"')
    status, told = await running.ask("POST", f"{AT}/entry/", body)
    assert status == 400 and "more" in told["message"]


async def test_a_sequence_rises_and_time_does_not_go_back(running):
    alice = running.person("alice")
    assert await running.post(alice.as_client(sequence=5)) == WROTE
    for sequence in (5, 4, 0):
        assert await running.post(alice.as_client(sequence=sequence)) == WRONG_SEQUENCE
    now = running.clock.wall_ns()
    back = alice.as_client(sequence=6, timestamp=now - 10**9)
    assert await running.post(back) == wrong(
        "advertised entry timestamp is not greater than previous"
    )
    assert await running.post(alice.as_client(sequence=600)) == AGAIN


async def test_of_two_servers_on_one_registry_the_sequence_rises_all_the_same(running):
    alice = running.person("alice")
    await running.post(alice.as_client(sequence=5))
    write = running.desk.directory  # what the other server's directory does not know yet
    held, write._listings = write._listings, {}
    assert await running.post(alice.as_client(sequence=5)) == WRONG_SEQUENCE
    write._listings = held


async def test_a_deletion_is_signed_and_nothing_older_comes_back(running):
    alice, server = running.person("alice"), running.person("server")
    first = alice.as_client(server)
    await running.post(first)
    captured = alice.as_client()
    assert (await running.ask("DELETE", f"{AT}/entry", captured))[0] == 401  # it is no deletion
    assert len(await running.list("/servers/clients")) == 1
    early = alice.entry(client=DmsgClient(), deletes=True)
    assert await running.post(early) == (401, {"message": "invalid signature", "code": 401})
    last = alice.as_client(server)
    assert await running.post(last) == AGAIN
    assert await running.ask("DELETE", f"{AT}/entry", early) == WRONG_SEQUENCE  # a newer one
    late = alice.entry(client=DmsgClient(), deletes=True)
    assert await running.ask("DELETE", f"{AT}/entry", late) == (
        200,
        {"message": "deleted entry", "code": 200},
    )
    assert await running.list("/entries") == [] == await running.list("/visorEntries")
    assert await running.list("/servers/clients") == {}
    assert (await running.ask("GET", f"{AT}/entry/{alice.key}"))[0] == 404
    body = msgspec.json.encode([alice.key])
    assert await running.ask("POST", f"{AT}/entries/batch", body) == (200, {})
    assert (await running.ask("DELETE", f"{AT}/entry", late))[0] == 404
    for old in (first, captured, last):  # anybody may have copied them
        assert await running.post(old) == WRONG_SEQUENCE
    assert await running.post(alice.as_client()) == WROTE


async def test_l19_entries_end_and_what_ended_cannot_be_handed_in_by_others(running):
    alice, server = running.person("alice"), running.person("server")
    await running.post(server.as_server())
    copied = server.as_server()
    await running.post(copied)
    ahead = alice.as_client(timestamp=running.clock.wall_ns() + 299 * 10**9)
    await running.post(ahead)
    await anyio.sleep(114)
    assert len(await running.list("/all_servers")) == 1
    await anyio.sleep(12)
    await running.list("/all_servers", status=404)
    outdated = wrong("advertised entry has outdated timestamp")
    assert await running.post(copied) == outdated
    assert await running.list("/entries") == [alice.key]
    await anyio.sleep(3_600 - 126 + 6)
    assert await running.list("/entries") == []
    assert await running.post(ahead) == outdated


async def test_a_short_life_is_asked_for(running):
    alice = running.person("alice")
    await running.ask("POST", f"{AT}/entry/?timeout=true", alice.as_client())
    await anyio.sleep(174)
    assert await running.list("/entries") == [alice.key]
    await anyio.sleep(12)
    assert await running.list("/entries") == []


async def test_a_client_that_becomes_a_server_has_one_entry(running):
    alice = running.person("alice")
    await running.post(alice.as_client())
    assert await running.post(alice.as_server()) == AGAIN
    assert await running.list("/entries") == [alice.key]
    assert await running.list("/visorEntries") == []
    await anyio.sleep(127)
    assert await running.list("/entries") == []


async def test_l7_a_write_is_one_round_trip(running):
    alice = running.person("alice")
    before = running.registry.round_trips
    await running.post(alice.as_client())
    assert running.registry.round_trips == before + 1
    await running.list("/entries")
    await running.list(f"/entry/{alice.key}")
    assert running.registry.round_trips == before + 1


# --- monitors ------------------------------------------------------------------------------------


async def test_a_monitor_deregisters_and_its_request_is_good_once(lab):
    alice, bob, monitor = (lab.person(name) for name in ("alice", "bob", "monitor"))
    path = f"{AT}/deregister"
    async with lab.service(monitors=(monitor.key,)):
        first = alice.as_client()
        await lab.post(first)
        await lab.post(bob.as_server())
        body = msgspec.json.encode([alice.key, bob.key])
        status, told = await lab.ask_signed(alice, "DELETE", path, body)
        assert (status, told["code"]) == (403, 403)
        assert (await lab.ask("DELETE", path, body))[0] == 401
        assert await lab.ask_signed(monitor, "DELETE", path, body, nonce=0) == (200, None)
        assert await lab.list("/entries") == []
        assert await lab.post(first) == WRONG_SEQUENCE  # only alice herself comes back
        assert await lab.post(alice.as_client()) == WROTE
        status, told = await lab.ask_signed(monitor, "DELETE", path, body, nonce=0)
        assert status == 401
        assert told == {"error": {"message": "SW-Nonce does not match", "code": 401}}
        assert await lab.list("/entries") == [alice.key]
        assert (await lab.ask_signed(monitor, "DELETE", path, b"[1]"))[0] == 400
        assert (await lab.ask_signed(monitor, "DELETE", path, b'["x"]'))[0] == 400


# --- the rest ------------------------------------------------------------------------------------


async def test_uptimes_and_health(running):
    alice = running.person("alice")
    await running.post(alice.as_client())
    status, rows = await running.ask("GET", "/uptimes")
    assert status == 200 and [row["key"] for row in rows] == [alice.key]
    body = msgspec.json.encode({"pks": [alice.key], "v": "v2"})
    status, rows = await running.ask("POST", "/uptimes", body)
    assert status == 200 and [row["pk"] for row in rows] == [alice.key]
    status, told = await running.ask("GET", "/health")
    assert status == 200 and told["service_name"] == "dmsg-discovery"
    assert told["build_info"] == {"version": "1.2.3"} and told["started_at"].endswith("Z")


async def test_a_registry_that_is_away_is_told_and_what_is_known_is_served(running):
    alice = running.person("alice")
    await running.post(alice.as_client())
    running.registry.is_down = True
    status, told = await running.post(alice.as_client())
    assert status == 503 and told["code"] == 503
    await anyio.sleep(10)
    assert await running.list("/entries") == [alice.key]
    assert (await running.status.status()).health.value == "degraded"


async def test_what_was_never_read_is_not_told_as_nothing(lab):
    lab.registry.is_down = True
    async with lab.service():
        alice = lab.person("alice")
        await lab.list("/entries", status=503)
        await lab.list(f"/entry/{alice.key}", status=503)
        await lab.list("/all_servers", status=503)
        assert (await lab.status.status()).health.value == "down"
        lab.registry.is_down = False
        await anyio.sleep(6)
        assert await lab.list("/entries") == []


METHODS = st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD"])
PATHS = st.sampled_from(
    [
        f"{AT}/entry", f"{AT}/entry/x", f"{AT}/entries", f"{AT}/entries/batch", f"{AT}/deregister",
        f"{AT}/available_servers", f"{AT}/server/x/clients", f"{AT}/", "/uptimes", "/nothing",
        "/security/nonces/x", f"{AT}/entry/?timeout=%FF", "/uptimes?" + "a=1&" * 40,
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(METHODS, PATHS, st.binary(max_size=60) | JSON.map(msgspec.json.encode))
async def test_malformed_requests_are_never_an_error_of_ours(running, method, path, body):
    status, told = await running.ask(method, path, body)
    assert status in (200, 400, 401, 403, 404, 405, 422), told


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 4_000), flips=st.integers(1, 255))
async def test_a_damaged_entry_is_refused(running, at, flips):
    alice = running.person("alice")
    entry = alice.as_server(bootstrap=True)
    body = bytearray(dmsg_entry.encode(entry))
    body[at % len(body)] ^= flips
    status, told = await running.ask("POST", f"{AT}/entry/", bytes(body))
    assert status in (400, 401, 422), told
    assert len(running.desk.directory) == 0
