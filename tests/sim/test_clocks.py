"""Wrong clocks, clocks that jump, and two nodes of one key: nobody is locked out of a record."""

from __future__ import annotations

import itertools

import anyio
import pytest

from skycore.contracts.dht import Dht
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.transport import Transports

SALT = b"note"
HOUR_S = 3_600
DAY_S = 86_400
YEARS_57_S = 1_800_000_000
"""From the world's first moment back to 1970."""
MINUTE_S = 60.0


class Writer:
    """A node that publishes one record again and again, and what became of it."""

    def __init__(self, node):
        self.node = node
        self.newest = None
        self.refusals = []
        """Codes by which other nodes refused, publish by publish."""

    async def publish(self, text):
        """Publish; tell whether every node that answered took it."""
        value = None if text is None else text.encode()
        published = await self.node.get(Publisher).publish(Fact(SALT, value))
        self.newest = value
        codes = [r.code for report in published.reports for r in report.replicas]
        self.refusals.append([code for code in codes if code > 2])
        return bool(codes) and not self.refusals[-1]


async def read(node, writer):
    """Return what a node finds over the network: the value, None for a tombstone, "" for a miss."""
    found = await node.get(Dht).get(writer.public, SALT, age_max_s=0)
    if found is None:
        return ""
    return None if found.item.kind == 1 else found.item.v


async def readable(world, writer):
    """Tell which nodes do not read a writer's newest."""
    return [n.name for n in world.nodes if await read(n, writer.node) != writer.newest]


async def clock_of(node):
    """Return what `visor info` shows of a node's clock."""
    summary = await node.get(Rpc).call(Caller(), "Summary", {})
    (part,) = [part for part in summary["parts"] if part["name"] == "clock"]
    return part


async def meet(world, notes, n=4):
    """Start a full node and some visors, and wait until they know each other."""
    await world.full_node()
    nodes = await world.spawn("visor", n=n)
    await world.until(lambda: all(notes.peers(node) >= n for node in nodes), limit_s=180)
    return nodes


async def test_c13_a_device_that_boots_in_1970_publishes_and_is_read(world, notes):
    await meet(world, notes)
    (old,) = world.prepare("visor")
    old.clock.offset_s = -YEARS_57_S
    await world.start(old)
    await world.until(lambda: notes.peers(old) >= 3, limit_s=120)
    writer = Writer(old)
    assert await writer.publish("hello from 1970")
    assert not await readable(world, writer)
    part = await clock_of(old)
    assert part["health"] == "degraded"
    assert "57 years behind the median of" in part["summary"]
    assert part["fields"]["corrected"]
    assert part["fields"]["offset_s"] == pytest.approx(YEARS_57_S, abs=10)
    assert part["fields"]["peers_asked"] >= 3
    await anyio.sleep(2 * HOUR_S)  # the record ended, as it would anywhere
    assert await read(world.nodes[0], old) == ""
    for node in world.nodes[:-1]:
        assert (await clock_of(node))["health"] == "ok"


async def test_c13_what_others_wrote_is_read_in_1970(world, notes):
    nodes = await meet(world, notes)
    writer = Writer(nodes[0])
    assert await writer.publish("news")
    nodes[1].clock.offset_s = -YEARS_57_S
    nodes[2].clock.offset_s = YEARS_57_S
    assert not await readable(world, writer)


async def test_c3_a_clock_an_hour_ahead_does_not_lock_the_record(world, notes):
    """Alone with a clock that is ahead it stamps what nobody will take; then it meets others."""
    await meet(world, notes)
    (fast,) = world.prepare("visor", seeds=())
    fast.clock.offset_s = HOUR_S
    await world.start(fast)
    writer = Writer(fast)
    for n in range(3):
        await writer.publish(f"from the future {n}")
    await world.stop(fast)
    fast.clock.offset_s = 0  # set right again
    fast.settings["dht_kademlia"]["bootstrap"] = [world.nodes[0].contact]
    await world.start(fast)
    await world.until(lambda: notes.peers(fast) >= 3, limit_s=120)
    assert await writer.publish("now")
    assert not await readable(world, writer)


async def test_c3_a_clock_an_hour_ahead_is_corrected_before_it_is_set_right(world, notes):
    nodes = await meet(world, notes)
    writer = Writer(nodes[0])
    for n, off_s in enumerate((HOUR_S, HOUR_S, 0, -HOUR_S, 0)):
        nodes[0].clock.offset_s = off_s
        assert await writer.publish(f"version {n}")
        assert not await readable(world, writer)
        await anyio.sleep(MINUTE_S)


async def test_c13_a_clock_that_jumps_by_a_day_and_back_while_publishing_every_minute(world, notes):
    nodes = await meet(world, notes)
    writer = Writer(nodes[0])
    jumps = itertools.cycle((0, DAY_S, DAY_S, 0, -DAY_S, 200, -200, HOUR_S))
    for n in range(24):
        nodes[0].clock.offset_s = next(jumps)
        await writer.publish(f"minute {n}")
        assert not await readable(world, writer), writer.refusals
        await anyio.sleep(MINUTE_S)
    assert not any(writer.refusals)


async def test_c13_leases_and_tombstones_outlast_a_jumping_clock(world, notes):
    """What does not change is kept alive by leases alone; what was deleted stays deleted.

    The two go opposite ways: of three peers, two that agree on a wrong time would be believed.
    """
    nodes = await meet(world, notes)
    keeper, deleter = Writer(nodes[0]), Writer(nodes[1])
    await keeper.publish("the same all day")
    await deleter.publish("soon gone")
    await deleter.publish(None)
    for off_s in (DAY_S, -DAY_S, 9 * DAY_S):
        nodes[0].clock.offset_s, nodes[1].clock.offset_s = off_s, -off_s
        for _ in range(3):
            await anyio.sleep(20 * MINUTE_S)
            await keeper.publish("the same all day")
        assert not await readable(world, keeper)
        assert not await readable(world, deleter)
    assert not any(keeper.refusals)


@pytest.mark.parametrize("has_disk", [True, False])
@pytest.mark.parametrize("set_back_s", [0, HOUR_S])
async def test_l13_c13_after_a_restart_every_node_takes_the_first_publish(
    world, notes, has_disk, set_back_s
):
    nodes = await meet(world, notes)
    writer = Writer(nodes[0])
    for n in range(3):
        assert await writer.publish(f"before {n}")
    await world.kill(nodes[0])
    if not has_disk:
        nodes[0].disk.clear()
    nodes[0].clock.offset_s = -set_back_s
    await world.start(nodes[0])
    await world.until(lambda: notes.peers(nodes[0]) >= 3, limit_s=120)
    assert await writer.publish("after")
    assert not await readable(world, writer)


async def test_c14_no_self_write_is_refused_in_an_hour_of_jumps(world, notes):
    """Every node publishes every minute, two of them with clocks that jump and drift."""
    nodes = await meet(world, notes)
    writers = [Writer(node) for node in nodes]
    nodes[1].clock.drift_ppm = 2_000
    for minute in range(60):
        nodes[0].clock.offset_s = (minute * 7_919) % (2 * DAY_S) - DAY_S
        nodes[1].clock.offset_s = HOUR_S if minute % 10 == 5 else 0
        for writer in writers:
            assert await writer.publish(f"minute {minute}"), (minute, writer.refusals[-1])
        await anyio.sleep(MINUTE_S)
    for writer in writers:
        assert not await readable(world, writer)


async def test_c13_one_wrong_clock_moves_nobody_else(world, notes):
    nodes = await meet(world, notes, n=5)
    nodes[0].clock.offset_s = DAY_S
    await world.restart(nodes[0])
    await world.until(lambda: all(notes.peers(n) >= 5 for n in nodes), limit_s=180)
    for node in nodes:
        part = await clock_of(node)
        assert part["fields"]["corrected"] == (node is nodes[0]), node


async def test_a_hello_says_the_machines_own_time_corrected_or_not(world, notes):
    """Each votes with its own clock: who was led astray does not lead others."""
    nodes = await meet(world, notes)
    nodes[0].clock.offset_s = DAY_S
    (late,) = await world.spawn("visor")
    await world.until(lambda: late.get(Transports).find(nodes[0].public), limit_s=120)
    assert (await clock_of(nodes[0]))["fields"]["corrected"]
    link = late.get(Transports).find(nodes[0].public)
    ahead_ns = link.remote_hello.wall_ns - late.clock.wall_ns()
    assert abs(ahead_ns - DAY_S * 10**9) < 600 * 10**9


async def test_a_network_that_is_wrong_as_a_whole_moves_a_clock_that_is_right(world, notes):
    """No node can tell who is right: it goes with those that it has chosen, and says so."""
    seeds = world.prepare("visor", n=4)
    for node in seeds:
        node.clock.offset_s = -DAY_S
        await world.start(node)
    await world.until(lambda: all(notes.peers(node) >= 3 for node in seeds), limit_s=180)
    (right,) = await world.spawn("visor")
    await world.until(lambda: notes.peers(right) >= 4, limit_s=120)
    writer = Writer(right)
    assert await writer.publish("yesterday, then")
    assert not await readable(world, writer)
    part = await clock_of(right)
    assert part["health"] == "degraded"
    assert "24 hours ahead of the median" in part["summary"]


async def test_c14_two_nodes_of_one_key_write_in_turns(world, notes):
    """A key copied to a second machine whose clock is 4 min behind: beaten once, never for long."""
    nodes = await meet(world, notes, n=3)
    (twin,) = world.prepare("visor")
    twin.secret, twin.public = nodes[0].secret, nodes[0].public
    twin.clock.offset_s = -240
    await world.start(twin)
    await world.until(lambda: notes.peers(twin) >= 3, limit_s=180)
    ours, theirs = Writer(nodes[0]), Writer(twin)
    for n in range(10):
        for writer in (ours, theirs):
            await writer.publish(f"{writer.node.address} {n}")
            newest = [await read(node, nodes[0]) for node in nodes[1:]]
            assert set(newest) == {writer.newest}, (n, writer.refusals)
        await anyio.sleep(MINUTE_S)
