"""Token buckets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay_dmsg.core.rates import Bucket, Buckets


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200))
def test_never_more_than_rate_and_burst(pauses):
    bucket, now, taken = Bucket(2.0, 5.0, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.try_take(now)
    assert taken <= 5 + 2 * now + 1e-6


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=100))
def test_whoever_waits_as_told_keeps_to_the_rate(sizes):
    bucket, now = Bucket(100.0, 100.0, 0.0), 0.0
    for size in sizes:
        now += bucket.take(size, now)
    assert sum(sizes) <= 100 + 100 * now + 1e-6


def test_no_rate_is_no_limit():
    bucket = Bucket(0.0, 1.0, 0.0)
    assert all(bucket.try_take(0.0) for _ in range(1_000)) and bucket.take(10**9, 0.0) == 0.0


def test_keys_are_bounded_and_who_spoke_last_is_kept():
    buckets = Buckets(1.0, 1.0, 2)
    first = buckets.of(b"a", 0.0)
    buckets.of(b"b", 0.0)
    assert buckets.of(b"a", 0.0) is first
    buckets.of(b"c", 0.0)
    assert len(buckets) == 2 and buckets.of(b"a", 0.0) is first
