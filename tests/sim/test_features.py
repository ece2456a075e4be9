"""Every feature between two nodes, whichever of them starts first (C55).

In the original, RPC over transports never worked for five weeks because its server started
before the transport manager. Each test here fails if its feature is unplugged.
"""

from __future__ import annotations

import anyio
import pytest

from skycore.contracts.rpc import Caller, Rpc
from skycore.errors import AccessDeniedError, RpcError, SkycoreError

pytestmark = pytest.mark.parametrize("first", ["alice", "bob"])


@pytest.fixture
async def pair(world, notes, first):
    """Alice, a full node that trusts bob; and bob, a visor that starts from alice."""
    (alice,) = world.prepare("fullnode")
    (bob,) = world.prepare("visor")
    alice.settings["access_whitelist"] = {"hypervisors": [bob.public.hex()]}
    for node in (alice, bob) if first == "alice" else (bob, alice):
        await world.start(node)
        await anyio.sleep(5)
    await world.until(lambda: notes.peers(alice) and notes.peers(bob), limit_s=60)
    return alice, bob


async def call(node, method, **params):
    """Call as a user of the node's own machine."""
    return await node.get(Rpc).call(Caller(), method, params)


async def tp_rpc(node, remote, method, **params):
    """Call a method of another node over a transport."""
    arguments = {"remote": remote.public.hex(), "method": method, "params": params}
    return await node.get(Rpc).call(Caller(), "visor.tp_rpc", arguments)


async def test_publish_read_and_delete_a_record(pair):
    alice, bob = pair
    put = await call(bob, "dht.put", salt="greeting", text="hello")
    assert put["stored"] >= 1
    found = await call(alice, "dht.get", subject=bob.public.hex(), salt="greeting")
    assert found["found"]
    await call(bob, "dht.delete", salt="greeting")
    found = await call(alice, "dht.get", subject=bob.public.hex(), salt="greeting", age_max_s=0)
    assert found["deleted"]
    assert not found["found"]


async def test_sync_brings_what_a_full_node_holds(pair):
    alice, bob = pair
    for number in range(20):
        await call(alice, "dht.put", salt=f"note {number}", text="from alice")
    report = await call(bob, "dht.sync")
    assert report["peer"] == alice.public.hex()
    assert report["complete"]
    assert report["received"] >= 20
    assert (await call(bob, "dht.status"))["last_sync"]["received"] == report["received"]


@pytest.mark.parametrize("method", ["Overview", "Health", "Summary"])
async def test_rpc_over_a_transport(pair, method):
    alice, bob = pair
    assert (await tp_rpc(bob, alice, method)).keys() == (await call(alice, method)).keys()


async def test_a_key_that_is_not_listed_is_told_so(pair):
    alice, bob = pair
    with pytest.raises(SkycoreError, match=r"authorised|whitelist") as caught:
        await tp_rpc(alice, bob, "Overview")
    assert isinstance(caught.value, RpcError | AccessDeniedError)
    await call(bob, "whitelist.add", key=alice.public.hex())
    assert (await tp_rpc(alice, bob, "Overview"))["public_key"] == bob.public.hex()
    await call(bob, "whitelist.remove", key=alice.public.hex())
    with pytest.raises(SkycoreError, match=r"authorised|whitelist"):
        await tp_rpc(alice, bob, "Overview")


async def test_info_says_what_the_dht_is(pair):
    alice, bob = pair
    for node, mode in ((alice, "full"), (bob, "regular")):
        summary = await call(node, "Summary")
        (dht,) = [part for part in summary["parts"] if part["name"] == "dht"]
        assert dht["fields"]["mode"] == mode
        assert dht["fields"]["peers"] == 1
        assert summary["health"]["health"] == "ok"


async def test_a_transport_made_by_hand_comes_back_after_a_restart(world, pair):
    alice, bob = pair
    await call(bob, "tp.add", remote=alice.public.hex(), address=f"{alice.address}:7777")
    assert [row["label"] for row in await call(bob, "tp.ls")] == ["user"]
    await world.restart(bob)
    await anyio.sleep(30)
    rows = await call(bob, "tp.ls")
    assert [(row["remote"], row["label"]) for row in rows] == [(alice.public.hex(), "user")]
