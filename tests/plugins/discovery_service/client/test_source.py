from __future__ import annotations

import json

import pytest

from discovery_service.client.source import HttpServices
from skycore.errors import DiscoveryError, SkycoreError
from skycore.model.entries import ServiceEntry
from skycore.testing.contracts.discovery import EntrySourceContract, Sourced
from skycore.testing.fakes import identity


def services(who, n):
    """Return person who's n-th list: two services, the second at another port each time."""
    key = identity(f"person {who}").public.hex()
    return (
        ServiceEntry(f"{key}:{n + 1}", "skysocks", "v1"),
        ServiceEntry(f"{key}:44", "vpn", "v1"),
    )


class TestContract(EntrySourceContract):
    @pytest.fixture
    async def sourced(self, place):
        async def say(who, n):
            client = place.client(f"person {who}")
            rows = services(who, n) if n is not None else ()
            body = json.dumps(
                [{"address": e.address, "type": e.type, "version": "v1"} for e in rows]
            )
            answer = await client.request("POST", "/api/services", body.encode())
            assert answer.status == 200, answer.body
            return bytes(identity(f"person {who}").public)

        async def fail():
            place.http.is_down = True

        source = HttpServices(place.client("asker"), place.clock)
        nobody = bytes(identity("nobody").public)
        yield Sourced(
            source, b"svc", place.clock, say=say, body=services, fail=fail, strange=nobody
        )


@pytest.fixture
def bob():
    return identity("bob").public


async def test_rows_that_are_no_services_are_left_out_and_counted(place, bob):
    good = {"address": f"{bob.hex()}:1", "type": "vpn", "sort": 1, "geo": None}
    rows = [good, 5, {"address": 5}, {"address": "xyz:1", "type": "vpn"}]
    place.http.answers["services"] = 200, json.dumps(rows).encode()
    found = await HttpServices(place.client("asker"), place.clock).records(b"svc")
    assert [r.subject for r in found.records] == [bob]
    assert not found.complete
    assert found.note.startswith("3 of its rows")


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, b""),
        (200, b"{}"),
        (200, b"[5]"),
        (200, b"\xff"),
        (500, b"oops"),
        (200, b"[" + b" " * 2**24 + b"]"),
    ],
    ids=range(6),
)
async def test_nonsense_is_an_error_and_no_answer(place, bob, status, answer):
    place.http.answers["services"] = status, answer
    source = HttpServices(place.client("asker"), place.clock)
    with pytest.raises(SkycoreError):
        await source.find(b"svc", bob)
    if answer != b"[5]":  # a list, if a strange one: partial
        with pytest.raises(SkycoreError):
            await source.records(b"svc")


async def test_without_a_server_it_knows_nothing(place, bob):
    nobody = HttpServices(None, place.clock)
    assert nobody.salts == frozenset()
    assert await nobody.find(b"svc", bob) is None
    with pytest.raises(DiscoveryError):
        await nobody.records(b"svc")
    assert await HttpServices(place.client("asker"), place.clock).find(b"tp", bob) is None
