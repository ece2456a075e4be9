"""Keeping sessions: how many, which, and how quietly."""

from __future__ import annotations

import types

import anyio
import pytest

from relay_dmsg.client.keeper import PULSE_S
from relay_dmsg.client.service import SERVERS_FILE
from relay_dmsg.client.source import AttachedServers
from skycore.contracts.discovery import Record, Records
from skycore.contracts.transport import DIRECT
from skycore.errors import DiscoveryError, StoreError
from skycore.model.entries import DmsgClient, DmsgEntry, DmsgServerEntry

FAR = 4_000_000_000


class Source:
    """Says what it is told to say."""

    name, is_local = "told", False
    salts = None

    def __init__(self, bench, servers=(), clients=None):
        self.bench, self.servers, self.clients = bench, list(servers), clients or {}
        self.asked = 0
        self.is_down = False

    def server(self, name):
        body = DmsgServerEntry(self.bench.key(name).hex(), "10.0.0.9:1")
        return Record(b"dmsg-server", self.bench.key(name), body, 1, FAR, "told", None)

    async def find(self, salt, subject):
        if self.is_down:
            raise DiscoveryError("down")
        names = {bytes(self.bench.key(n)): n for n in (*self.servers, *self.clients)}
        name = names.get(bytes(subject))
        if name is None:
            return None
        if salt == b"dmsg-server":
            return self.server(name)
        body = DmsgEntry(self.bench.key(name).hex(), client=DmsgClient(self.clients[name]))
        return Record(salt, subject, body, 1, FAR, "told", None)

    async def records(self, salt):
        self.asked += 1
        if self.is_down:
            raise DiscoveryError("down")
        return Records(tuple(self.server(n) for n in self.servers), "told", 1, True)


def attached(door):
    return set(door.client.keeper.sessions)


async def test_keeps_as_many_as_wanted_of_those_found(bench):
    for n in range(5):
        await bench.server(f"s{n}")
    door = await bench.client("alice", sources=(Source(bench, [f"s{n}" for n in range(5)]),))
    await bench.until(lambda: len(attached(door)) == 2)
    await anyio.sleep(100)
    assert len(attached(door)) == 2


async def test_configured_ones_are_all_used(bench):
    for n in range(4):
        await bench.server(f"s{n}")
    door = await bench.client("alice", "s0", "s1", "s2", "s3", sessions_max=3)
    await bench.until(lambda: len(attached(door)) == 3)
    await anyio.sleep(100)
    assert len(attached(door)) == 3


async def test_a_lost_server_is_replaced_in_10_s(bench):
    for n in range(3):
        await bench.server(f"s{n}")
    source = Source(bench, ["s0", "s1", "s2"])
    door = await bench.client("alice", sources=(source,))
    await bench.until(lambda: len(attached(door)) == 2)
    source.is_down = True
    lost = sorted(attached(door))[0]
    bench.exchange.stop(lost)
    await bench.until(lambda: len(attached(door) - {lost}) == 2, limit_s=10)


async def test_2942_a_server_that_is_silent_is_left_though_its_link_is_kept(bench):
    for n in range(3):
        await bench.server(f"s{n}")
    door = await bench.client("alice", sources=(Source(bench, ["s0", "s1", "s2"]),))
    await bench.until(lambda: len(attached(door)) == 2)
    silent = sorted(attached(door))[0]
    link = door.links.links[silent]
    link.silence.set()
    await bench.until(lambda: len(attached(door) - {silent}) == 2, limit_s=10)
    assert door.client.servers.find(silent).trouble == "the server answers no pings"


async def test_a_lost_server_ends_the_patience_with_others(bench):
    """One that was away for an hour is back: it is not left in peace while we have nobody."""
    await bench.server("s0")
    source = Source(bench, ["s0", "s1"])
    door = await bench.client("alice", sources=(source,))
    await anyio.sleep(3_600)
    assert attached(door) == {bench.key("s0")}
    tried = door.client.counters["attempts"]
    assert tried < 30  # of a server that never answered, beside one that holds
    await bench.server("s1")
    bench.exchange.stop(bench.key("s0"))
    await bench.until(lambda: attached(door) == {bench.key("s1")}, limit_s=10)


async def test_4834_one_dial_at_a_time_to_a_server(bench):
    """N parallel dials to one server (#4834)."""
    await bench.server("s0")
    door = await bench.client("alice", "s0", sources=(Source(bench, ["s0"]),))
    keeper = door.client.keeper
    for _ in range(50):
        keeper.look_again()
        await anyio.sleep(0.001)
    await bench.until(lambda: attached(door))
    assert door.client.counters["attempts"] == 1


async def test_4475_a_dead_server_is_dialled_ever_more_rarely(bench):
    """A dead destination was redialled in a loop: 92 % of a core (#4475)."""
    bench.exchange.down.add(bench.key("dead"))
    door = await bench.client("alice", "dead")
    await anyio.sleep(3_600)
    assert 60 <= door.client.counters["attempts"] <= 90
    await bench.server("dead")
    bench.exchange.down.clear()
    await bench.until(lambda: attached(door), limit_s=75)


async def test_a_server_that_refuses_is_not_hammered(bench):
    await bench.server("full", sessions_max=1)
    await bench.attach("carol", "full")
    door = await bench.client("alice", "full")
    await anyio.sleep(600)
    assert not attached(door) and door.client.counters["attempts"] <= 20
    assert "BUSY" in door.client.servers.find(bench.key("full")).trouble


async def test_3810_a_quiet_hour_is_pulses_only(bench):
    await bench.server("s0")
    await bench.server("s1")
    source = Source(bench, ["s0", "s1"])
    door = await bench.client("alice", sources=(source,))
    await bench.until(lambda: len(attached(door)) == 2)
    before = (door.client.counters["attempts"], bench.exchange.dials, source.asked)
    moved = bench.exchange.bytes_moved
    await anyio.sleep(3_600)
    assert (door.client.counters["attempts"], bench.exchange.dials, source.asked) == before
    pulses = 2 * 3_600 / PULSE_S
    assert bench.exchange.bytes_moved - moved <= 4 * (pulses + 2)


async def test_a_session_that_never_lasts_is_tried_ever_more_rarely(bench):
    """Two processes with one key replace each other's session for ever; slowly."""
    relay = await bench.server("s0")
    one = await bench.client("alice", "s0")
    await bench.until(lambda: attached(one))
    for _ in range(40):
        stream = await bench.attach("alice", "s0")
        await anyio.sleep(3)
        await stream.aclose()
    assert relay.counters["attached"] <= 55


async def test_remembered_servers_come_back_and_nonsense_is_no_trouble(bench):
    await bench.server("s0")
    door = await bench.client("alice", "s0")
    await bench.until(lambda: attached(door))
    bench.files.kept[SERVERS_FILE] = bench.files.kept[SERVERS_FILE]
    again = await bench.client("bob")
    await bench.until(lambda: attached(again))
    bench.files.kept[SERVERS_FILE] = b"\xc1nonsense"
    third = await bench.client("carol")
    await anyio.sleep(5)
    assert not attached(third)


@pytest.mark.parametrize("down", [0, 1, 2])
async def test_any_mixture_of_ways_to_know_a_server_will_do(bench, down):
    """M13: configuration, discovery, memory; one of them is enough."""
    await bench.server("s0")
    ways = [("s0",), ["s0"], True]
    ways[down] = None
    if ways[2]:
        first = await bench.client("dave", "s0")
        await bench.until(lambda: attached(first))
    source = Source(bench, ways[1] or ())
    source.is_down = ways[1] is None
    door = await bench.client("alice", *(ways[0] or ()), sources=(source,))
    await bench.until(lambda: attached(door))


async def test_what_a_key_says_of_its_servers_is_found_with_their_addresses(bench):
    server = bench.key("s0").hex()
    source = Source(bench, ["s0"], {"bob": (server, "nonsense", bench.key("unknown").hex())})
    door = await bench.client("alice", sources=(source,), sessions_min=0)
    (address,) = await door.find(bench.key("bob"))
    assert (address.kind, address.endpoint) == ("dmsg", f"{server}@10.0.0.9:1")
    assert await door.find(bench.key("nobody")) == ()
    source.is_down = True
    assert await door.find(bench.key("bob")) == ()


async def test_its_record_names_its_servers_and_changes_with_them(bench):
    await bench.server("s0")
    door = await bench.client("alice", "s0")
    await bench.until(lambda: attached(door))
    await anyio.sleep(2)
    mine = [f for f in bench.published.facts if f.salt == b"dmsg"]
    assert len(mine) == 1 and bench.key("s0").hex().encode() in mine[0].v
    bench.exchange.stop(bench.key("s0"))
    await anyio.sleep(5)
    mine = [f for f in bench.published.facts if f.salt == b"dmsg"]
    assert len(mine) == 2 and bench.key("s0").hex().encode() not in mine[1].v


async def test_its_own_source_knows_what_it_is_attached_to(bench):
    """M14: what the DHT may start from."""
    await bench.server("s0")
    door = await bench.client("alice", "s0")
    source = AttachedServers(door.client.keeper, bench.clock)
    while not door.client.keeper.is_server(bench.key("s0")):
        await anyio.sleep(0)
    (record,) = (await source.records(b"dmsg-server")).records  # waits for the first session
    assert record.body.pk == bench.key("s0").hex() and record.signer is None
    assert not record.body.dht_bootstrap
    assert (await source.find(b"dmsg-server", bench.key("s0"))).body == record.body
    assert await source.find(b"dmsg-server", bench.key("s1")) is None
    with pytest.raises(DiscoveryError):
        await source.records(b"tp")


async def test_its_own_source_waits_for_nobody_without_a_server(bench):
    door = await bench.client("alice")
    began = anyio.current_time()
    assert not (
        await AttachedServers(door.client.keeper, bench.clock).records(b"dmsg-server")
    ).records
    assert anyio.current_time() == began


async def test_t4475_a_server_that_crashed_is_tried_once_and_then_left_in_peace(bench):
    """Its record stands for hours, and it worked last: others are attached to beside and after."""
    for name in ("one", "two", "three"):
        await bench.server(name)
    source = Source(bench, ["one", "two", "three"])
    door = await bench.client("alice", sources=(source,))
    await bench.until(lambda: len(attached(door)) == 2)
    gone = next(iter(attached(door)))
    await anyio.sleep(120)
    bench.exchange.stop(gone)
    assert await bench.until(lambda: len(attached(door) - {gone}) == 2, limit_s=10) <= 10
    await anyio.sleep(7_200)
    assert door.links.ensured.count(gone) <= 20  # in two hours
    late = await bench.client("late", sources=(source,))
    assert await bench.until(lambda: len(attached(late)) == 2, limit_s=10) <= 10
    assert gone not in attached(late)


async def test_c40_a_crashed_server_that_was_remembered_as_the_best_delays_nothing(bench):
    for name in ("good", "better", "gone"):
        await bench.server(name)
    first = await bench.client("alice", "good", "better", "gone", sessions_max=3)
    await bench.until(lambda: len(attached(first)) == 3)
    assert bench.files.kept[SERVERS_FILE]
    bench.exchange.down.add(bench.key("gone"))
    again = await bench.client("bob", sessions_min=1)
    assert await bench.until(lambda: attached(again), limit_s=2) <= 2
    await anyio.sleep(3_600)
    assert attached(again) == {bench.key("better")} or attached(again) == {bench.key("good")}
    assert again.links.ensured.count(bench.key("gone")) <= 1


async def test_q5_a_full_disk_ends_no_session(bench, monkeypatch):
    """What worked is not remembered then; nothing else is lost by it."""
    for name in ("one", "two"):
        await bench.server(name)

    def full(name, data):
        raise StoreError("no space left on the device")

    monkeypatch.setattr(bench.files, "write", full)
    door = await bench.client("alice", "one", "two")
    await bench.until(lambda: len(attached(door)) == 2)
    bench.exchange.stop(bench.key("one"))
    await bench.until(lambda: len(attached(door)) == 1)
    bench.exchange.down.discard(bench.key("one"))
    await bench.until(lambda: len(attached(door)) == 2, limit_s=30)


async def test_c40_sources_that_were_away_for_an_hour_are_asked_again_within_30_s(bench):
    """Patience with sources ends while there is no session at all."""
    await bench.server("one")
    source = Source(bench, ["one"])
    source.is_down = True
    door = await bench.client("alice", sources=(source,))
    await anyio.sleep(3_600)
    assert not attached(door) and source.asked <= 240
    source.is_down = False
    assert await bench.until(lambda: attached(door), limit_s=30) <= 30


async def test_c40_a_server_that_was_away_for_a_minute_is_back_within_30_s(bench):
    """The only one that is known: down for 60 s after a session that was worth its dial."""
    await bench.server("one")
    door = await bench.client("alice", "one")
    await bench.until(lambda: attached(door))
    await anyio.sleep(120)
    bench.exchange.stop(bench.key("one"))
    await anyio.sleep(60)
    bench.exchange.down.discard(bench.key("one"))
    assert await bench.until(lambda: attached(door), limit_s=30) <= 30


async def test_a_server_that_is_only_relayed_to_us_is_dialled_directly(bench, monkeypatch):
    await bench.server("s0")
    links = type((await bench.client("bob")).client.keeper._transports)
    asked, ensure = [], links.ensure

    async def relayed_first(self, remote, label="ephemeral", *, look_up=True, kind=None):
        asked.append(kind)
        link = await ensure(self, remote, label, look_up=look_up, kind=kind)
        return link if kind == DIRECT else types.SimpleNamespace(type="dmsg")

    monkeypatch.setattr(links, "ensure", relayed_first)
    door = await bench.client("alice", "s0")
    await bench.until(lambda: len(attached(door)) == 1)
    assert asked[:2] == [None, DIRECT]
