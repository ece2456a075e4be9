"""A service that mirrors a recorded network: what it costs while nothing changes, and what ends.

W2 ten times over fits a full node with nothing configured, or it says so (C25, O23).
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import msgspec
import pytest

from namespaces_skywire.declarations import ALL, SVC
from skycore.contracts.publish import Fact
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.model.entries import ServiceEntry
from skycore.model.items import Kind
from skycore.model.recording import RecordedFact, step
from skycore.testing.fakes import FakeClock, MemoryFiles
from skycore.testing.mirrors import PeersMirror
from skycore.wiring import Live

STORED, TOO_LOW = 0, 302
PERIOD_S = 90
LIFETIME_S = 7_200
W2 = 5_000


@asynccontextmanager
async def publishing(house, mirrors=()):
    async with open_publisher(
        PublisherSettings(), house.me, house.gate, Live(mirrors), house.namespaces, house.clock,
        MemoryFiles(),
    ) as publisher:  # fmt: skip
        yield publisher


@pytest.fixture
async def net(open_house):
    """A service, a full node, a second one that sleeps at times, and the mirror to the first."""
    clock = FakeClock()
    async with (
        open_house("me", namespaces=ALL, clock=clock) as house,
        open_house("peer", namespaces=ALL, clock=clock) as peer,
        open_house("late", namespaces=ALL, clock=clock) as late,
    ):
        yield house, peer, late, PeersMirror("peers", [peer.gate], house.me.public)


def services(subject, dice):
    ports = dice.sample(range(1, 60_000), 5)
    return [ServiceEntry(f"{subject.hex()}:{port}", "vpn", "v1.3.31") for port in ports]


def network(dice, count):
    """Return services by visor."""
    return {key: services(key, dice) for key in (dice.randbytes(33) for _ in range(count))}


def facts(listed, dice=None):
    """Return a listing as facts; with dice, in another order and with rows that come twice."""
    rows = []
    for key, entries in listed.items():
        if dice is not None:
            entries = dice.sample(entries, len(entries)) + entries[:2]
        rows.append(Fact(b"svc", SVC.encode(entries), key))
    if dice is not None:
        dice.shuffle(rows)
    return rows


def alive(listing):
    return {s.item.subject: s.item.v for s in listing if s.item.kind != Kind.TOMBSTONE}


async def held(house):
    return await house.gate.listing(b"svc", bytes(32), b"\xff" * 32, 100_000)


async def test_l9_an_unchanged_listing_costs_a_lease_an_hour_and_no_signature_of_an_item(net):
    """Every 90 s for 3 h, in any order and with repetitions: no item is signed or written again."""
    house, peer, _, mirror = net
    dice = random.Random(9)
    listed = network(dice, 40)
    right = [house.delegation("authority", "me", salt=b"svc")]
    async with publishing(house, [mirror]) as publisher:
        await publisher.publish_many(facts(listed), delegations=right)
        before = await held(peer)
        signed, wrote = house.suite.signed, peer.store.calls.count("put_many")
        silent_s, longest_s, leases = 0, 0, mirror.leases_sent
        for _ in range(3 * 3_600 // PERIOD_S):
            house.clock.advance(PERIOD_S)
            done = await publisher.publish_many(facts(listed, dice), delegations=right)
            assert all(one.unchanged for one in done)
            silent_s = 0 if mirror.leases_sent > leases else silent_s + PERIOD_S
            leases, longest_s = mirror.leases_sent, max(longest_s, silent_s)
        assert (mirror.items_sent, mirror.blocks_sent) == (len(listed), 0)
        assert house.suite.signed - signed == mirror.leases_sent <= 3 * len(listed)
        assert longest_s <= 3_600
        assert peer.store.calls.count("put_many") == wrote
        after = await held(peer)
        assert [(s.rank, s.item) for s in after] == [(s.rank, s.item) for s in before]


async def test_l6_what_the_source_no_longer_lists_is_gone_and_a_late_sync_changes_nothing(net):
    """Deleted and deregistered: in the next step. Orphans after churn: none."""
    house, peer, late, mirror = net
    dice = random.Random(6)
    listed = network(dice, 60)
    right = [house.delegation("authority", "me", salt=b"svc")]
    async with publishing(house, [mirror]) as publisher:
        for turn in range(8):
            for key in dice.sample(sorted(listed), 10):
                del listed[key]
            listed |= network(dice, 10)
            rows = [RecordedFact(b"svc", key, entries) for key, entries in listed.items()]
            mine = [(b"svc", key) for key in alive(await held(peer))]
            found = step(mine, rows)
            gone = [Fact(salt, None, key) for salt, key in found.gone]
            assert len(gone) == (10 if turn else 0)
            await publisher.publish_many([*facts(listed), *gone], delegations=right)
            assert alive(await held(peer)) == {f.subject: f.v for f in facts(listed)}
            if turn == 2:  # the second full node hears of it once, and then sleeps
                old = [s.item for s in await held(peer)]
                await late.put(*old)
            house.clock.advance(PERIOD_S)
        codes = await peer.put(*[s.item for s in await held(late)])
        assert TOO_LOW in codes
        assert STORED not in codes
        assert alive(await held(peer)) == {f.subject: f.v for f in facts(listed)}
        await late.put(*[s.item for s in await held(peer)])
        assert alive(await held(late)) == {f.subject: f.v for f in facts(listed)}


async def test_l6_a_source_that_falls_silent_leaves_nothing_after_a_lifetime(net):
    house, peer, _, mirror = net
    listed = network(random.Random(7), 20)
    right = [house.delegation("authority", "me", salt=b"svc")]
    async with publishing(house, [mirror]) as publisher:
        await publisher.publish_many(facts(listed), delegations=right)
    house.clock.advance(LIFETIME_S - 1)
    assert len(await held(peer)) == 20
    house.clock.advance(1)
    assert len(await held(peer)) == 0
    house.clock.advance(1)
    await peer.gate.sweep()
    assert await peer.gate.usage() == {}


async def test_c25_o23_ten_times_w2_is_kept_to_the_last_and_so_is_the_own_advert(
    open_house, monkeypatch
):
    """50,000 records, half of them of one mirror, nothing configured; signatures are believed."""
    async with open_house() as house:
        monkeypatch.setattr(house.suite, "verify", lambda *_: True)
        right = house.delegation("authority", "service")
        template = house.item("service", "x" * 250, life_s=3_000)

        def record(n):
            key = n.to_bytes(32, "big")
            if n % 2:
                return msgspec.structs.replace(template, subject=key, delegation=right)
            return msgspec.structs.replace(template, subject=key, signer=key)

        for start in range(0, 10 * W2, W2):
            part = [record(n) for n in range(start, start + W2)]
            assert set(await house.put(*part, sender=f"peer {start}")) == {STORED}
        began = house.store.calls.count("drop")
        for version in range(2):  # one advert emptied the original's store to 5,000
            house.clock.advance(1)
            advert = house.item("me", salt=b"advert", v=b"%d" % version)
            assert await house.put(advert, sender="me") == [STORED]
        usage = await house.gate.usage()
        assert usage[b"note"].items == 10 * W2
        assert usage[b"advert"].items == 1
        assert house.store.calls.count("drop") == began
