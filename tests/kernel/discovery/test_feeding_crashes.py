"""A feeding that dies at any point, loses its right, or finds no room, and what heals it.

The rule for crashes: after a restart and one look both sides say the same, and what others put
under the same salt stands as it did.
"""

from __future__ import annotations

import random

import anyio
import pytest

from skycore.contracts.dht import PutReport
from skycore.contracts.store import PutOutcome
from skycore.discovery.fed import MARK_BYTES, FedSubjects
from skycore.errors import QuotaError, StoreError
from skycore.testing import sim_backend
from skycore.testing.fakes import MemoryFiles, identity
from skycore.testing.seams import SimClock, SimFiles
from tests.kernel.discovery.feedings import (
    ME,
    NETWORK,
    TABLE,
    BothHold,
    Side,
    body_of,
    equal,
    key,
    listing,
    open_side,
    until,
)

FAR_S = 86_400


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=48 * 3_600)


@pytest.fixture
async def side():
    async with open_side(SimClock()) as one:
        yield one


class Doom:
    """Counts what a process does to the world, and lets it die at one point."""

    def __init__(self, at=10**9):
        self.at, self.steps = at, 0

    @property
    def is_dead(self):
        return self.steps > self.at

    async def step(self):
        self.steps += 1
        if self.is_dead:
            await anyio.sleep_forever()


class MortalFiles(SimFiles):
    """A disk that a dead process does not write to; each write is a point to die at."""

    def __init__(self, disk, doom):
        super().__init__(disk)
        self._doom = doom

    def write(self, name, data):
        self._doom.steps += 1
        self.is_dead = self._doom.is_dead
        super().write(name, data)


class MortalMirror(BothHold):
    """A mirror that may be left before, between and after the two places it writes to."""

    doom = Doom()

    async def mirror(self, items, *, blocks=None, **more):
        await self.doom.step()
        given = tuple((blocks or {}).values())
        outcomes = await self.own.admit(items, sender=bytes(ME.public), blocks=given)
        await self.doom.step()
        reports = await super(BothHold, self).mirror(items, blocks=blocks, **more)
        await self.doom.step()
        return [
            PutReport(outcome, report.replicas)
            for outcome, report in zip(outcomes, reports, strict=True)
        ]

    async def renew(self, leases):
        await self.doom.step()
        outcomes = await self.own.renew(leases, sender=bytes(ME.public))
        await self.doom.step()
        reports = await super(BothHold, self).renew(leases)
        return [
            report if outcome.stored else PutReport(outcome)
            for outcome, report in zip(outcomes, reports, strict=True)
        ]


class World:
    """A service with its disk, its store and a peer, and what others published there."""

    def __init__(self):
        self.clock = SimClock()
        self.side = Side(self.clock)
        self.disk = {}

    async def others(self):
        """Publish under the same salt: with this very key, and as another service."""
        for name, who in (("imported", ME), ("elsewhere", identity("other", NETWORK))):
            other = Side(self.clock, who)
            other.own, other.peer, other.mirrors = self.side.own, self.side.peer, self.side.mirrors
            async with other.feeding():
                await other.tell(listing(name, 9, lifetime_s=FAR_S))
                await anyio.sleep(1)

    async def live(self, doom, work):
        """Run the service until `work` ends, or it dies; the disk keeps what was written."""
        self.side.files = MortalFiles(self.disk, doom)
        self.side.mirror.doom = doom
        async with self.side.feeding() as feeding:
            await work(feeding)
            doom.at = min(doom.at, doom.steps) if doom.is_dead else doom.at
        self.side.mirror.doom = Doom()


async def _visors_come_change_and_go(world, feeding):
    tell = world.side.tell
    await tell(*(listing(f"visor{n}", n + 1, lifetime_s=FAR_S) for n in range(8)))
    await anyio.sleep(1)
    await tell(listing("visor0"), listing("visor1", 7, 8, lifetime_s=FAR_S), listing("visor2"))
    await tell(listing("late", 5, lifetime_s=FAR_S))
    await anyio.sleep(1)
    await feeding.verify()
    await tell(listing("visor2", 3, lifetime_s=FAR_S), listing("visor3"))
    await anyio.sleep(1)


async def crash_at(at, seed):
    """Die at a point; return whether it was reached."""
    dice, world, doom = random.Random(seed), World(), Doom(at)
    side = world.side
    async with side.gate(ME) as side.own, side.gate(identity("peer", NETWORK)) as side.peer:
        side.mirror = MortalMirror("peer", [side.peer], bytes(ME.public), side.own)
        side.mirrors.append(side.mirror)
        await world.others()
        await world.live(doom, lambda feeding: _visors_come_change_and_go(world, feeding))
        names = [*(f"visor{n}" for n in range(8)), "late"]
        gone, new = dice.sample(names, dice.randint(0, 9)), f"new{seed}"
        away = [*(listing(name) for name in gone), listing(new, 4, lifetime_s=FAR_S)]
        await side.registry.write(TABLE, away[: dice.randint(0, len(away))])

        async def one_look(feeding):
            await anyio.sleep(1)
            await feeding.verify()
            await anyio.sleep(1)
            listed = side.listed() | {key("imported"): [9], key("elsewhere"): [9]}
            where = f"dead at {at}, seed {seed}"
            assert await side.standing() == listed == await side.standing(side.own), where
            await feeding.verify()
            assert feeding.differences == 0 and feeding.waiting == 0, where

        await world.live(Doom(), one_look)
    return doom.is_dead


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(3, 60))]
)
async def test_l6_wherever_it_dies_one_look_after_a_restart_both_sides_say_the_same(seed):
    at = 0
    while await crash_at(at, seed):
        at += 1
    assert at >= 12


async def test_what_is_about_to_be_published_is_marked_before_all_who_wait_at_once(side):
    """A backlog of many batches is one write, not one each; what is known costs none."""
    written = []

    class Counting(MemoryFiles):
        def write(self, name, data):
            if name.startswith("fed-"):
                written.append(len(data) // MARK_BYTES)
            super().write(name, data)

    side.files = Counting()
    async with side.feeding():
        everybody = [listing(f"visor{n}", 1, lifetime_s=FAR_S) for n in range(600)]
        await side.tell(*everybody)
        await anyio.sleep(3)
        assert len(await side.standing()) == 600 and written == [600]
        await side.tell(*everybody, listing("visor0", 2, lifetime_s=FAR_S))
        await anyio.sleep(120)
        assert written == [600]


class FullDisk(MemoryFiles):
    is_full = True

    def write(self, name, data):
        if self.is_full:
            raise StoreError("no space left on device")
        super().write(name, data)


def test_a_mark_that_was_not_saved_is_none():
    fed = FedSubjects(FullDisk(), b"svc")
    with pytest.raises(StoreError):
        fed.begin([b"alice"])
    assert b"alice" not in fed, "the next try saves"


async def test_marks_of_records_that_ended_by_themselves_do_not_pile_up(side, monkeypatch):
    """Whoever leaves while no service runs leaves a mark; room for marks is bounded."""
    monkeypatch.setattr("skycore.discovery.fed.SPARE", 5)
    name = "fed-737663.bin"
    for run in range(10):
        async with side.feeding():
            here = [listing(f"{run}-{n}", 1, lifetime_s=600) for n in range(5)]
            await side.tell(*here, listing("stays", 1, lifetime_s=FAR_S))
            await until(lambda: equal(side))
            await anyio.sleep(70)
            assert await equal(side)
        await anyio.sleep(3.5 * 3_600)  # leases end, and nobody is there to take anything back
    assert len(side.files.read(name)) <= (5 + 2 * 12) * MARK_BYTES
    async with side.feeding():
        await anyio.sleep(70)
        assert key("stays") in FedSubjects(side.files, b"svc")


async def test_marks_that_cannot_be_saved_wait_with_their_records(side):
    side.files = FullDisk()
    side.files.is_full = False
    async with side.feeding() as feeding:
        await side.tell(listing("bob", 1, lifetime_s=FAR_S))
        await anyio.sleep(1)
        side.files.is_full = True
        await side.tell(listing("alice", 1, lifetime_s=FAR_S))
        await anyio.sleep(30)
        assert await side.standing() == {key("bob"): [1]}
        assert "no space left" in feeding.status_fields()["feed_trouble"]
        side.files.is_full = False
        await anyio.sleep(60)
        assert await side.standing() == {key("alice"): [1], key("bob"): [1]}
        assert "feed_trouble" not in feeding.status_fields()
        await side.tell(listing("alice"))
        await anyio.sleep(1)
        feeding._fed._files = FullDisk()  # it stops while the disk is full: a mark too many
    async with side.feeding() as feeding:
        await anyio.sleep(1)
        await feeding.verify()
        assert await side.standing() == {key("bob"): [1]} and feeding.differences == 0


async def test_a_delegation_that_ends_is_told_before_and_a_new_one_heals(side):
    end = side.clock.wall_s() + 4 * 86_400
    async with side.feeding(until=end) as feeding:
        fields = feeding.status_fields()
        assert fields["feed_right_s"] == 4 * 86_400 and "feed_note" not in fields
    side.clock.offset_s += 4 * 86_400 - 3_600
    async with side.feeding(until=end) as feeding:
        await side.tell(listing("alice", 1, lifetime_s=FAR_S), listing("bob", 2, lifetime_s=FAR_S))
        await anyio.sleep(1)
        assert len(await side.standing()) == 2
        note = feeding.status_fields()["feed_note"]
        assert "ends in 0 h" in note and f"delegate {ME.public.hex()} --salt svc" in note
        await anyio.sleep(3_600 + 130)
        assert await side.standing() == {}, "what it covered ended with it"
        fields = feeding.status_fields()
        assert fields["feed_right_s"] == 0 and fields["differences"] == 2
        assert "no delegation" in fields["feed_trouble"]
        assert f"delegate {ME.public.hex()} --salt svc" in fields["feed_hint"]
        await side.tell(listing("carol", 3, lifetime_s=FAR_S), listing("bob"))
        await anyio.sleep(130)
        assert feeding.waiting == 3 and feeding.status_fields()["feed_lag_s"] > 100
    async with side.feeding(until=end + 20 * 86_400) as feeding:
        await anyio.sleep(2)
        await feeding.verify()
        assert await side.standing() == {key("alice"): [1], key("carol"): [3]}
        fields = feeding.status_fields()
        assert fields["differences"] == 0 == fields["feed_waiting"]
        assert not {"feed_trouble", "feed_note"} & fields.keys()


async def test_stores_that_are_full_are_tried_again_and_told_of(side):
    """Everybody's quota is used up, for some subjects or for all, for an hour."""
    full = {key("bob")}
    mirror = side.mirror.mirror

    async def mirror_with_quota(items, **more):
        reports = await mirror([item for item in items if item.subject not in full], **more)
        left = iter(reports)
        refusal = PutReport(PutOutcome(QuotaError.code, text="the quota of a signer is used up"))
        return [refusal if item.subject in full else next(left) for item in items]

    side.mirror.mirror = mirror_with_quota
    async with side.feeding() as feeding:
        await side.tell(*(listing(n, 1, lifetime_s=FAR_S) for n in ("alice", "bob", "carol")))
        await anyio.sleep(3_500)
        assert (await side.standing()).keys() == {key("alice"), key("carol")}
        await feeding.verify()
        fields = feeding.status_fields()
        assert fields["feed_waiting"] == 1 and fields["differences"] == 1
        assert 30 < fields["feed_failed"] < 200, "tried again and again, and not all the time"
        assert "quota" in fields["feed_trouble"]
        full |= {key("alice"), key("carol")}
        await side.tell(listing("alice", 2, lifetime_s=FAR_S))
        await anyio.sleep(300)
        assert (await side.standing())[key("alice")] == [1]
        full.clear()
        await until(lambda: equal(side), 130)
        await feeding.verify()
        fields = feeding.status_fields()
        assert fields["feed_waiting"] == 0 == fields["differences"]
        assert "feed_trouble" not in fields


async def test_trouble_with_one_subject_is_told_while_others_are_published(side):
    """A word that the next success wipes out is no word."""
    mirror = side.mirror.mirror

    async def never_bob(items, **more):
        reports = list(await mirror([i for i in items if i.subject != key("bob")], **more))
        refusal = PutReport(PutOutcome(QuotaError.code, text="too large for anybody"))
        return [refusal if i.subject == key("bob") else reports.pop(0) for i in items]

    side.mirror.mirror = never_bob
    async with side.feeding() as feeding:
        await side.tell(listing("bob", 1, lifetime_s=FAR_S))
        for n in range(40):
            await side.tell(listing("alice", n + 1, lifetime_s=FAR_S))
            await anyio.sleep(7)
            fields = feeding.status_fields()
            assert fields["feed_trouble"] == "too large for anybody" and fields["feed_waiting"] == 1


async def test_a_row_that_nobody_foresaw_ends_nothing(side):
    def make_body(listed):
        if listed.subject == key("mallory"):
            raise KeyError("surprise")
        return body_of(listed)

    async with side.feeding(make_body=make_body) as feeding:
        await side.tell(*(listing(n, 1, lifetime_s=FAR_S) for n in ("alice", "mallory", "zoe")))
        await anyio.sleep(1)
        assert (await side.standing()).keys() == {key("alice"), key("zoe")}
        await feeding.verify()
        assert "KeyError" in feeding.status_fields()["feed_refusals"][0]
