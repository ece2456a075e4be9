"""The change log, days, and any bytes: the part of RegistryContract that reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest

from skycore.contracts.registry import (
    Beats,
    Listed,
    Listing,
    Registry,
    RegistryWrite,
    RegistryWritten,
)
from skycore.errors import CursorInvalidError, LocalProtocolError
from skycore.testing.contracts.registry_model import TABLE, Follower
from skycore.testing.fakes import START_NS, FakeClock

__all__ = ["LogContract", "OpenPair", "OpenRegistry", "entries", "write_all", "write_one"]

OpenRegistry = Callable[..., AbstractAsyncContextManager[Registry]]
OpenPair = Callable[..., AbstractAsyncContextManager[tuple[Registry, Registry]]]


def entries(count: int, text: str = "{}", first: int = 0) -> tuple[Listed, ...]:
    """Return entries with keys of 16 bytes."""
    return tuple(Listed(n.to_bytes(16, "big"), text.encode()) for n in range(first, first + count))


async def write_all(registry: Registry, *writes: RegistryWrite) -> Sequence[RegistryWritten]:
    """Write to TABLE."""
    return await registry.write(TABLE, writes)


async def write_one(registry: Registry, **what: Any) -> RegistryWritten:
    """Write what alice says to TABLE."""
    [result] = await registry.write(TABLE, [RegistryWrite(b"alice", **what)])
    return result


class LogContract:
    """Inherited by RegistryContract, which has the rest."""

    @pytest.fixture
    def open_registry(self) -> OpenRegistry:
        """Return a function that opens a new, empty registry: `(clock, **bounds)`."""
        raise NotImplementedError

    # --- the change log -------------------------------------------------------------------------

    async def test_a_follower_misses_nothing_while_others_write(
        self, open_registry: OpenRegistry
    ) -> None:
        """Pages of three while three writers work; afterwards it holds what there is."""
        async with open_registry(FakeClock()) as registry:
            follower = Follower(registry)

            async def writer(name: int) -> None:
                for turn in range(40):
                    subject = b"s%d" % ((turn * (name + 3)) % 17)
                    count = (turn * 7 + name) % 4
                    some = entries(count, f"{name} {turn}")
                    await write_all(registry, RegistryWrite(subject, put=some, whole=True))

            async with anyio.create_task_group() as tasks:
                for name in range(3):
                    tasks.start_soon(writer, name)
                for _ in range(60):
                    await follower.page(3)
            await follower.catch_up()
            fresh = Follower(registry)
            await fresh.catch_up()
            assert follower.held == fresh.held
            assert len(fresh.told) == len(set(fresh.told)), "each once"
            told = list(follower.told)
            await follower.catch_up()
            assert follower.told == told, "nothing twice"

    async def test_a_subject_that_is_gone_is_told_for_an_hour(
        self, open_registry: OpenRegistry
    ) -> None:
        """And a cursor from before that is refused in the end, not answered with less."""
        clock = FakeClock()
        async with open_registry(clock) as registry:
            await write_one(registry, put=entries(1))
            before = await registry.changes(TABLE, None, 9)
            await write_one(registry, whole=True)
            after = await registry.changes(TABLE, before.cursor, 9)
            assert after.listings == (Listing(b"alice", ()),)
            clock.advance(3_599)
            await registry.sweep(TABLE, 100)
            assert (await registry.changes(TABLE, before.cursor, 9)).listings == after.listings
            assert (await registry.changes(TABLE, None, 9)).listings == ()
            clock.advance(30 * 86_400)
            await registry.sweep(TABLE, 100)
            try:
                told = (await registry.changes(TABLE, before.cursor, 9)).listings
            except CursorInvalidError:
                told = after.listings
            assert told == after.listings
            assert (await registry.changes(TABLE, after.cursor, 9)).listings == ()

    async def test_reading_from_the_start_ends_though_gone_subjects_are_forgotten(
        self, open_registry: OpenRegistry
    ) -> None:
        """Most never change what they list, so they stand before those that went long ago."""
        clock = FakeClock()
        async with open_registry(clock) as registry:
            await write_all(
                registry,
                *(RegistryWrite(b"%d" % n, put=entries(1), lifetime_s=86_400) for n in range(9)),
                RegistryWrite(b"gone", put=entries(1), lifetime_s=60),
            )
            clock.advance(61)
            await registry.sweep(TABLE, 9)
            clock.advance(54_000)
            page = await registry.changes(TABLE, None, 3)
            await registry.sweep(TABLE, 9)  # forgets who is gone, between two pages
            met = [listing.subject for listing in page.listings]
            while page.has_more:
                page = await registry.changes(TABLE, page.cursor, 3)
                met += [listing.subject for listing in page.listings if listing.entries]
            assert sorted(met) == [b"%d" % n for n in range(9)]
            late = Follower(registry)  # begins when it is forgotten already
            await late.catch_up()
            assert sorted(late.held) == sorted(met)

    async def test_a_cursor_that_is_not_of_this_log_is_refused(
        self, open_registry: OpenRegistry
    ) -> None:
        """Foreign, of another table, from the future, no cursor at all."""
        async with open_registry(FakeClock()) as registry, open_registry(FakeClock()) as other:
            await write_one(registry, put=entries(1))
            await write_one(other, put=entries(1))
            cursor = (await registry.changes(TABLE, None, 9)).cursor
            foreign = (await other.changes(TABLE, None, 9)).cursor
            table = (await registry.changes("dmsg-discovery", None, 9)).cursor
            future = cursor[:-1] + bytes([cursor[-1] + 1])
            for bad in (foreign, table, future, b"", b"x" * len(cursor)):
                with pytest.raises(CursorInvalidError):
                    await registry.changes(TABLE, bad, 9)
            assert (await registry.changes(TABLE, cursor, 9)).listings == ()

    async def test_tables_are_apart(self, open_registry: OpenRegistry) -> None:
        """Entries, ends, heartbeats."""
        clock = FakeClock()
        async with open_registry(clock) as registry:
            await write_one(registry, put=entries(2), beat=True)
            assert (await registry.changes("address-resolver", None, 9)).listings == ()
            assert await registry.beats("address-resolver", "2027-01-15") == {}
            clock.advance(1_000)
            assert await registry.sweep("address-resolver", 9) == 0
            assert await registry.sweep(TABLE, 9) == 2

    async def test_any_bytes_are_kept(self, open_registry: OpenRegistry) -> None:
        """Subjects, keys and bodies as they are, up to their bounds; empty bodies too."""
        async with open_registry(FakeClock()) as registry:
            some = (
                Listed(b"\x00", b""),
                Listed(b"'; DROP TABLE listings; --", b"\xff" * 16_384),
                Listed(b"\xff" * 512, "ü\x00\r\n*1\r\n".encode()),
            )
            subject = b"\x00\xff%_*:" + bytes(33)
            await write_all(registry, RegistryWrite(subject, put=some))
            page = await registry.changes(TABLE, None, 9)
            assert page.listings == (Listing(subject, some),)

    # --- heartbeats -----------------------------------------------------------------------------

    async def test_beats_are_spans_of_five_minutes(self, open_registry: OpenRegistry) -> None:
        """288 in a day, however often somebody is seen in one."""
        clock = FakeClock((START_NS // 86_400_000_000_000) * 86_400_000_000_000)
        async with open_registry(clock) as registry:
            for _ in range(288):
                await write_one(registry, beat=True)
                clock.advance(150)
                await write_one(registry, beat=True)
                clock.advance(150)
            bob = RegistryWrite(b"bob", beat=True)
            await write_all(registry, bob, bob)
            day = await registry.beats(TABLE, "2027-01-15")
            assert day == {b"alice": Beats(288, clock.wall_s() - 150)}
            assert await registry.beats(TABLE, "2027-01-16") == {b"bob": Beats(1, clock.wall_s())}
            with pytest.raises(LocalProtocolError):
                await registry.beats(TABLE, "yesterday")

    async def test_days_are_kept_for_eight_days(self, open_registry: OpenRegistry) -> None:
        """And no longer."""
        clock = FakeClock()
        async with open_registry(clock) as registry:
            await write_one(registry, beat=True)
            clock.advance(8 * 86_400)
            await registry.sweep(TABLE, 1)
            assert len(await registry.beats(TABLE, "2027-01-15")) == 1
            clock.advance(2 * 86_400)
            await registry.sweep(TABLE, 1)
            assert await registry.beats(TABLE, "2027-01-15") == {}
