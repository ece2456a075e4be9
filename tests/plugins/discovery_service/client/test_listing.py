"""svc.ls: all sources together, what each knows, and what is missing."""

from __future__ import annotations

import anyio
import pytest

from discovery_service.client.commands import _page
from discovery_service.client.listing import LsParams, open_methods
from discovery_service.client.settings import ServiceSettings
from skycore import Live
from skycore.console import Console, Context
from skycore.contracts.discovery import Record, Records
from skycore.contracts.rpc import Caller, RpcContext
from skycore.errors import DiscoveryError
from skycore.model.entries import Geo, ServiceEntry
from skycore.testing import sim_backend
from skycore.testing.contracts.rpc import RpcServiceContract
from skycore.testing.fakes import FakeClock, identity

CLOCK = FakeClock()
KEYS = [bytes(identity(name).public) for name in ("alice", "bob")]


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=1_000)


class Source:
    is_local = False
    salts = frozenset({b"svc"})

    def __init__(self, name, *rows, complete=True, note="", fails="", takes_s=0, signed=False):
        self.name, self.rows, self.complete, self.note = name, rows, complete, note
        self.fails, self.takes_s, self.signed = fails, takes_s, signed

    async def records(self, salt):
        await anyio.sleep(self.takes_s)
        if self.fails:
            raise DiscoveryError(self.fails)
        by_key = {}
        for entry in self.rows:
            by_key.setdefault(bytes.fromhex(entry.address.partition(":")[0]), []).append(entry)
        found = tuple(
            Record(salt, key, tuple(those), CLOCK.wall_ns() - 7 * 10**9, CLOCK.wall_s() + 99,
                   self.name, key if self.signed else None)
            for key, those in by_key.items()
        )  # fmt: skip
        return Records(found, self.name, CLOCK.wall_ns(), self.complete, self.note)


def entry(who, port, kind="vpn", **more):
    return ServiceEntry(f"{KEYS[who].hex()}:{port}", kind, "v1", **more)


async def ls(*sources, **params):
    async with open_methods(ServiceSettings(wait_s=2), Live(sources), CLOCK) as service:
        return await service.methods[0].call(LsParams(**params), RpcContext(Caller()))


async def test_l1_c21_the_union_of_all_sources_each_service_once():
    told = await ls(
        Source("dht", entry(0, 1), entry(0, 3, "skysocks"), complete=False, signed=True),
        Source("http", entry(0, 1), entry(1, 1, geo=Geo(country="DE"))),
    )
    rows = {(r.address[:8], r.type): r for r in told.services}
    assert len(told.services) == len(rows) == 3
    assert rows[KEYS[0].hex()[:8], "vpn"].sources == ["dht", "http"]
    assert rows[KEYS[0].hex()[:8], "vpn"].signed
    assert not rows[KEYS[1].hex()[:8], "vpn"].signed
    assert rows[KEYS[1].hex()[:8], "vpn"].country == "DE"
    assert not told.partial  # one of them knows everything
    assert all(r.age_s == 7 for r in told.services)


async def test_c21_l18_who_is_slow_or_down_hides_nobody_and_the_answer_is_partial():
    good = Source("dht", entry(0, 1))
    for bad in (Source("http", fails="it is down"), Source("http", entry(1, 1), takes_s=60)):
        told = await ls(good, bad)
        assert [r.address for r in told.services] == [entry(0, 1).address]
        assert told.partial and set(told.failed) == {"http"}
    assert (await ls(Source("dht", entry(0, 1), complete=False))).partial


async def test_types_and_sources_can_be_chosen():
    sources = Source("dht", entry(0, 3, "skysocks")), Source("http", entry(0, 1))
    assert [r.type for r in (await ls(*sources, type="proxy")).services] == ["skysocks"]
    assert [r.type for r in (await ls(*sources, source="http")).services] == ["vpn"]
    with pytest.raises(DiscoveryError, match="no source 'redis'") as caught:
        await ls(*sources, source="redis")
    assert "dht, http" in caught.value.hint
    with pytest.raises(DiscoveryError, match="nobody knows"):
        await ls()
    with pytest.raises(DiscoveryError, match="http: it is down"):
        await ls(Source("http", fails="it is down"))


async def test_local_addresses_are_shown_where_the_service_says_so():
    told = await ls(
        Source(
            "dht",
            entry(0, 1, local_ips=("10.0.0.1",)),
            entry(1, 1, local_ips=("10.0.0.1",), display_node_ip=True),
        )
    )
    assert sorted(r.local_ips for r in told.services) == [[], ["10.0.0.1"]]


async def test_a_page_for_people(capsys):
    import msgspec

    sources = (
        Source("dht", entry(0, 1), complete=False, note="its own part"),
        Source("http", fails="it is down"),
    )
    console = Console(Context())
    console.show(msgspec.to_builtins(await ls(*sources)), lambda told: _page(console, told))
    shown = capsys.readouterr().out
    assert f"{KEYS[0].hex()}:1" in shown
    assert "PARTIAL: 1 services. Source: dht (0 s old)." in shown
    assert "dht: its own part" in shown
    assert "http could not be asked: it is down" in shown


class TestMethods(RpcServiceContract):
    @pytest.fixture
    async def service(self):
        async with open_methods(ServiceSettings(), Live(()), CLOCK) as service:
            yield service
