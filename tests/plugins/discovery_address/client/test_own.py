"""What a node says of where it can be dialled."""

from __future__ import annotations

import json
import random

import anyio
import pytest

from discovery_address.client.own import Own
from discovery_address.client.service import (
    Resolver,
    open_own,
    open_resolver,
    open_status,
)
from discovery_address.client.settings import AddressSettings
from namespaces_skywire.declarations import ADDR
from skycore.contracts.dht import PutReport
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Published
from skycore.contracts.status import Health
from skycore.contracts.store import Outcome, PutOutcome
from skycore.errors import ConfigError, DiscoveryError, QuotaError
from skycore.model.addresses import Address
from skycore.model.entries import AddressBind
from skycore.testing.contracts.status import StatusSourceContract
from skycore.testing.fakes import AlwaysReady, SeededEntropy, identity

ALICE = identity("alice")


class Publisher:
    """Remembers what was published; `fails` makes everybody refuse it."""

    def __init__(self):
        self.said, self.fails = [], False

    async def publish(self, fact):
        self.said.append(fact.v)
        code = QuotaError.code if self.fails else Outcome.STORED
        return Published(1, False, (PutReport(PutOutcome(code, 1, text="too full")),))


class Transports:
    def __init__(self, *listening):
        self.now = listening

    def listening(self):
        return self.now


def make(place, *listening, url=True, mirrors=("a mirror",), **settings):
    publisher = Publisher()
    own = Own(
        AddressSettings(url="http://ar.example/ar" if url else "", **settings),
        ALICE.public,
        lambda: listening,
        place.client("alice") if url else None,
        publisher,
        mirrors,
        Namespaces([ADDR]),
        random.Random(1),
    )
    return own, publisher


def entry(value):
    return ADDR.decode(value)


async def test_what_the_resolver_saw_is_bound_and_published(place):
    own, publisher = make(place, Address("stcpr", ":7777"))
    await own._bind()
    assert own.find("stcpr") == AddressBind("7777", (), "127.0.0.1")
    assert place.desk.find("stcpr", ALICE.public) == AddressBind("7777", (), "127.0.0.1")
    await own._publish()
    told = entry(publisher.said[-1])
    assert told.pk == ALICE.public.hex()
    assert told.stcpr == own.find("stcpr")
    assert own.copies == 1
    await own._unbind()  # the loop has not run: nothing to take back
    assert place.desk.find("stcpr", ALICE.public) is not None


async def test_without_a_resolver_what_is_advertised_is_published(place):
    own, publisher = make(place, Address("stcpr", "198.51.101.7:7777"), url=False)
    await own._bind()
    await own._publish()
    assert entry(publisher.said[-1]).stcpr == AddressBind("7777", ("198.51.101.7",))


async def test_nothing_known_is_nothing_said_and_what_was_said_is_taken_back(place):
    own, publisher = make(place, Address("stcpr", ":7777"), url=False)
    await own._bind()
    await own._publish()
    assert publisher.said == []
    own.told("sudph", AddressBind("9", remote_addr="198.51.101.7:9"))
    await own._publish()
    assert entry(publisher.said[-1]).sudph.remote_addr == "198.51.101.7:9"
    own.told("sudph", None)
    await own._publish()
    assert publisher.said[-1] is None
    own.told("quic", AddressBind("9"))  # a type that no record has a place for
    assert own.find("quic") is None


async def test_a_listener_of_another_type_speaks_for_itself(place):
    own, publisher = make(place, Address("sudph", "198.51.101.7:9"), url=False)
    await own._publish()
    assert entry(publisher.said[-1]).sudph == AddressBind("9", ("198.51.101.7",))


async def test_a_record_that_nobody_takes_is_trouble(place):
    own, publisher = make(place, Address("stcpr", "198.51.101.7:7777"))
    own.look()
    publisher.fails = True
    with pytest.raises(DiscoveryError, match="too full"):
        await own._publish()


async def test_publish_can_be_switched_off_and_needs_mirrors(place):
    for more in ({"publish": False}, {"mirrors": ()}):
        own, publisher = make(place, Address("stcpr", "198.51.101.7:7777"), **more)
        own.look()
        await own._publish()
        assert publisher.said == []


@pytest.mark.parametrize("seen", ["", "\\u001b[2Jx", "victim.example", "1.2.3.4:5", "x" * 300])
async def test_what_a_resolver_says_it_saw_is_an_address_or_nothing(place, seen):
    """It would stand in the DHT under our own signature."""
    place.http.answers["bind"] = 200, b'{"remote_addr":"%s"}' % seen.encode()
    own, publisher = make(place, Address("stcpr", "198.51.101.7:7777"))
    await own._bind()
    assert own.find("stcpr") == AddressBind("7777", ("198.51.101.7",))
    await own._publish()
    assert entry(publisher.said[-1]).stcpr.remote_addr == ""


async def test_an_older_resolver_answers_nothing(place):
    place.http.answers["bind"] = 200, b""
    own, _ = make(place, Address("stcpr", "198.51.101.7:7777"))
    await own._bind()
    assert own.find("stcpr") == AddressBind("7777", ("198.51.101.7",))


async def test_the_loops_bind_every_90_s_and_take_it_back(place):
    settings = AddressSettings(url="http://ar.example/ar")
    publisher, transports = Publisher(), Transports(Address("stcpr", ":7777"))
    async with (
        open_own(
            settings, Resolver(place.client("alice")), transports, publisher, (object(),),
            Namespaces([ADDR]), ALICE, SeededEntropy(1), AlwaysReady(),
        ) as own,
        open_status(settings, own, Resolver(None)) as status,
    ):  # fmt: skip
        await anyio.sleep(1_000)
        binds = [path for method, path in place.http.asked if method == "POST"]
        assert 11 <= len(binds) <= 13
        nonces = [path for _, path in place.http.asked if "nonces" in path]
        assert len(nonces) == 1  # asked for once, then counted
        assert place.desk.find("stcpr", ALICE.public) is not None
        place.http.is_down = True
        await anyio.sleep(100)
        told = await status.status()
        assert told.health is Health.DEGRADED and "no way" in told.summary
        place.http.is_down = False
        await anyio.sleep(200)
        assert (await status.status()).health is Health.OK
    assert place.desk.find("stcpr", ALICE.public) is None
    assert publisher.said[-1] is None


async def test_a_url_without_a_client_is_refused_by_name():
    with pytest.raises(ConfigError, match="HTTP client") as caught:
        async with open_resolver(AddressSettings(url="http://x/ar"), None, ALICE):
            pass
    assert "http_client" in caught.value.hint
    with pytest.raises(ValueError, match="http"):
        AddressSettings(url="ar.example")
    async with open_resolver(AddressSettings(), None, ALICE) as resolver:
        assert resolver.client is None


async def test_the_bind_tells_hosts_without_ports(place):
    two = (Address("stcpr", "10.0.0.1:7"), Address("stcpr", "198.51.101.7:9"))
    own, _ = make(place, *two)
    sent = []
    place.http.answers["nothing"] = 200, b""
    ask = place.http.request

    async def spy(method, url, *, body=b"", **more):
        sent.append(body)
        return await ask(method, url, body=body, **more)

    place.http.request = spy
    await own._bind()
    assert json.loads(sent[-1]) == {"port": "7", "addresses": ["10.0.0.1", "198.51.101.7"]}


class TestStatus(StatusSourceContract):
    @pytest.fixture
    async def source(self, place):
        own, _ = make(place, Address("stcpr", ":7777"))
        async with open_status(AddressSettings(), own, Resolver(None)) as status:
            yield status
