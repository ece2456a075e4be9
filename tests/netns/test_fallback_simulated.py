"""What is left where no hole can be punched: a relay, and a better way where one comes up."""

from __future__ import annotations

import anyio
import pytest

from relay_dmsg.client.service import DmsgClient
from skycore.contracts.transport import Transports
from skycore.testing import NatKind

PAIRS = [
    (NatKind.SYMMETRIC, NatKind.SYMMETRIC),
    (NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC),
    (NatKind.FULL_CONE, NatKind.PORT_RESTRICTED),
]


@pytest.mark.parametrize(("here", "there"), PAIRS)
async def test_u10_hard_pairs_fall_back_to_a_relay_within_10_s(country, link, here, there):
    relay, *_ = country.world.prepare(
        "visor", 1, {"node": {"enable": ["dmsg_server"]}}, seeds=[country.resolver]
    )
    await country.world.start(relay)
    both = [
        await country.visor(kind, dmsg_client={"servers": [relay.contact]}, dmsg=True)
        for kind in (here, there)
    ]
    await country.bound(*both)
    await country.world.until(
        lambda: all(node.get(DmsgClient).keeper.sessions for node in both), limit_s=15
    )
    began = anyio.current_time()
    up, _ = await link(*both)
    assert anyio.current_time() - began <= 10
    is_hard = NatKind.SYMMETRIC in (here, there)
    assert up.type == ("dmsg" if is_hard else "sudph")
    assert both[1].get(Transports).find(both[0].public) is not None
