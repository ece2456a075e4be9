"""Token buckets: the mean is bounded, the burst too, and so is their memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from http_asgi.core.rates import Rates
from skycore.model.addresses import host_group


@given(
    st.floats(1, 600),
    st.integers(1, 20),
    st.lists(st.floats(0, 30), min_size=1, max_size=100),
)
def test_no_more_than_the_burst_and_the_rate(per_minute, burst, pauses):
    rates, now, allowed = Rates(per_minute, burst, 10), 0.0, 0
    for pause in pauses:
        now += pause
        allowed += not rates.wait_s("a", now)
    assert allowed <= burst + now * per_minute / 60 + 1e-6


@given(st.floats(1, 600), st.integers(1, 5))
def test_whoever_waits_as_told_is_let_in(per_minute, burst):
    rates, now = Rates(per_minute, burst, 10), 0.0
    for _ in range(burst + 3):
        wait_s = rates.wait_s("a", now)
        if wait_s:
            now += wait_s + 1e-6
            assert not rates.wait_s("a", now)


def test_clients_do_not_share_and_nothing_is_limited_by_zero():
    rates = Rates(60, 1, 10)
    assert not rates.wait_s("a", 0)
    assert rates.wait_s("a", 0) == pytest.approx(1.0)
    assert not rates.wait_s("b", 0)
    free = Rates(0, 1, 10)
    assert not any(free.wait_s("a", 0) for _ in range(1_000))
    assert len(free) == 0


def test_memory_is_bounded_and_the_oldest_is_forgotten():
    rates = Rates(60, 1, 3)
    for n in range(1_000):
        rates.wait_s(str(n), 0)
    assert len(rates) == 3
    assert rates.wait_s("999", 0) > 0


def test_a_clock_that_goes_back_gives_nothing():
    rates = Rates(60, 1, 10)
    rates.wait_s("a", 100)
    assert rates.wait_s("a", 50) > 0


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_whose_rate_an_address_counts_on(host, client):
    assert host_group(host) == client
