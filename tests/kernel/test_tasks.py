"""every() and retry(): when they work, what they log, and what ends them."""

from __future__ import annotations

import logging
import random

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.errors import DialError, StoreError
from skycore.tasks import backoff_s, each_of, every, retry
from skycore.testing.loop import simulate


class Work:
    """Notes when it is called; fails with what `troubles` says for each call, then succeeds."""

    def __init__(self, *troubles):
        self.troubles = list(troubles)
        self.called_at = []

    async def __call__(self):
        self.called_at.append(round(anyio.current_time(), 6))
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None:
            raise trouble
        return "done"


def for_a_while(seconds, work, interval, **options):
    async def main():
        with anyio.move_on_after(seconds):
            await every(interval, work, name="the work", **options)

    simulate(main)
    return work.called_at


def test_every_works_at_once_then_after_each_pause():
    assert for_a_while(100, Work(), 30) == [0, 30, 60, 90]
    assert for_a_while(100, Work(), 30, at_once=False) == [30, 60, 90]


def test_every_asks_for_its_interval_after_each_round():
    work = Work()
    pauses = iter([1, 10, 100, 1_000])
    assert for_a_while(200, work, lambda: next(pauses)) == [0, 1, 11, 111]


def test_every_goes_on_after_a_skycore_error_and_logs_it_once(caplog):
    caplog.set_level(logging.INFO)
    work = Work(DialError("gone"), DialError("gone"), StoreError("full"), None, DialError("gone"))
    assert for_a_while(100, work, 10) == list(range(0, 100, 10))
    assert caplog.messages == [
        "the work failed error='gone'",
        "the work failed error='full'",
        "the work works again",
        "the work failed error='gone'",
        "the work works again",
    ]


def test_every_ends_with_any_other_error():
    with pytest.raises(ZeroDivisionError):
        for_a_while(100, Work(None, ZeroDivisionError()), 10)


def test_retry_returns_the_first_success():
    async def main():
        work = Work(DialError(), DialError(), DialError())
        result = await retry(work, name="it", dice=random.Random(1), first_s=1, longest_s=2)
        assert result == "done"
        pauses = [b - a for a, b in zip(work.called_at, work.called_at[1:], strict=False)]
        assert len(pauses) == 3
        assert 0.8 <= pauses[0] <= 1.2
        assert all(1.6 <= p <= 2.4 for p in pauses[1:])

    simulate(main)


def test_retry_raises_the_last_error_after_its_attempts():
    async def main():
        work = Work(DialError("1"), DialError("2"), DialError("3"))
        with pytest.raises(DialError, match="2"):
            await retry(work, name="it", dice=random.Random(1), attempts_max=2)
        with pytest.raises(ZeroDivisionError):
            await retry(Work(ZeroDivisionError()), name="it", dice=random.Random(1))

    simulate(main)


@given(
    attempt=st.integers(1, 10_000),
    first=st.floats(0.001, 100),
    longest=st.floats(0.001, 10_000),
    seed=st.integers(),
)
def test_backoff_doubles_up_to_the_longest_with_a_fifth_of_jitter(attempt, first, longest, seed):
    wait = backoff_s(attempt, first, longest, random.Random(seed))
    plain = min(longest, first * 2.0 ** min(attempt - 1, 32))
    assert 0.8 * plain <= wait <= 1.2 * plain


def test_each_of_ends_all_and_raises_one_trouble_by_itself():
    async def main():
        done = []

        async def work(number):
            await anyio.sleep(number)
            if number < 3:
                raise StoreError(f"trouble {number}")
            done.append(number)

        with pytest.raises(StoreError, match="trouble 1"):
            await each_of([3, 2, 1], work)
        assert done == [3]

    simulate(main)
