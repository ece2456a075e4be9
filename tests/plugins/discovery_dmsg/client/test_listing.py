"""dmsg.servers: all sources together, the best record of each server, and how much that is."""

from __future__ import annotations

import pytest

from discovery_dmsg.client.listing import ServersParams, make_service
from discovery_dmsg.client.source import HttpDmsg
from skycore.contracts.discovery import Record
from skycore.contracts.rpc import Caller, RpcContext
from skycore.errors import DiscoveryError
from skycore.model.entries import DmsgServerEntry
from skycore.testing.contracts.rpc import RpcServiceContract
from skycore.testing.sources import DictSource


class Sources:
    """HTTP and a DHT that a test tells."""

    def __init__(self, lab):
        self.lab = lab
        self.dht = DictSource("dht")
        self.all = [HttpDmsg(lab.api(), lab.clock), self.dht]
        self.service = make_service(self.all, lab.clock, 2.0)

    def tell(self, person, *, salt=b"dmsg-server", body=None, age_s=0, signer=None):
        now_ns = self.lab.clock.wall_ns()
        body = body or DmsgServerEntry(person.key, "198.51.100.9:8081")
        until_s = now_ns // 10**9 + 600
        signer = signer or person.public
        as_of = now_ns - age_s * 10**9
        self.dht.tell(Record(salt, person.public, body, as_of, until_s, "dht", signer))

    async def ask(self, source=""):
        (method,) = self.service.methods
        return await method.call(ServersParams(source), RpcContext(Caller()))


@pytest.fixture
def sources(running):
    return Sources(running)


class TestService(RpcServiceContract):
    @pytest.fixture
    async def service(self, sources):
        return sources.service


async def test_c21_each_server_once_from_whoever_knows_it_best(running, sources):
    both, web, net = (running.person(name) for name in ("both", "web", "net"))
    await running.post(both.as_server(free=7, bootstrap=True))
    await running.post(web.as_server(free=3))
    sources.tell(both, age_s=60)
    sources.tell(net)
    sources.tell(net, salt=b"dmsg", body=net.as_server(free=5))
    told = await sources.ask()
    rows = {row.pk: row for row in told.servers}
    assert set(rows) == {both.key, web.key, net.key} and len(told.servers) == 3
    assert rows[both.key].source == "http" and rows[both.key].address == "203.0.113.7:8081"
    assert rows[both.key].sources == ["dht", "http"] and rows[both.key].dht_bootstrap
    assert rows[both.key].server_type == "community"
    assert (rows[net.key].source, rows[net.key].free_sessions) == ("dht", 5)
    assert [row.free_sessions for row in told.servers] == [7, 5, 3]
    assert not told.partial and not told.failed


async def test_c21_one_source_that_is_slow_or_down_hides_no_other(running, sources):
    web, net = running.person("web"), running.person("net")
    await running.post(web.as_server())
    sources.tell(net)
    sources.dht.delay_s = 60
    told = await sources.ask()
    assert [row.pk for row in told.servers] == [web.key]
    assert told.partial and "no answer within 2 s" in told.failed["dht"]
    sources.dht.delay_s = 0
    running.http.is_down = True
    sources.all[0]._api._read_at = float("-inf")
    told = await sources.ask()
    assert [row.pk for row in told.servers] == [net.key]
    assert told.partial and told.failed == {"http": "nobody there"}
    assert told.servers[0].free_sessions is None
    sources.dht.fail("gone")
    with pytest.raises(DiscoveryError, match=r"no source can say.*dht: gone"):
        await sources.ask()


async def test_one_source_can_be_asked_alone(running, sources):
    web, net = running.person("web"), running.person("net")
    await running.post(web.as_server())
    sources.tell(net)
    assert [row.pk for row in (await sources.ask("dht")).servers] == [net.key]
    assert [row.pk for row in (await sources.ask("http")).servers] == [web.key]
    with pytest.raises(DiscoveryError, match="no source 'redis'") as said:
        await sources.ask("redis")
    assert "dht, http" in said.value.hint


async def test_no_server_is_an_answer(sources):
    told = await sources.ask()
    assert told.servers == [] and not told.partial


async def test_a_server_that_ended_is_not_listed(running, sources):
    net = running.person("net")
    sources.tell(net)
    now_ns = running.clock.wall_ns()
    sources.dht.tell(Record(b"dmsg-server", net.public, None, now_ns + 1, 2**40, "dht", net.public))
    assert (await sources.ask()).servers == []
