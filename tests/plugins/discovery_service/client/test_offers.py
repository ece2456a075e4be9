"""What a node says of what it offers."""

from __future__ import annotations

import json

import anyio
import pytest

from discovery_service.client.service import (
    ServiceServer,
    open_offers,
    open_server,
    open_status,
)
from discovery_service.client.settings import ServiceSettings
from namespaces_skywire.declarations import SVC
from skycore.contracts.dht import PutReport
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Published
from skycore.contracts.runtime import NodeInfo
from skycore.contracts.status import Health
from skycore.contracts.store import Outcome, PutOutcome
from skycore.errors import ConfigError, LocalProtocolError, QuotaError
from skycore.model.entries import Geo, ServiceEntry
from skycore.testing.contracts.status import StatusSourceContract
from skycore.testing.fakes import AlwaysReady, SeededEntropy, identity

ALICE = identity("alice")
INFO = NodeInfo("visor", (), "1.2.3", "skycore-test")
URL = "http://sd.example/sd"


class Publisher:
    """Remembers what was published; `fails` makes everybody refuse it."""

    def __init__(self):
        self.said, self.fails = [], False

    async def publish(self, fact):
        self.said.append(fact.v)
        code = QuotaError.code if self.fails else Outcome.STORED
        return Published(1, False, (PutReport(PutOutcome(code, 1, text="too full")),))


def entry(port, kind="chat", **more):
    return ServiceEntry(f"{ALICE.public.hex()}:{port}", kind, **more)


@pytest.fixture
def publisher():
    return Publisher()


@pytest.fixture
def opened(place, publisher):
    def open_(**settings):
        settings = ServiceSettings(url=URL, **settings)
        return open_offers(
            settings, ServiceServer(place.client("alice")), publisher, ("a mirror",),
            Namespaces([SVC]), ALICE, INFO, SeededEntropy(1), AlwaysReady(),
        )  # fmt: skip

    return open_


def listed(place):
    rows = json.loads(place.desk.shelf.whole("*"))
    return {(row["type"], row["address"].partition(":")[2]) for row in rows}


async def test_l1_what_the_settings_say_is_listed_and_published_and_taken_back(
    place, publisher, opened
):
    services = [
        {"type": "vpn", "port": 44, "country": "DE", "lat": 52.5, "lon": 13.4},
        {"type": "skysocks", "port": 3, "version": "v9", "local_ips": ["10.0.0.1"]},
    ]
    async with opened(services=services):
        await anyio.sleep(1)
        assert listed(place) == {("vpn", "44"), ("skysocks", "3")}
        socks, vpn = SVC.decode(publisher.said[-1])
        assert vpn.geo == Geo(52.5, 13.4, "DE")
        assert (vpn.version, socks.version) == ("v1.2.3", "v9")
        assert socks.local_ips == ()
        await anyio.sleep(1_000)
        posts = [path for method, path in place.http.asked if method == "POST"]
        assert 11 <= len(posts) <= 13
        assert len([p for _, p in place.http.asked if "nonces" in p]) == 1
    assert listed(place) == set()
    assert publisher.said[-1] is None


async def test_offers_of_plugins_come_and_go_and_the_last_of_one_address_counts(place, opened):
    async with opened() as offers:
        await anyio.sleep(10)
        assert place.http.asked == []  # nothing to say
        with offers.offer(entry(1)), offers.offer(entry(2)):
            await anyio.sleep(10)
            assert listed(place) == {("chat", "1"), ("chat", "2")}
            with offers.offer(entry(1, version="v2")):
                assert [e.version for e in offers.entries()] == ["v2", ""]
            assert [e.version for e in offers.entries()] == ["", ""]
        await anyio.sleep(10)
        assert listed(place) == set()
        with pytest.raises(LocalProtocolError):
            offers.offer(ServiceEntry(f"{identity('bob').public.hex()}:1", "chat"))


async def test_l9_what_moves_by_itself_is_not_published(publisher, opened):
    async with opened() as offers:
        for latency in range(5):
            info = {"latency": latency, "uptime": latency, "connections": latency, "motd": "hi"}
            with offers.offer(entry(1, info=info)):
                await anyio.sleep(61)
        values = {v for v in publisher.said if v is not None}
        assert len(values) == 1
        assert SVC.decode(values.pop())[0].info == {"motd": "hi"}


async def test_status_tells_trouble(place, publisher, opened):
    async with (
        opened(services=[{"type": "vpn", "port": 44}]) as offers,
        open_status(ServiceSettings(url=URL), offers, ServiceServer(None)) as status,
    ):
        await anyio.sleep(1)
        told = await status.status()
        assert told.health is Health.OK
        assert (told.fields["listed"], told.fields["published"]) == (1, 1)
        place.http.is_down = True
        await anyio.sleep(100)
        told = await status.status()
        assert told.health is Health.DEGRADED and "no way" in told.summary
        place.http.is_down, publisher.fails = False, True
        await anyio.sleep(200)
        assert "too full" in (await status.status()).summary


async def test_a_url_without_a_client_is_refused_by_name():
    with pytest.raises(ConfigError, match="http_client") as caught:
        async with open_server(ServiceSettings(url=URL), None, ALICE):
            pass
    assert "http_client" in caught.value.hint
    with pytest.raises(ValueError, match="http"):
        ServiceSettings(url="sd.example")


class TestStatus(StatusSourceContract):
    @pytest.fixture
    async def source(self, opened):
        async with (
            opened() as offers,
            open_status(ServiceSettings(), offers, ServiceServer(None)) as status,
        ):
            yield status
