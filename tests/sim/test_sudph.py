"""Whole nodes behind NATs: transports over UDP where TCP gets nowhere."""

from __future__ import annotations

import anyio
import pytest

from skycore.contracts.dht import Dht
from skycore.contracts.transport import Transports
from skycore.errors import DialError
from skycore.model.addresses import Address, Contact
from skycore.testing import NatKind

SUDPH = {"node": {"enable": ["transport_sudph"]}, "transport_sudph": {"listen": "0.0.0.0:7777"}}


def transport(node, other, kind):
    found = [t for t in node.get(Transports).all() if t.remote == other.public and t.type == kind]
    return found[0] if found else None


@pytest.mark.parametrize("kind", NatKind)
async def test_a_node_behind_a_nat_keeps_a_udp_transport_for_an_hour(world, kind):
    await world.full_node()
    (public,) = await world.spawn("visor", settings=SUDPH)
    nat = world.network.nat(kind, "100.64.0.1", mapping_s=30)
    (hidden,) = await world.spawn("visor", settings=SUDPH, nat=nat)
    await world.until(lambda: hidden.get(Dht).peer_count, limit_s=60)
    addresses = hidden.get(Transports).addresses
    addresses.forget(public.public)
    sudph = (Address("sudph", f"{public.address}:7777"),)
    addresses.learn(Contact(public.public, sudph), pinned=True)
    made = await hidden.get(Transports).ensure(public.public, "user")
    assert made.type == "sudph"
    await anyio.sleep(3_600)
    assert not made.closed and made.rtt_s
    assert transport(public, hidden, "sudph").remote == hidden.public


async def test_a_node_behind_a_nat_cannot_be_dialled_over_tcp(world):
    await world.full_node()
    (public,) = await world.spawn("visor")
    (hidden,) = await world.spawn("visor", nat=NatKind.FULL_CONE)
    await world.until(lambda: hidden.get(Dht).peer_count, limit_s=60)
    for host in (hidden.address, hidden.nat.host):
        with pytest.raises(DialError):
            network = world.network.host(public.address)
            await network.connect_tcp(host, 7777)
