"""The service as a source: the contract, and what a server that lies can do."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import msgspec
import pytest

from discovery_dmsg.client.api import AT_A_TIME, DmsgApi
from discovery_dmsg.client.source import HttpDmsg
from skycore.contracts.http import HttpResponse
from skycore.errors import DiscoveryError, HttpReplyError
from skycore.model import dmsg_entry
from skycore.model.entries import DmsgClient, DmsgServer, DmsgServerEntry
from skycore.testing.contracts.discovery import EntrySourceContract, Sourced

AT = "/dmsg-discovery"


class _Sourced:
    """People who register, for the contract."""

    def __init__(self, lab, salt):
        self.lab, self.salt = lab, salt
        self.people = [lab.person(f"person{n}") for n in range(10)]
        self.said = {}

    async def say(self, who, n):
        person = self.people[who]
        if n is None:
            end = person.entry(client=DmsgClient(), deletes=True)
            status, told = await self.lab.ask("DELETE", f"{AT}/entry", end)
        else:
            entry = self.entry(person, n)
            self.said[who, n] = entry
            status, told = await self.lab.post(entry)
        assert status == 200, told
        return person.public

    def entry(self, person, n):
        if self.salt == b"dmsg":
            return person.as_client(*self.people[:n])
        return person.as_server(free=n, address=f"203.0.113.{n}:80", bootstrap=n % 2 == 0)

    def body(self, who, n):
        entry = self.said[who, n]
        if self.salt == b"dmsg":
            return entry
        server = entry.server
        return DmsgServerEntry(
            entry.static, server.address,
            server_type="community", dht_bootstrap=server.dht_bootstrap,
        )  # fmt: skip

    async def fail(self):
        self.lab.http.is_down = True
        self.lab.api_in_use._read_at = float("-inf")  # as if its last answer were old


class _Contract(EntrySourceContract):
    salt = b""

    @pytest.fixture
    async def sourced(self, running):
        people = _Sourced(running, self.salt)
        running.api_in_use = running.api()
        source = HttpDmsg(running.api_in_use, running.clock)
        return Sourced(
            source, self.salt, running.clock, say=people.say, body=people.body, fail=people.fail,
            strange=running.person("nobody").public,
        )  # fmt: skip


class TestEntries(_Contract):
    salt = b"dmsg"


class TestServers(_Contract):
    salt = b"dmsg-server"


async def test_l16_what_keys_did_not_sign_is_left_out_and_the_rest_is_partial(running):
    good, bad = running.person("good"), running.person("bad")
    fine = dmsg_entry.encode(good.as_server(), server_type="official")
    forged = dmsg_entry.encode(msgspec.structs.replace(bad.as_server(), server=DmsgServer("x:1")))
    client = dmsg_entry.encode(bad.as_client())
    lies = running.http.lies
    lies[f"{AT}/all_servers"] = b"[%s,%s,%s,[]]" % (forged, fine, client)
    source = HttpDmsg(running.api(), running.clock)
    listed = await source.records(b"dmsg-server")
    assert [r.subject for r in listed.records] == [good.public]
    assert not listed.complete and listed.note.startswith("3 entries")
    (record,) = listed.records
    assert record.signer == good.public and record.body.server_type == "official"
    lies[f"{AT}/entries"] = msgspec.json.encode([good.key, bad.key])
    lies[f"{AT}/entries/batch"] = b'{"a":%s,"b":%s}' % (fine, forged)
    listed = await source.records(b"dmsg")
    assert len(listed.records) == 1 and not listed.complete
    lies[f"{AT}/entry/{bad.key}"] = fine  # another's entry, if a good one
    with pytest.raises(DiscoveryError, match="its key did not sign"):
        await source.find(b"dmsg", bad.public)


async def test_an_old_entry_told_again_is_not_fresh(running):
    good = running.person("good")
    entry = good.as_server(timestamp=running.clock.wall_ns() - 40 * 10**9)
    running.http.lies[f"{AT}/all_servers"] = b"[%s]" % dmsg_entry.encode(entry)
    record = (await HttpDmsg(running.api(), running.clock).records(b"dmsg-server")).records[0]
    assert record.as_of_ns == entry.timestamp


@pytest.mark.parametrize("body", [b"", b"{}", b"nonsense", b"[" * 9_999, b'{"a":1}', b"\xff"])
async def test_a_malformed_answer_is_an_error_and_never_an_empty_list(running, body):
    alice = running.person("alice")
    for path in ("/all_servers", "/entries", f"/entry/{alice.key}"):
        running.http.lies[AT + path] = body
    source = HttpDmsg(running.api(), running.clock)
    from skycore.errors import SkycoreError

    for salt in (b"dmsg", b"dmsg-server"):
        with pytest.raises(SkycoreError):
            await source.records(salt)
        with pytest.raises(SkycoreError):
            await source.find(salt, alice.public)


async def test_a_wrong_address_is_no_empty_list(running):
    running.url = "http://dmsgd.test/dmsgd/wrong"
    source = HttpDmsg(running.api(), running.clock)
    with pytest.raises(DiscoveryError, match="404"):
        await source.records(b"dmsg-server")
    with pytest.raises(DiscoveryError, match="404"):
        await source.find(b"dmsg", running.person("alice").public)


async def test_without_a_service_it_knows_nothing(running):
    source = HttpDmsg(None, running.clock)
    assert source.salts == frozenset()
    with pytest.raises(DiscoveryError) as said:
        await source.records(b"dmsg")
    assert "[discovery_dmsg] url" in said.value.hint


async def test_many_entries_are_read_in_batches(lab):
    async with lab.service(feed=False, take=False):
        for n in range(600):
            await lab.post(lab.person(f"visor{n}").as_client())
        listed = await HttpDmsg(lab.api(), lab.clock).records(b"dmsg")
        assert len(listed.records) == 600 and listed.complete
        assert len(lab.http.requests) == 3


async def test_what_is_no_key_has_no_entry(running):
    assert await HttpDmsg(running.api(), running.clock).find(b"dmsg", b"\x05" * 32) is None
    assert running.http.requests == []


class Hose:
    """An HttpClient that answers each path with what it is told, whatever the question."""

    def __init__(self, **bodies):
        self.bodies, self.asked = bodies, 0

    async def request(self, method, url, **more):
        self.asked += 1
        body = self.bodies[url.rpartition("/")[2]]
        if len(body) > more["body_bytes_max"]:
            raise HttpReplyError("more than it may")
        return HttpResponse(200, {}, body, url)


async def test_verifying_a_huge_list_lets_others_have_their_turn(running):
    row = dmsg_entry.encode(running.person("eve").as_server())
    http = Hose(all_servers=b"[" + b",".join([row] * 2_000) + b"]")
    api = DmsgApi(http, running.person("x").identity, running.clock, "http://x", 5.0)
    turns, is_over = 0, False

    async def others():
        nonlocal turns
        while not is_over:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        await api.servers()
        is_over = True
    assert turns >= 2_000 / AT_A_TIME


async def test_what_a_service_tells_of_everybody_is_bounded(running):
    """Each answer of a batch may be large, and a list of keys has room for many batches."""
    keys = [f"{n:064x}" for n in range(100_000)]
    batch = b'{"a":"%s"}' % (b"x" * (8 * 1024 * 1024 - 100))
    http = Hose(entries=msgspec.json.encode(keys), batch=batch)
    api = DmsgApi(http, running.person("x").identity, running.clock, "http://x", 5.0)
    with pytest.raises(DiscoveryError, match="more than"):
        await api.entries()
    assert http.asked < 12
    http = Hose(entries=msgspec.json.encode([*keys, "one more"]))
    api = DmsgApi(http, running.person("x").identity, running.clock, "http://x", 5.0)
    with pytest.raises(DiscoveryError, match="more than"):
        await api.entries()
    few = msgspec.json.encode({str(n): 5 for n in range(100_000)})
    http = Hose(entries=msgspec.json.encode(keys[:3]), batch=few)
    api = DmsgApi(http, running.person("x").identity, running.clock, "http://x", 5.0)
    assert await api.entries() == ((), 100_000)
    assert api.counters["unverified"] == 3
