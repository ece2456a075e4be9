"""What every Registry has to pass. Inherit `RegistryContract` and give it `open_registry`.

class TestMine(RegistryContract):
    @pytest.fixture
    def open_registry(self):
        return lambda clock, **bounds: open_my_registry(MySettings(**bounds), clock)

`bounds` are fields of `skycore.discovery.registries.RegistryBounds`. A registry that several nodes
may share gives `open_pair` too: two of them on the same tables.
"""

from __future__ import annotations

import anyio
import pytest
from hypothesis import HealthCheck, given, settings

from skycore.contracts.registry import (
    Listed,
    Listing,
    RegistryCapacity,
    RegistryWrite,
    RegistryWritten,
)
from skycore.errors import LocalProtocolError, StoreFullError
from skycore.testing.contracts.registry_log import (
    LogContract,
    OpenPair,
    OpenRegistry,
    entries,
    write_all,
    write_one,
)
from skycore.testing.contracts.registry_model import (
    TABLE,
    Follower,
    RegistryPlayer,
    Step,
    steps,
)
from skycore.testing.fakes import START_NS, FakeClock

__all__ = ["OpenPair", "OpenRegistry", "RegistryContract", "entries"]

_RANDOM_WORK = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
_SURELY_S = 10.0
"""Longer than the 2 s of the contract: a machine may be slow, and this is no test of speed."""


def _keys(listing: Listing | None) -> list[int]:
    assert listing is not None
    return [int.from_bytes(entry.key, "big") for entry in listing.entries]


class RegistryContract(LogContract):
    """The suite. Each test opens a registry of its own, empty."""

    @pytest.fixture
    def open_pair(self) -> OpenPair:
        """Return a function that opens two on the same new tables, where that can be."""
        pytest.skip("this registry is nobody else's")

    @_RANDOM_WORK
    @given(work=steps())
    def test_random_work_agrees_with_the_model(
        self, open_registry: OpenRegistry, work: list[Step]
    ) -> None:
        """Writes, time, sweeps and pages, interleaved; a follower ends with the truth."""

        async def play() -> None:
            clock = FakeClock()
            async with open_registry(clock) as registry:
                await RegistryPlayer(registry, clock).play(work)

        anyio.run(play)

    # --- nonces ---------------------------------------------------------------------------------

    async def test_l21_a_nonce_is_used_once_and_a_wrong_one_does_nothing(
        self, open_registry: OpenRegistry
    ) -> None:
        """Not an entry, not a heartbeat, not the nonce; and of a table, not of another."""
        async with open_registry(FakeClock()) as registry:
            nonce = await registry.next_nonce(TABLE, b"alice")
            assert nonce == await registry.next_nonce(TABLE, b"alice")
            for wrong in (nonce + 1, max(0, nonce - 1), 0, 2**53):
                if wrong == nonce:
                    continue
                refused = await write_one(registry, put=entries(1), nonce=wrong, beat=True)
                assert refused == RegistryWritten(error="nonce", next_nonce=nonce)
            done = await write_one(registry, put=entries(1), nonce=nonce)
            assert (done.error, done.next_nonce, done.changed) == ("", nonce + 1, True)
            replayed = await write_one(registry, put=entries(2), nonce=nonce)
            assert replayed == RegistryWritten(error="nonce", next_nonce=nonce + 1)
            assert await registry.next_nonce(TABLE, b"alice") == nonce + 1
            assert await registry.next_nonce("dmsg-discovery", b"alice") == nonce
            assert await registry.beats(TABLE, "2027-01-15") == {}

    async def test_an_empty_write_uses_up_a_nonce(self, open_registry: OpenRegistry) -> None:
        """What a request that only reads does."""
        async with open_registry(FakeClock()) as registry:
            nonce = await registry.next_nonce(TABLE, b"alice")
            assert await write_one(registry, nonce=nonce) == RegistryWritten(next_nonce=nonce + 1)
            assert (await write_one(registry, nonce=nonce)).error == "nonce"
            assert (await registry.changes(TABLE, None, 9)).listings == ()

    async def test_of_writers_with_one_nonce_exactly_one_wins(
        self, open_registry: OpenRegistry
    ) -> None:
        """Ten at once, and three in one batch."""
        async with open_registry(FakeClock()) as registry:
            nonce = await registry.next_nonce(TABLE, b"alice")
            results: list[RegistryWritten] = []

            async def writer(number: int) -> None:
                results.append(await write_one(registry, put=entries(1, str(number)), nonce=nonce))

            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(writer, number)
            [won] = [result for result in results if not result.error]
            assert {result.next_nonce for result in results} == {nonce + 1}
            page = await registry.changes(TABLE, None, 9)
            assert page.listings == (won.listing,)
            write = RegistryWrite(b"alice", nonce=nonce + 1)
            batch = await write_all(registry, write, write, write)
            assert [result.error for result in batch] == ["", "nonce", "nonce"]

    async def test_a_refused_write_is_not_the_others(self, open_registry: OpenRegistry) -> None:
        """In one batch: each as a whole or not at all."""
        async with open_registry(FakeClock()) as registry:
            results = await write_all(
                registry,
                RegistryWrite(b"alice", put=entries(2), nonce=3),
                RegistryWrite(b"bob", put=entries(2)),
            )
            assert [result.error for result in results] == ["nonce", ""]
            page = await registry.changes(TABLE, None, 9)
            assert [listing.subject for listing in page.listings] == [b"bob"]

    # --- what is known since when ---------------------------------------------------------------

    async def test_the_word_of_a_slower_channel_removes_nothing_said_later(
        self, open_registry: OpenRegistry
    ) -> None:
        """`whole` with a stamp; an entry held with a higher one stays, and lives longer."""
        clock = FakeClock()
        async with open_registry(clock) as registry:
            await write_one(registry, put=entries(2), stamp=START_NS)
            await write_one(registry, put=entries(1, "new", 2), stamp=START_NS + 20)
            clock.advance(200)
            done = await write_one(registry, put=entries(1), whole=True, stamp=START_NS + 10)
            assert _keys(done.listing) == [0, 2], "1 is gone; 2 is known since later"
            old = await write_one(registry, put=entries(1, "old", 2), stamp=START_NS + 10)
            assert not old.changed
            clock.advance(150)
            page = await registry.changes(TABLE, None, 9)
            assert page.listings == (Listing(b"alice", (*entries(1), *entries(1, "new", 2))),)
            gone = await write_one(registry, whole=True)
            assert gone.listing == Listing(b"alice", ())

    async def test_must_rise_refuses_the_whole_write(self, open_registry: OpenRegistry) -> None:
        """An equal stamp too; the nonce stays, and the highest that is held is told."""
        async with open_registry(FakeClock()) as registry:
            await write_one(registry, put=entries(1), stamp=7)
            nonce = await registry.next_nonce(TABLE, b"alice")
            for stamp in (1, 6, 7):
                refused = await write_one(
                    registry, put=entries(2, "x"), stamp=stamp, must_rise=True, nonce=nonce,
                    beat=True,
                )  # fmt: skip
                assert refused == RegistryWritten(error="stamp", stamp=7, next_nonce=nonce)
            assert await registry.beats(TABLE, "2027-01-15") == {}
            other = await write_one(registry, put=entries(1, first=5), stamp=3, must_rise=True)
            assert other.changed, "it names none that is held"
            done = await write_one(
                registry, put=entries(1, "x"), stamp=8, must_rise=True, nonce=nonce
            )
            assert (done.error, done.next_nonce) == ("", nonce + 1)
            huge = 2**63 - 1
            assert (await write_one(registry, put=entries(1), stamp=huge)).changed
            assert (await write_one(registry, remove=(entries(1)[0].key,), must_rise=True, stamp=9)
                    ).stamp == huge  # fmt: skip

    # --- lives ----------------------------------------------------------------------------------

    async def test_a_life_is_never_shortened(self, open_registry: OpenRegistry) -> None:
        """Neither by a shorter one nor by none."""
        clock = FakeClock()
        async with open_registry(clock) as registry:
            await write_one(registry, put=entries(1), lifetime_s=100)
            for lifetime_s in (50, 0, -5, 0.001):
                await write_one(registry, put=entries(1), lifetime_s=lifetime_s, prolong=True)
            clock.advance(99.5)
            assert await registry.sweep(TABLE, 10) == 0
            assert len((await registry.changes(TABLE, None, 9)).listings) == 1
            clock.advance(0.5)
            assert (await registry.changes(TABLE, None, 9)).listings == ()
            assert await registry.sweep(TABLE, 10) == 1

    async def test_prolonging_is_no_change(self, open_registry: OpenRegistry) -> None:
        """All live entries, without naming them; repeating them; nothing is told."""
        clock = FakeClock()
        async with open_registry(clock) as registry:
            await write_one(registry, put=entries(3), lifetime_s=100)
            page = await registry.changes(TABLE, None, 9)
            for _ in range(5):
                clock.advance(90)
                assert await write_one(registry, prolong=True, lifetime_s=100) == RegistryWritten()
                clock.advance(90)
                again = await write_one(registry, put=entries(3), lifetime_s=100, whole=True)
                assert again == RegistryWritten()
                assert (await registry.changes(TABLE, page.cursor, 9)).listings == ()
            clock.advance(100)
            late = await write_one(registry, prolong=True)
            assert late.listing == Listing(b"alice", ()), "nobody comes back from the dead"

    async def test_l20_a_subject_speaks_for_itself_alone(self, open_registry: OpenRegistry) -> None:
        """Both edges list a transport; the one that is silent drops out."""
        clock = FakeClock()
        async with open_registry(clock) as registry:
            await write_all(
                registry,
                RegistryWrite(b"alice", put=entries(1)),
                RegistryWrite(b"bob", put=entries(1)),
            )
            clock.advance(200)
            await write_one(registry, put=entries(1))
            clock.advance(200)
            assert await registry.sweep(TABLE, 100) == 1
            page = await registry.changes(TABLE, None, 9)
            assert [listing.subject for listing in page.listings] == [b"alice"]

    async def test_removing(self, open_registry: OpenRegistry) -> None:
        """Which were there is told; a removed one may be listed again in the same write."""
        async with open_registry(FakeClock()) as registry:
            await write_one(registry, put=entries(3))
            keys = [entry.key for entry in entries(9)]
            done = await write_one(registry, remove=(keys[8], keys[1], keys[0]))
            assert (done.removed, _keys(done.listing)) == ((keys[1], keys[0]), [2])
            none = await write_one(registry, remove=(keys[8],))
            assert none == RegistryWritten()
            other = await write_all(registry, RegistryWrite(b"bob", remove=(keys[2],)))
            assert other == [RegistryWritten()]
            both = await write_one(registry, remove=(keys[2],), put=entries(1, "new", 2))
            assert both.listing == Listing(b"alice", entries(1, "new", 2))

    async def test_a_sweep_ends_the_oldest_first_and_no_more_than_asked(
        self, open_registry: OpenRegistry
    ) -> None:
        """And tells of each."""
        clock = FakeClock()
        async with open_registry(clock) as registry:
            for number in range(4):
                clock.advance(1)
                subject = b"s%d" % number
                await write_all(registry, RegistryWrite(subject, put=entries(3), lifetime_s=10))
            page = await registry.changes(TABLE, None, 9)
            clock.advance(100)
            assert await registry.sweep(TABLE, 4) == 4
            page = await registry.changes(TABLE, page.cursor, 9)
            assert page.listings[0] == Listing(b"s0", ())
            assert [listing.subject for listing in page.listings] == [b"s0", b"s1"]
            assert [await registry.sweep(TABLE, 5) for _ in range(3)] == [5, 3, 0]
            page = await registry.changes(TABLE, page.cursor, 9)
            assert page.listings == tuple(Listing(b"s%d" % n, ()) for n in (1, 2, 3))

    # --- cost and bounds ------------------------------------------------------------------------

    @pytest.mark.parametrize("count", [1, 50, 916])
    async def test_l7_a_write_is_one_round_trip(
        self, open_registry: OpenRegistry, count: int
    ) -> None:
        """Nonce, entries, lives and heartbeat; new, unchanged, one changed; whatever its size."""
        async with open_registry(FakeClock()) as registry:
            nonce = await registry.next_nonce(TABLE, b"alice")
            for turn, text in enumerate(("{}", "{}", "other")):
                put = (*entries(count - 1), *entries(1, text, count - 1))
                before = registry.round_trips
                done = await write_one(registry, put=put, whole=True, nonce=nonce + turn, beat=True)
                assert registry.round_trips - before == 1
                assert (done.error, done.changed) == ("", turn != 1)
                if done.listing is not None:
                    assert done.listing.entries == put
            before = registry.round_trips
            many = [RegistryWrite(b"s%d" % n, put=entries(4), beat=True) for n in range(50)]
            assert all(result.changed for result in await registry.write(TABLE, many))
            assert registry.round_trips - before == 1
            assert await registry.write(TABLE, []) == []

    async def test_what_does_not_fit_is_refused_by_name(self, open_registry: OpenRegistry) -> None:
        """And nothing of the whole batch is done."""
        bounds = {
            "entries_max": 5,
            "subjects_max": 4,
            "body_bytes_max": 100_000,
            "table_mib_max": 1,
        }
        async with open_registry(FakeClock(), **bounds) as registry:
            assert registry.capacity == RegistryCapacity(4, 1 << 20)
            fits = RegistryWrite(b"bob", put=entries(5), beat=True)
            await write_one(registry, put=entries(4))
            for name, bad in (
                ("entries_max", RegistryWrite(b"carol", put=entries(6))),
                ("entries_max", RegistryWrite(b"alice", put=entries(2, first=4))),
                ("body_bytes_max", RegistryWrite(b"carol", put=entries(1, "x" * 100_001))),
            ):
                with pytest.raises(StoreFullError, match=name):
                    await write_all(registry, fits, bad)
            many = [RegistryWrite(b"s%d" % n, put=entries(1)) for n in range(4)]
            with pytest.raises(StoreFullError, match="subjects_max"):
                await write_all(registry, *many)
            large = [RegistryWrite(b"s%d" % n, put=entries(5, f"{n}" * 90_000)) for n in range(3)]
            with pytest.raises(StoreFullError, match="table_mib_max"):
                await registry.write(TABLE, large[1:] + large[:1])
            page = await registry.changes(TABLE, None, 9)
            assert page.listings == (Listing(b"alice", entries(4)),)
            assert await registry.beats(TABLE, "2027-01-15") == {}
            swapped = await write_one(
                registry, remove=(entries(1)[0].key,), put=entries(2, first=4)
            )
            assert _keys(swapped.listing) == [1, 2, 3, 4, 5]

    async def test_what_cannot_be_is_refused(self, open_registry: OpenRegistry) -> None:
        """By a mistake of ours: nothing that a stranger sends comes so far."""
        async with open_registry(FakeClock()) as registry:
            for bad in (
                RegistryWrite(b""),
                RegistryWrite(b"x" * 129),
                RegistryWrite(b"alice", put=(Listed(b"", b""),)),
                RegistryWrite(b"alice", remove=(b"k" * 513,)),
                RegistryWrite(b"alice", lifetime_s=float("nan")),
                RegistryWrite(b"alice", stamp=-1),
                RegistryWrite(b"alice", nonce=-1),
            ):
                with pytest.raises(LocalProtocolError):
                    await write_all(registry, bad)
            with pytest.raises(LocalProtocolError):
                await registry.write("Transport discovery", [])

    # --- news -----------------------------------------------------------------------------------

    async def test_a_watch_tells_once_for_all_changes(self, open_registry: OpenRegistry) -> None:
        """Of its own table; of a sweep too."""
        clock = FakeClock()
        async with open_registry(clock) as registry, registry.watch(TABLE) as news:
            told = aiter(news)
            for number in range(5):
                await write_one(registry, put=entries(1, str(number)))
            with anyio.fail_after(_SURELY_S):
                await anext(told)
            await write_one(registry, put=entries(1, "again"))
            with anyio.fail_after(_SURELY_S):
                await anext(told)
            clock.advance(1_000)
            assert await registry.sweep(TABLE, 9) == 1
            with anyio.fail_after(_SURELY_S):
                await anext(told)

    async def test_two_registries_on_the_same_tables(self, open_pair: OpenPair) -> None:
        """One's writes are the other's news, and a nonce is used once by both together."""
        async with open_pair(FakeClock()) as (one, other), other.watch(TABLE) as news:
            told = aiter(news)
            follower = Follower(other)
            await follower.catch_up()
            nonce = await other.next_nonce(TABLE, b"alice")
            done = await write_one(one, put=entries(2), nonce=nonce)
            with anyio.fail_after(_SURELY_S):
                while not follower.held:
                    await anext(told)
                    await follower.catch_up()
            assert follower.held == {b"alice": done.listing}
            assert (await write_one(other, put=entries(9), nonce=nonce)).error == "nonce"
            assert (await write_one(other, put=entries(3), nonce=nonce + 1)).changed
