"""Transports by hand: added, listed, brought back after losses and restarts, removed for good."""

from __future__ import annotations

from types import SimpleNamespace

import anyio
import pytest

from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.transport import Transports
from skycore.errors import SkycoreError
from visor_transports.commands import _table


async def call(node, method, **params):
    return await node.get(Rpc).call(Caller(), method, params)


def linked(node, other):
    link = node.get(Transports).find(other.public)
    return link is not None and link.label == "user"


@pytest.fixture
async def two(world):
    """Two visors that know nothing of each other, and where the second listens."""
    alice, bob = await world.spawn("visor", n=2, settings={"dht_kademlia": {"bootstrap": []}})
    where = bob.contact.partition("@")[2]
    return alice, bob, where


async def test_added_listed_and_removed(world, two):
    alice, bob, where = two
    row = await call(alice, "tp.add", remote=bob.public.hex(), address=where)
    assert (row["remote"], row["label"], row["type"]) == (bob.public.hex(), "user", "stcpr")
    assert [r["id"] for r in await call(alice, "tp.ls")] == [row["id"]]
    removed = await call(alice, "tp.rm", transport=row["id"])
    assert removed == {"closed": [row["id"]], "forgotten": True}
    await anyio.sleep(60)
    assert await call(alice, "tp.ls") == []
    with pytest.raises(SkycoreError, match="no transport"):
        await call(alice, "tp.rm", transport=row["id"])


async def test_a_lost_one_is_brought_back(world, two):
    alice, bob, where = two
    await call(alice, "tp.add", remote=bob.public.hex(), address=where)
    await world.kill(bob)
    await world.until(lambda: not linked(alice, bob), limit_s=120)
    await world.start(bob)
    await world.until(lambda: linked(alice, bob), limit_s=120)


async def test_it_survives_a_restart(world, two):
    alice, bob, where = two
    await call(alice, "tp.add", remote=bob.public.hex(), address=where)
    await world.restart(alice)
    await world.until(lambda: linked(alice, bob), limit_s=120)
    assert (await call(alice, "tp.rm", transport=bob.public.hex()))["forgotten"]
    await world.restart(alice)
    await anyio.sleep(60)
    assert not linked(alice, bob)


@pytest.mark.parametrize("held", [b"junk", b"\xff", b'{"zz": []}', b'{"00": []}'])
async def test_a_damaged_list_is_ignored_and_the_node_starts(world, two, held):
    alice, _, _ = two
    await world.stop(alice)
    alice.disk["transports.json"] = held
    await world.start(alice)
    await anyio.sleep(60)
    assert await call(alice, "tp.ls") == []


@pytest.mark.parametrize(
    "params",
    [
        {"remote": "zz"},
        {"remote": "00" * 32},
        {"remote": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"},
        {
            "remote": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "address": "nowhere",
        },
    ],
)
async def test_what_cannot_be_dialled_is_refused_and_not_kept(world, two, params):
    alice, _, _ = two
    with pytest.raises(SkycoreError):
        await call(alice, "tp.add", **params)
    await world.restart(alice)
    assert await call(alice, "tp.ls") == []


async def test_the_list_is_bounded(world):
    settings = {"visor_transports": {"kept_max": 1}, "dht_kademlia": {"bootstrap": []}}
    (alice,) = await world.spawn("visor", n=1, settings=settings)
    bob, carol = await world.spawn("visor", n=2, settings={"dht_kademlia": {"bootstrap": []}})
    await call(alice, "tp.add", remote=bob.public.hex(), address=bob.contact.partition("@")[2])
    with pytest.raises(SkycoreError, match="kept already"):
        await call(alice, "tp.add", remote=carol.public.hex(),
                   address=carol.contact.partition("@")[2])  # fmt: skip


async def test_what_was_refused_is_counted_by_name(world, two):
    alice, bob, where = two
    stranger = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    with pytest.raises(SkycoreError):
        await call(alice, "tp.add", remote=stranger, address=where)
    await call(alice, "tp.add", remote=bob.public.hex(), address=where)
    told = await call(bob, "Summary")
    fields = next(p["fields"] for p in told["parts"] if p["name"] == "transports")
    assert fields["live"] == 1
    assert fields["counters"] == {"HandshakeAuthError": 1, "accepted": 2, "handshakes_failed": 1}


@pytest.fixture
async def both(world):
    """Two visors with both direct types, and where the second takes UDP."""
    settings = {"dht_kademlia": {"bootstrap": []}, "transport_sudph": {"listen": "0.0.0.0:7778"}}
    alice, bob = await world.spawn("visor", n=2, settings=settings)
    return alice, bob, f"{bob.address}:7778"


async def types_of(node):
    return sorted(row["type"] for row in await call(node, "tp.ls"))


async def test_a_type_that_is_asked_for_is_made_beside_another_and_kept(world, both):
    alice, bob, udp = both
    remote = bob.public.hex()
    await call(alice, "tp.add", remote=remote, address=bob.contact.partition("@")[2])
    assert await types_of(alice) == ["stcpr"]
    row = await call(alice, "tp.add", remote=remote, address=udp, type="sudph")
    assert row["type"] == "sudph" and await types_of(alice) == ["stcpr", "sudph"]
    again = await call(alice, "tp.add", remote=remote, type="sudph")
    assert again["id"] == row["id"]
    await world.restart(alice)
    await anyio.sleep(30)
    assert "sudph" in await types_of(alice)
    assert (await call(alice, "tp.rm", transport=remote))["forgotten"]


async def test_a_type_that_fails_is_not_replaced_by_another(world):
    alone = {"dht_kademlia": {"bootstrap": []}}
    (alice,) = await world.spawn("visor", settings=alone)
    (bob,) = await world.spawn(
        "visor", settings={**alone, "node": {"disable": ["transport_sudph"]}}
    )
    remote = bob.public.hex()
    await call(alice, "tp.add", remote=remote, address=bob.contact.partition("@")[2])
    with pytest.raises(SkycoreError, match="no sudph address is known") as caught:
        await call(alice, "tp.add", remote=remote, type="sudph")
    assert "--type sudph" in caught.value.hint
    assert await types_of(alice) == ["stcpr"]


async def test_a_type_that_does_not_exist_is_refused_with_those_that_do(both):
    alice, bob, udp = both
    with pytest.raises(SkycoreError, match="no transport type 'tcp'") as caught:
        await call(alice, "tp.add", remote=bob.public.hex(), address=udp, type="tcp")
    assert caught.value.hint.startswith("it has: stcpr, sudph")
    assert alice.get(Transports).addresses.find(bob.public) == ()


async def test_a_list_of_an_older_release_is_read(world, two):
    alice, bob, where = two
    await world.stop(alice)
    alice.disk["transports.json"] = f'{{"{bob.public.hex()}": [["stcpr", "{where}"]]}}'.encode()
    await world.start(alice)
    await world.until(lambda: linked(alice, bob), limit_s=60)


RELAY = {"node": {"enable": ["dmsg_server"]}, "dht_kademlia": {"bootstrap": []}}


@pytest.fixture
async def relayed(world):
    """Two visors whose only transport leads through a relay, and where the second listens."""
    (relay,) = await world.spawn("visor", settings=RELAY)
    settings = {
        "node": {"enable": ["dmsg_client"]},
        "dmsg_client": {"servers": [relay.contact]},
        "dht_kademlia": {"bootstrap": []},
    }
    pair = await world.spawn("visor", n=2, settings=settings)
    alice, bob = pair
    await world.until(
        lambda: all(node.get(Transports).find(relay.public) for node in pair), limit_s=60
    )
    await anyio.sleep(2)  # their sessions stand
    transports = alice.get(Transports)
    link = await transports.ensure(bob.public)
    assert link.type == "dmsg"
    return alice, bob, bob.contact.partition("@")[2]


def best(node, other):
    return node.get(Transports).find(other.public).type


async def test_a_direct_one_is_made_where_only_a_relayed_one_stands(relayed):
    alice, bob, where = relayed
    row = await call(alice, "tp.add", remote=bob.public.hex(), address=where)
    assert row["type"] == "stcpr" == best(alice, bob)


async def test_a_relayed_one_is_kept_until_a_direct_one_comes_beside_it(world, relayed):
    alice, bob, where = relayed
    for ends in ((alice.address, bob.address), (bob.address, alice.address)):
        world.network.cut(*ends)
    row = await call(alice, "tp.add", remote=bob.public.hex(), address=where)
    assert (row["type"], row["label"]) == ("dmsg", "user")
    await anyio.sleep(120)
    assert await call(alice, "tp.ls") and best(alice, bob) == "dmsg"
    world.network.heal()
    await world.until(lambda: best(alice, bob) == "stcpr", limit_s=400, what="a direct one")


async def test_tries_for_a_direct_one_become_rare(world, relayed):
    alice, bob, where = relayed
    for ends in ((alice.address, bob.address), (bob.address, alice.address)):
        world.network.cut(*ends)
    await call(alice, "tp.add", remote=bob.public.hex(), address=where)
    counters = alice.get(Transports).counters
    await anyio.sleep(1800)
    before = counters["dials_failed"]
    await anyio.sleep(1800)
    assert 0 < counters["dials_failed"] - before <= 8


async def test_2942_a_silent_one_is_called_so(world, both):
    alice, bob, udp = both
    await call(alice, "tp.add", remote=bob.public.hex(), address=udp, type="sudph")
    (row,) = await call(alice, "tp.ls")
    assert not row["silent"] and "silent" not in shown(row)
    world.partition([alice], [bob])
    await anyio.sleep(25)
    rows = [row for row in await call(alice, "tp.ls") if row["type"] == "sudph"]
    assert [row["silent"] for row in rows] == [True] and "silent" in shown(rows[0])
    world.heal()
    await anyio.sleep(15)
    assert not any(row["silent"] for row in await call(alice, "tp.ls"))


def shown(row):
    """Return the cells of a row as a person sees them."""
    console = SimpleNamespace(table=lambda head, rows: rows[0])
    return _table(console, [row])
