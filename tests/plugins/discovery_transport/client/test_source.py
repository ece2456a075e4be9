"""The service as a source, and what a visor tells it, against the service's own application."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import msgspec
import pytest

from discovery_transport.client.own import OwnTransports
from discovery_transport.client.registrar import BATCH, Registrar
from discovery_transport.client.source import HttpTransports
from discovery_transport.server.service import open_desk
from discovery_transport.server.settings import TransportServerSettings
from skycore.contracts.http import HttpResponse
from skycore.contracts.runtime import NodeInfo
from skycore.discovery.signed import SignedClient
from skycore.errors import (
    DiscoveryError,
    HttpReplyError,
    HttpUnreachableError,
    RequestRefusedError,
)
from skycore.model.entries import TransportEntry
from skycore.model.packets import transport_id
from skycore.testing.contracts.discovery import EntrySourceContract, Sourced
from skycore.testing.contracts.http import call_app
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import InlineWorkers, identity
from skycore.testing.seams import SimClock

BASE = "http://tpd.example/tpd"
INFO = NodeInfo("visor", (), "1.2.3", "skycore-test")


class AppClient:
    """`contracts.http.HttpClient` that asks an application in this process."""

    def __init__(self, app):
        self.app = app
        self.is_down = False
        self.asked = []
        self.answer = None

    async def get(self, url, **options):
        return await self.request("GET", url, **options)

    async def request(self, method, url, *, body=b"", headers=None, **_):
        if self.is_down:
            raise HttpUnreachableError("no way")
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        self.asked.append((method, target.removeprefix("/tpd")))
        if self.answer is not None:
            return self.answer
        sent = {"host": parts.netloc, **(headers or {})}
        return await call_app(
            self.app, target, method=method, root="/tpd", body=body, headers=sent.items()
        )


@asynccontextmanager
async def served(**settings):
    clock = SimClock()
    settings = TransportServerSettings(**{"requests_per_minute": 0, **settings})
    registry = DictRegistry(clock)
    server = identity("server")
    async with open_desk(settings, registry, server, INFO, clock, InlineWorkers()) as desk:
        http = AppClient(desk.app)
        http.desk, http.clock = desk, clock
        yield http


@pytest.fixture
async def http():
    async with served() as http:
        yield http


def entry(one, other, kind="stcpr", label="user"):
    edges = tuple(sorted((one.public.hex(), other.public.hex())))
    return TransportEntry(transport_id(one.public, other.public, kind), edges, kind, label)


def source_of(http):
    return HttpTransports(SignedClient(http, identity("reader"), BASE), http.clock, 10)


async def tell(http, who, entries, client=None):
    client = client or SignedClient(http, who, BASE)
    (await client.request("POST", "/v3/transports/", msgspec.json.encode(entries))).expect(201)


class TestHttpTransports(EntrySourceContract):
    @pytest.fixture
    async def sourced(self):
        async with served() as http:

            def body(who, n):
                return (entry(identity(f"person {who}"), identity(f"peer {n}")),)

            async def say(who, n):
                person = identity(f"person {who}")
                client = SignedClient(http, person, BASE)
                held = [str(uuid) for uuid in keys(http, person)]
                if held:
                    await client.request(
                        "POST", "/transports/delete-batch", json.dumps(held).encode()
                    )
                if n is not None:
                    await tell(http, person, body(who, n), client)
                return person.public

            async def fail():
                http.is_down = True

            source, strange = source_of(http), identity("stranger").public
            yield Sourced(source, b"tp", http.clock, say, body, fail, strange=strange)


def keys(http, person):
    entries = http.desk.directory.of(person.public).entries
    return [msgspec.json.decode(e.body, type=TransportEntry).t_id for e in entries]


async def test_l25_an_unchanged_list_is_not_sent_again(http):
    source = source_of(http)
    alice, bob = identity("alice"), identity("bob")
    await tell(http, alice, [entry(alice, bob)])
    first = await source.whole()
    http.asked.clear()
    assert await source.whole() is first, "304, and what was read before"
    await tell(http, bob, [entry(alice, bob)])
    (seen,) = (await source.whole()).values()
    assert seen.sides == 2


async def test_one_transport_by_id(http):
    source = source_of(http)
    alice, bob = identity("alice"), identity("bob")
    wanted = entry(alice, bob)
    assert await source.one(wanted.t_id) is None
    await tell(http, alice, [wanted])
    seen = await source.one(wanted.t_id)
    assert (seen.entry, seen.sides, seen.listed_by) == (wanted, 1, {alice.public.hex()})


async def test_a_service_that_knows_no_sides_is_believed_and_one_that_hides_a_lister_is_partial(
    http,
):
    rows = [msgspec.to_builtins(entry(identity("alice"), identity("bob")))]
    http.answer = HttpResponse(200, {}, json.dumps(rows).encode(), BASE)
    listed = await source_of(http).records(b"tp")
    assert listed.complete and len(listed.records) == 2
    rows[0]["one_sided"] = True
    http.answer = HttpResponse(200, {}, json.dumps(rows).encode(), BASE)
    listed = await source_of(http).records(b"tp")
    assert not listed.complete and "who lists them" in listed.note


@pytest.mark.parametrize("body", [b"", b"{}", b'[{"t_id":1}]', b"[" * 100_000, b"\xff"])
async def test_an_answer_that_is_none_is_refused(http, body):
    http.answer = HttpResponse(200, {}, body, BASE)
    with pytest.raises(HttpReplyError):
        await source_of(http).whole()


async def test_a_path_that_leads_nowhere_is_not_an_empty_network(http):
    http.answer = HttpResponse(404, {}, b"not found", BASE)
    with pytest.raises(RequestRefusedError, match="404") as refused:
        await source_of(http).whole()
    assert "prefix" in refused.value.hint


async def test_without_a_service_it_says_what_to_do():
    source = HttpTransports(None, SimClock(), 10)
    assert source.salts == frozenset()
    with pytest.raises(DiscoveryError) as none:
        await source.whole()
    assert "url" in none.value.hint


class Own(OwnTransports):
    """A list that a test sets."""

    def __init__(self, entries):
        self.entries, self.version = tuple(entries), 1


async def test_a_hub_is_registered_in_few_requests_and_what_it_lost_is_deleted():
    async with served(transports_max=10_000) as http:
        hub = identity("hub")
        entries = [entry(hub, identity(f"peer {n}")) for n in range(2 * BATCH + 500)]
        own = Own(entries)
        registrar = Registrar(SignedClient(http, hub, BASE), own, hub.public, 10)
        await registrar.register()
        assert registrar.registrations == 3 and len(keys(http, hub)) == len(entries)
        own.entries = own.entries[:1_200]
        await registrar.register()
        assert registrar.deletes == 2 and len(keys(http, hub)) == 1_200
        await registrar.leave()
        assert keys(http, hub) == []


async def test_what_an_earlier_run_left_behind_is_deleted(http):
    alice = identity("alice")
    old, new = entry(alice, identity("bob")), entry(alice, identity("carol"))
    await tell(http, alice, [old])
    registrar = Registrar(SignedClient(http, alice, BASE), Own([new]), alice.public, 10)
    await registrar.register()
    assert keys(http, alice) == [new.t_id]


async def test_a_visor_without_transports_still_gives_a_sign_of_life(http):
    alice = identity("alice")
    registrar = Registrar(SignedClient(http, alice, BASE), Own([]), alice.public, 10)
    await registrar.register()
    assert registrar.registrations == 1 and registrar.deletes == 0
    day = await http.desk.directory.beats("2027-01-15")
    assert alice.public in day


async def test_a_service_that_refuses_says_why(http):
    alice = identity("alice")
    foreign = entry(identity("bob"), identity("carol"))
    registrar = Registrar(SignedClient(http, alice, BASE), Own([foreign]), alice.public, 10)
    with pytest.raises(RequestRefusedError, match="none of its edges") as refused:
        await registrar.register()
    assert refused.value.code == 403
