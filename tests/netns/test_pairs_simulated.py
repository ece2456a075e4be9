"""U10: the 16 pairs of NATs: whole visors, a whole resolver, virtual time."""

from __future__ import annotations

import anyio
import pytest

from skycore.contracts.transport import Transports
from skycore.errors import DialError
from skycore.model.sudph import NAT_WORDS
from skycore.testing import NatKind

HARD = {
    (NatKind.SYMMETRIC, NatKind.SYMMETRIC),
    (NatKind.SYMMETRIC, NatKind.PORT_RESTRICTED),
    (NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC),
}
FOUND_AS = {
    NatKind.FULL_CONE: "cone",
    NatKind.ADDRESS_RESTRICTED: "cone",
    NatKind.PORT_RESTRICTED: "port-restricted",
    NatKind.SYMMETRIC: "symmetric",
}


@pytest.mark.parametrize("there", NatKind)
@pytest.mark.parametrize("here", NatKind)
async def test_u10_open_pairs_meet_every_time_and_hard_pairs_fail_cleanly(
    country, link, here, there
):
    alice, bob = await country.visor(here), await country.visor(there)
    await country.bound(alice, bob)
    kinds = [country.core.sessions.of_key(node.public).nat for node in (alice, bob)]
    assert [NAT_WORDS[kind] for kind in kinds] == [FOUND_AS[here], FOUND_AS[there]]
    began = anyio.current_time()
    if (here, there) in HARD:
        with pytest.raises(DialError, match=r"punching failed: NAT here .*, there "):
            await link(alice, bob)
        assert anyio.current_time() - began <= 10
        assert alice.get(Transports).find(bob.public) is None
        return
    up, took_s = await link(alice, bob)
    assert up.type == "sudph" and took_s <= 2
    assert bob.get(Transports).find(alice.public).type == "sudph"
