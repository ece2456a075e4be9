"""What every source of entries must do. Inherit `EntrySourceContract` and give it `sourced`.

```
class TestMine(EntrySourceContract):
    @pytest.fixture
    async def sourced(self):
        async with my_service() as service, my_source(service) as source:
            yield Sourced(source, b"tp", clock, say=service.say, body=service.body)
```

A source that is also a `FollowedSource` inherits `FollowedSourceContract` instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from skycore.contracts.discovery import EntrySource, FollowedSource, Record
from skycore.contracts.runtime import Clock
from skycore.errors import SkycoreError

__all__ = ["EntrySourceContract", "FollowedSourceContract", "Sourced"]

SOON_S = 15.0
PAUSE_S = 0.05
AHEAD_MAX_NS = 360 * 10**9
"""A seq may lie so far ahead of a clock: five minutes, and what passes meanwhile."""


@dataclass
class Sourced:
    """A source, and people whose records it can know."""

    source: EntrySource
    salt: bytes
    clock: Clock
    say: Callable[[int, int | None], Awaitable[bytes]]
    """Let person 0, 1, … say their n-th record (None: delete it); return the person's subject."""
    body: Callable[[int, int], Any]
    """What `Record.body` is then, of person and n; n = 0 … 9, no two alike."""
    fail: Callable[[], Awaitable[None]] | None = None
    """Make the source one that cannot be asked; None: it always can."""
    mirror: Callable[[int, int], Awaitable[bytes]] | None = None
    """Let somebody who may say a person's n-th record in their place; None: nobody can."""
    prolong: Callable[[int], Awaitable[None]] | None = None
    """Let a person prolong the record that was said last, with another `until_s`."""
    strange: bytes = b"\x05" * 32
    """A subject that nobody said anything of."""
    subjects: dict[int, bytes] = field(default_factory=dict)

    async def said(self, who: int, n: int | None) -> bytes:
        """Let a person say something; remember who it is."""
        self.subjects[who] = await self.say(who, n)
        return self.subjects[who]

    async def until(self, ask: Callable[[], Awaitable[Any]], is_so: Callable[[Any], object]) -> Any:
        """Ask until the answer is as wanted: what was said may be on its way for a moment."""
        with anyio.fail_after(SOON_S):
            while not is_so(answer := await ask()):  # noqa: ASYNC110
                await anyio.sleep(PAUSE_S)
        return answer

    async def found(self, who: int, n: int) -> Record:
        """Return the record once it is the n-th."""
        subject, body = self.subjects[who], self.body(who, n)
        record: Record = await self.until(
            lambda: self.source.find(self.salt, subject),
            lambda r: r is not None and r.body == body,
        )
        return record


class EntrySourceContract:
    """Asked for one, or for all; never silent about what it cannot know."""

    @pytest.fixture
    async def sourced(self) -> AsyncIterator[Sourced]:
        """Yield what is tested; nobody has said anything."""
        raise NotImplementedError
        yield

    async def test_it_says_what_it_is(self, sourced: Sourced) -> None:
        """A word for a name; the salt is among those it knows."""
        source = sourced.source
        assert source.name.isidentifier() and isinstance(source.is_local, bool)
        assert source.salts is None or sourced.salt in source.salts

    async def test_nobody_is_none_and_no_error(self, sourced: Sourced) -> None:
        """Knowing that there is nothing is an answer."""
        found = await sourced.source.find(sourced.salt, sourced.strange)
        assert found is None or found.body is None

    async def test_a_record_is_found_with_all_that_is_known_of_it(self, sourced: Sourced) -> None:
        """Body, subject, salt, when it was said, until when it holds, and by whom."""
        subject = await sourced.said(0, 1)
        record = await sourced.found(0, 1)
        now_ns, now_s = sourced.clock.wall_ns(), sourced.clock.wall_s()
        assert (record.salt, record.subject) == (sourced.salt, subject)
        assert record.source == sourced.source.name
        assert record.until_s > now_s
        assert 0 < record.as_of_ns <= now_ns + AHEAD_MAX_NS
        assert record.signer in (None, subject)

    async def test_what_is_said_later_is_what_is_found(self, sourced: Sourced) -> None:
        """The newest counts, and is not older than the one before."""
        await sourced.said(0, 1)
        first = await sourced.found(0, 1)
        await sourced.said(0, 2)
        second = await sourced.found(0, 2)
        assert second.as_of_ns >= first.as_of_ns

    async def test_what_is_deleted_has_no_body(self, sourced: Sourced) -> None:
        """Deleted: a record without a body, or none."""
        subject = await sourced.said(0, 1)
        await sourced.found(0, 1)
        await sourced.said(0, None)
        await sourced.until(
            lambda: sourced.source.find(sourced.salt, subject),
            lambda r: r is None or r.body is None,
        )
        await sourced.until(
            lambda: sourced.source.records(sourced.salt),
            lambda listed: subject not in {r.subject for r in listed.records},
        )

    async def test_a_list_has_each_live_record_once(self, sourced: Sourced) -> None:
        """Everybody's newest record, nobody twice; it is complete, or says why not."""
        for who in range(3):
            await sourced.said(who, who)
        await sourced.said(1, 7)
        wanted = {0: 0, 1: 7, 2: 2}
        for who, n in wanted.items():
            await sourced.found(who, n)
        bodies = {sourced.subjects[who]: sourced.body(who, n) for who, n in wanted.items()}
        listed = await sourced.until(
            lambda: sourced.source.records(sourced.salt),
            lambda r: {one.subject: one.body for one in r.records} == bodies,
        )
        assert len(listed.records) == 3
        assert listed.source == sourced.source.name
        assert {r.source for r in listed.records} == {listed.source}
        assert listed.complete or listed.note
        assert 0 < listed.as_of_ns <= sourced.clock.wall_ns() + AHEAD_MAX_NS

    async def test_a_list_of_nobody_is_empty(self, sourced: Sourced) -> None:
        """No record is no error."""
        listed = await sourced.source.records(sourced.salt)
        assert listed.records == ()

    async def test_what_it_does_not_know_of_it_does_not_invent(self, sourced: Sourced) -> None:
        """Another salt: nothing, or an error; never the records of this one."""
        subject = await sourced.said(0, 1)
        await sourced.found(0, 1)
        other = b"another-salt"
        if sourced.source.salts is not None:
            assert other not in sourced.source.salts
        try:
            assert await sourced.source.find(other, subject) is None
            assert (await sourced.source.records(other)).records == ()
        except SkycoreError:
            pass

    async def test_who_cannot_be_asked_says_so(self, sourced: Sourced) -> None:
        """Not knowing is an error, not an empty answer."""
        if sourced.fail is None:
            pytest.skip("this source can always be asked")
        subject = await sourced.said(0, 1)
        await sourced.found(0, 1)
        await sourced.fail()
        with pytest.raises(SkycoreError):
            await sourced.source.find(sourced.salt, sourced.strange)
        with pytest.raises(SkycoreError):
            await sourced.source.records(sourced.salt)
        del subject

    async def test_what_another_signed_names_the_signer(self, sourced: Sourced) -> None:
        """A mirrored record stands under the mirror's key, and its subject's own word wins."""
        if sourced.mirror is None:
            pytest.skip("nobody speaks for others here")
        subject = sourced.subjects[0] = await sourced.mirror(0, 1)
        record = await sourced.found(0, 1)
        assert record.signer not in (None, subject)
        await sourced.said(0, 2)
        record = await sourced.found(0, 2)
        assert record.signer == subject


class FollowedSourceContract(EntrySourceContract):
    """Also tells what changes, of what subjects sign themselves."""

    async def test_everything_first_then_what_changes(self, sourced: Sourced) -> None:
        """New, changed and deleted records come; each in a batch that is not too large."""
        await sourced.said(0, 1)
        await sourced.said(1, 1)
        async with _following(sourced) as told:
            await told.until({0: 1, 1: 1})
            await sourced.said(0, 2)
            await sourced.said(2, 3)
            await told.until({0: 2, 1: 1, 2: 3})
            await sourced.said(1, None)
            await told.until({0: 2, 1: None, 2: 3})
        assert told.largest <= 1_024

    async def test_who_begins_again_is_told_what_holds(self, sourced: Sourced) -> None:
        """Each follower is told everything; one that left costs nothing."""
        await sourced.said(0, 1)
        for _ in range(2):
            async with _following(sourced) as told:
                await told.until({0: 1})
        await sourced.said(0, 2)
        async with _following(sourced) as one, _following(sourced) as other:
            await one.until({0: 2})
            await other.until({0: 2})

    async def test_every_record_is_its_subject_s_own_word(self, sourced: Sourced) -> None:
        """What a mirror signed is never told: it would come back as news to whom it came from."""
        if sourced.mirror is not None:
            sourced.subjects[5] = await sourced.mirror(5, 1)
        await sourced.said(0, 1)
        async with _following(sourced) as told:
            await told.until({0: 1})
            if sourced.mirror is not None:
                await sourced.mirror(5, 2)
            await sourced.said(0, 2)
            await told.until({0: 2})
        assert all(r.signer == r.subject for r in told.records)
        assert sourced.subjects.get(5) not in {r.subject for r in told.records}

    async def test_a_longer_life_is_a_change(self, sourced: Sourced) -> None:
        """Who lists a record must hear that it lives on."""
        if sourced.prolong is None:
            pytest.skip("records are not prolonged here")
        await sourced.said(0, 1)
        async with _following(sourced) as told:
            await told.until({0: 1})
            before = told.newest[sourced.subjects[0]].until_s
            await sourced.prolong(0)
            with anyio.fail_after(SOON_S):
                while told.newest[sourced.subjects[0]].until_s <= before:  # noqa: ASYNC110
                    await anyio.sleep(PAUSE_S)
            assert told.newest[sourced.subjects[0]].body == sourced.body(0, 1)


class _Told:
    def __init__(self, sourced: Sourced) -> None:
        self._sourced = sourced
        self.records: list[Record] = []
        self.newest: dict[bytes, Record] = {}
        self.largest = 0

    def take(self, batch: Sequence[Record]) -> None:
        self.largest = max(self.largest, len(batch))
        self.records += batch
        self.newest.update({record.subject: record for record in batch})

    async def until(self, wanted: dict[int, int | None]) -> None:
        """Wait until the newest of each person is as wanted."""
        by = self._sourced
        bodies = {
            by.subjects[who]: None if n is None else by.body(who, n) for who, n in wanted.items()
        }
        with anyio.fail_after(SOON_S):
            while any(  # noqa: ASYNC110
                subject not in self.newest or self.newest[subject].body != body
                for subject, body in bodies.items()
            ):
                await anyio.sleep(PAUSE_S)


@asynccontextmanager
async def _following(sourced: Sourced) -> AsyncIterator[_Told]:
    told, source = _Told(sourced), sourced.source
    assert isinstance(source, FollowedSource)

    async def follow() -> None:
        async with source.follow(sourced.salt) as batches:
            async for batch in batches:
                told.take(batch)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        yield told
        tasks.cancel_scope.cancel()
