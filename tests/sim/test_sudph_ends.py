"""Transports over UDP whose other end is gone, or takes nothing: noticed in bounded time."""

from __future__ import annotations

import anyio
import pytest

from skycore.contracts.transport import Transports
from skycore.errors import TransportClosedError
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
    _, other, near, _ = pair
    await world.kill(other)
    await until_closed(near, 3 * PING_S + PING_S / 3)
    assert "ping" in near.closed or "closed" in near.closed


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
