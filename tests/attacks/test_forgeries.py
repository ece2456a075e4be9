"""Ten thousand items that somebody else should have signed: none is ever visible, none is kept.

Also who is who: the sender of an item, and the caller of a method, are the transport's key.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator

import anyio
import msgspec
import pytest
from attackers import (
    DHT,
    NETWORK,
    WAIT_S,
    Stranger,
    Victim,
    codec,
    dice_of,
    program,
    victim_process,
    watched,
)

from dht_kademlia.core.messages import Batch, PutValue
from skycore.contracts.streams import Streams
from skycore.errors import HandshakeError
from skycore.frames import FrameReader
from skycore.model.items import Delegation, Kind, MutableItem, item_signed_bytes
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.model.numbers import DhtMethod
from skycore.runtime.clock import RealClock
from skycore.testing.fakes import TEST_NETWORK, identity

pytestmark = pytest.mark.processes
MANY = 10_000
PAGE = 500


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    assert NETWORK
    with victim_process(tmp_path_factory.mktemp("forgeries")) as node:
        yield node


def signed(author, network=TEST_NETWORK, **fields) -> MutableItem:
    clock = RealClock()
    item = MutableItem(
        author.public,
        fields.pop("subject", bytes(author.public)),
        fields.pop("salt", b"salt"),
        fields.pop("seq", clock.wall_ns()),
        int(Kind.VALUE),
        clock.wall_s() + 1_000,
        b"value",
        **fields,
    )
    return msgspec.structs.replace(item, sig=author.sign(item_signed_bytes(network, item)))


def forged(number: int, dice: random.Random) -> MutableItem:
    """Return an item that nobody may store."""
    mallory, alice = identity("mallory"), identity("alice")
    salt = f"{number}".encode()
    good = signed(alice, salt=salt)
    kind = number % 8
    change = msgspec.structs.replace
    if kind == 0:
        return change(good, sig=dice.randbytes(64))
    if kind == 1:
        return change(good, v=b"another value")
    if kind == 2:  # transplanted to another place
        return change(good, salt=b"x" + salt)
    if kind == 3:  # transplanted to another subject
        return change(good, subject=bytes(identity(f"victim {number}").public))
    if kind == 4:  # signed by mallory, about alice
        return signed(mallory, subject=bytes(alice.public), salt=salt)
    if kind == 5:  # valid on another network
        other = NetworkConstants(ED25519, "elsewhere")
        return signed(identity("alice", other), other, salt=salt)
    if kind == 6:  # too far ahead
        return signed(alice, salt=salt, seq=RealClock().wall_ns() + 3_600 * 10**9)
    until = RealClock().wall_s() + 1_000
    alices = bytes(alice.public)
    delegation = Delegation(alices, mallory.public, salt, until, dice.randbytes(64))
    return signed(mallory, subject=alices, salt=salt, delegation=delegation)


async def put(node, victim: Victim, items: list[MutableItem]) -> Counter[int]:
    """Push items as a peer of the DHT does; return how often each code came back."""
    stream = await node.get(Streams).dial(victim.public, DHT)
    try:
        with anyio.fail_after(WAIT_S):
            puts = Batch(tuple(PutValue(item) for item in items))
            await stream.send(codec.encode(DhtMethod.PUT_BATCH, puts))
            body = await FrameReader(stream, 2**20).read()
        outcomes = codec.decode_reply(DhtMethod.PUT_BATCH, body).outcomes
        return Counter(outcome.code for outcome in outcomes)
    finally:
        await stream.aclose()


async def test_c1_c2_none_of_ten_thousand_forged_items_is_visible(
    victim: Victim, request: pytest.FixtureRequest
) -> None:
    dice, codes = dice_of(request), Counter()
    async with watched(victim), program(victim) as node:
        for start in range(0, MANY, PAGE):
            codes += await put(node, victim, [forged(n, dice) for n in range(start, start + PAGE)])
    print(dict(codes))
    assert sum(codes.values()) == MANY
    assert all(code >= 200 for code in codes), codes
    assert codes[206] >= MANY // 2 and codes[303] == MANY // 8 and codes[401] >= MANY // 4
    held = victim.ask("dht.status")["items"]
    own = {"fullnode", "addr", "dmsg-server"}  # its advert, its address, and that it is a relay
    assert set(held) <= own, held
    assert all(count == 1 for count in held.values()), held
    by = {row["subject"] for row in victim.ask("dht.list", limit=100)["items"]}
    assert by <= {victim.public.hex()}, by


async def test_c4_the_sender_is_who_the_transport_says(victim: Victim) -> None:
    """An honest item may travel through anybody; via whom it came is no claim of the sender."""
    alice = identity("alice")
    async with program(victim, "courier") as courier:
        codes = await put(courier, victim, [signed(alice, salt=b"by courier")])
    assert set(codes) == {0}
    row = next(r for r in victim.ask("dht.list")["items"] if r["salt"] == "by courier")
    assert row["subject"] == alice.public.hex()
    assert row["via"] == identity("courier").public.hex()


async def test_c13_an_older_seq_is_refused_by_name_and_changes_nothing(victim: Victim) -> None:
    alice, now = identity("alice"), RealClock().wall_ns()
    async with program(victim) as node:
        assert set(await put(node, victim, [signed(alice, salt=b"order", seq=now)])) == {0}
        assert set(await put(node, victim, [signed(alice, salt=b"order", seq=now - 1)])) == {302}
    row = next(r for r in victim.ask("dht.list")["items"] if r["salt"] == "order")
    assert row["seq"] == str(now)


async def test_n13_wrong_keys_and_networks_are_refused_on_both_sides(victim: Victim) -> None:
    before = victim.counters().get("HandshakeAuthError", 0)
    elsewhere = NetworkConstants(ED25519, "elsewhere")
    async with watched(victim):
        async with Stranger("foreigner", elsewhere).armed() as foreigner:
            with pytest.raises(HandshakeError, match="another network"):
                await foreigner.connect(victim)
        async with Stranger("lost").armed() as lost:
            right, victim.public = victim.public, identity("somebody else").public
            try:
                with pytest.raises(HandshakeError, match="does not hold the key"):
                    await lost.connect(victim)
            finally:
                victim.public = right
    assert victim.counters()["HandshakeAuthError"] == before + 2


async def test_n11_the_victims_own_key_is_no_peer(victim: Victim) -> None:
    """Whoever stole the key, or a node that dials itself, is refused by name."""
    seed = bytes.fromhex((victim.node.data / "secret.key").read_text())
    twin = Stranger("twin")
    twin.identity = type(twin.identity)(TEST_NETWORK, ED25519.secret(seed), bytes(16))
    before = victim.counters()
    async with watched(victim), twin.armed():
        with contextlib.suppress(HandshakeError):
            await (await twin.connect(victim)).until_closed()
    now = victim.counters()
    assert now["handshakes_failed"] == before.get("handshakes_failed", 0) + 1
    print({k: v for k, v in now.items() if v != before.get(k)})
