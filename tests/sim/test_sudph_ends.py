"""Transports over UDP whose other end is gone, or takes nothing: noticed in bounded time."""

from __future__ import annotations

import anyio
import pytest

from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.transport import Transports
from skycore.errors import SkycoreError, TransportClosedError
from skycore.guards.transports import TransportsSettings
from skycore.model.addresses import Address, Contact

SUDPH = {"node": {"disable": ["transport_stcpr"]}, "transport_sudph": {"listen": "0.0.0.0:7778"}}
PING_S = TransportsSettings().ping_interval_s


@pytest.fixture
async def pair(world):
    """Two nodes, and what each has of a transport over UDP between them."""
    one, other = await world.spawn("visor", n=2, settings=SUDPH)
    transports = one.get(Transports)
    there = (Address("sudph", f"{other.address}:7778"),)
    transports.addresses.learn(Contact(other.public, there), pinned=True)
    near = await transports.ensure(other.public, "user")
    assert near.type == "sudph"
    await anyio.sleep(1)
    (far,) = (t for t in other.get(Transports).all() if (t.remote, t.type) == (one.public, "sudph"))
    return one, other, near, far


async def until_closed(link, limit_s):
    with anyio.fail_after(limit_s):
        while not link.closed:
            await anyio.sleep(0.1)


async def test_u17_a_peer_that_vanishes_is_noticed_within_three_pings(world, pair):
    """Nobody is given the link any more; it ends when no outage would have lasted so long (U7)."""
    one, other, near, _ = pair
    await world.kill(other)
    with anyio.fail_after(3 * PING_S):
        await near.wait_silent()
    assert one.get(Transports).find(other.public) is None and not near.closed
    await until_closed(near, 45)
    assert near.closed == "closed by the peer: nothing came for 45 s"


@pytest.mark.parametrize("gone_s", [0, 12, 25, 50])
async def test_t4936_a_person_hears_within_10_s_that_the_peer_is_gone(world, pair, gone_s):
    """Whenever he asks: before silence is noticed, while it lasts, and once the link has ended."""
    one, other, _, _ = pair
    asked = {"remote": other.public.hex(), "method": "Health"}
    rpc = one.get(Rpc)
    await world.kill(other)
    await anyio.sleep(gone_s)
    with anyio.fail_after(10.5), pytest.raises(SkycoreError, match=r"gave no sign|cannot reach"):
        await rpc.call(Caller(), "visor.tp_rpc", asked)


class Kept:
    """What came in packets of one type."""

    def __init__(self):
        self.got = bytearray()

    def packet(self, transport, payload):
        self.got += payload

    def closed(self, transport):
        pass


@pytest.mark.parametrize("outage_s", [10, 29])
@pytest.mark.parametrize("idle_s", [0, 9])
async def test_u7_an_outage_below_30_s_keeps_the_link_and_every_byte(world, pair, idle_s, outage_s):
    one, other, near, far = pair
    ends = {near: Kept(), far: Kept()}
    said = bytes(range(250)) * 40
    with (
        one.get(Transports).claim(200, ends[near]),
        other.get(Transports).claim(200, ends[far]),
    ):
        await anyio.sleep(idle_s)
        world.network.isolate(other.address)
        for n in range(20):
            for end in ends:
                end.send(200, said[n * 500 :][:500])
            await anyio.sleep(outage_s / 20)
        world.heal()
        with anyio.fail_after(3):
            while not all(kept.got == said for kept in ends.values()):
                await anyio.sleep(0.1)
        assert one.get(Transports).find(other.public) is near
        await anyio.sleep(60)
        assert not near.closed and not far.closed and not near.is_silent


async def test_u7_an_outage_over_a_minute_ends_the_link_by_name(world, pair):
    one, other, near, far = pair
    world.network.isolate(other.address)
    with pytest.raises(TransportClosedError, match="nothing came for 45 s"):
        while True:
            near.send(200, b"?")
            await anyio.sleep(1)
    await until_closed(far, 60)
    world.heal()
    await anyio.sleep(5)
    assert (await one.get(Transports).ensure(other.public, "user")) is not near


async def test_a_peer_that_was_restarted_is_dialled_though_its_old_link_is_kept(world, pair):
    """It never said goodbye, and nothing of it knows the old link."""
    one, other, near, _ = pair
    await world.kill(other)
    await near.wait_silent()
    await world.start(other)
    again = await one.get(Transports).ensure(other.public, "user")
    assert again is not near and near.closed == "the peer was restarted"


async def test_u13_a_peer_that_takes_nothing_for_ever_is_stalled_after_a_minute(world, pair):
    """It goes on speaking, so pings alone would keep the link."""
    _, _, near, far = pair
    stuck = anyio.Event()
    far._channel._stream.receive = lambda size=0: stuck.wait()
    far.tick = far._ping
    began = anyio.current_time()
    with pytest.raises(TransportClosedError):
        while anyio.current_time() - began < 200:
            near.send(200, bytes(60_000))
            with anyio.move_on_after(5):
                await near.drain()
    took = anyio.current_time() - began
    assert near.closed.startswith("peer does not read")
    assert took < 60 + 2 * PING_S
    stuck.set()
