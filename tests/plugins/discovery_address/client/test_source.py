from __future__ import annotations

import pytest

from discovery_address.client.source import HttpAddresses
from skycore.errors import DiscoveryError, RequestRefusedError, SkycoreError
from skycore.model.entries import AddressBind, AddressEntry
from skycore.testing.contracts.discovery import EntrySourceContract, Sourced
from skycore.testing.fakes import identity


class Kind:
    """A transport type, as far as the source asks."""

    def __init__(self, name):
        self.name = name


TYPES = (Kind("stcpr"), Kind("sudph"))


def bind(who, n):
    return AddressBind(str(1_000 * who + n + 1), ("10.0.0.1",), "198.51.101.7")


class TestContract(EntrySourceContract):
    @pytest.fixture
    async def sourced(self, place):
        people = [identity(f"person {i}") for i in range(10)]

        async def say(who, n):
            if n is None:
                await place.desk.unbind("stcpr", people[who].public)
            else:
                await place.desk.bind("stcpr", people[who].public, bind(who, n))
            return bytes(people[who].public)

        async def fail():
            place.http.is_down = True

        def body(who, n):
            return AddressEntry(pk=people[who].public.hex(), stcpr=bind(who, n))

        source = HttpAddresses(place.client("asker"), TYPES, place.clock)
        nobody = bytes(identity("nobody").public)
        yield Sourced(source, b"addr", place.clock, say=say, body=body, fail=fail, strange=nobody)


@pytest.fixture
def bob():
    return identity("bob").public


def source(place, types=TYPES):
    return HttpAddresses(place.client("asker"), types, place.clock)


async def test_both_types_make_one_record(place, bob):
    await place.desk.bind("stcpr", bob, bind(1, 1))
    await place.desk.bind("sudph", bob, AddressBind(remote_addr="198.51.101.7:9"))
    record = await source(place).find(b"addr", bob)
    assert record.body.stcpr == bind(1, 1)
    assert record.body.sudph.remote_addr == "198.51.101.7:9"
    assert record.signer is None


async def test_only_types_that_this_node_dials_are_asked_for(place, bob):
    await source(place, TYPES[:1]).find(b"addr", bob)
    assert [p for _, p in place.http.asked if "resolve" in p] == [f"/resolve/stcpr/{bob.hex()}"]


NONSENSE = [
    (200, b""),
    (200, b"[]"),
    (200, b'{"port": 7}'),
    (200, b'{"remote_addr": "' + b"x" * 999 + b'"}'),
    (200, b"{" + b" " * 70_000 + b"}"),
    (200, b"\xff"),
    (500, b"oops"),
    (403, b'{"error":"no"}'),
]


@pytest.mark.parametrize(("status", "answer"), NONSENSE, ids=range(len(NONSENSE)))
async def test_nonsense_is_an_error_and_no_answer(place, bob, status, answer):
    place.http.answers["resolve"] = status, answer
    with pytest.raises(SkycoreError):
        await source(place).find(b"addr", bob)


async def test_one_strange_bind_hides_no_other_and_is_told(place, bob):
    rows = b'[{"pk":"xyz"},{"pk":"%s","port":7},{"pk":5},{"new":1}]' % bob.hex().encode()
    place.http.answers["entries"] = 200, rows
    found = await source(place).records(b"addr")
    assert [r.subject for r in found.records] == [bob]
    assert not found.complete and found.note.startswith("3 of its rows")


async def test_a_list_that_is_none_is_an_error(place):
    endless = b"[" + b" " * 2**25 + b"]"
    for status, answer in ((200, endless), (200, b"{}"), (404, b""), (500, b"")):
        place.http.answers["entries"] = status, answer
        with pytest.raises(SkycoreError):
            await source(place).records(b"addr")


async def test_without_a_resolver_it_knows_nothing(place, bob):
    nobody = HttpAddresses(None, TYPES, place.clock)
    assert nobody.salts == frozenset()
    assert await nobody.find(b"addr", bob) is None
    with pytest.raises(DiscoveryError):
        await nobody.records(b"addr")
    assert await source(place).find(b"tp", bob) is None


async def test_a_refusal_is_told_in_the_servers_words(place, bob):
    place.http.answers["resolve"] = 429, b"Rate limit exceeded"
    with pytest.raises(RequestRefusedError, match="Rate limit"):
        await source(place).find(b"addr", bob)
