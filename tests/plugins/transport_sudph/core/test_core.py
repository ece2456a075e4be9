"""The parts that only time and numbers move: datagram sizes, windows, punches, recovery."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.model.limits import SUDPH_PUNCHES_MAX
from transport_sudph.core.congestion import WINDOW_MAX, LossShare
from transport_sudph.core.kinds import Kind, kind_of
from transport_sudph.core.mtu import AGAIN_S, BULK_BYTES, STEPS, MtuSearch
from transport_sudph.core.punching import PER_MINUTE_MAX, Puncher, is_target


def packet(sent_time, size=1_200):
    return SimpleNamespace(sent_time=sent_time, sent_bytes=size)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 2_000)), max_size=200))
def test_a_window_stays_within_its_bounds_whatever_happens(steps):
    control = LossShare(max_datagram_size=1_200)
    for now, (is_lost, size) in enumerate(steps):
        one = packet(float(now), size)
        control.on_packet_sent(packet=one)
        if is_lost:
            control.on_packets_lost(now=now + 0.5, packets=[one])
        else:
            control.on_rtt_measurement(now=now + 0.5, rtt=0.5)
            control.on_packet_acked(now=now + 0.5, packet=one)
        assert control.minimum <= control.congestion_window <= WINDOW_MAX
        assert control.bytes_in_flight == 0


def after_rounds(loss, rtt=lambda _: 0.04, rounds=60):
    control = LossShare(max_datagram_size=1_200)
    for turn in range(rounds):
        now = turn * 0.04
        flight = [packet(now) for _ in range(control.congestion_window // 1_200)]
        for one in flight:
            control.on_packet_sent(packet=one)
        lost = int(len(flight) * loss)
        control.on_packets_lost(now=now + 0.04, packets=flight[:lost])
        control.on_rtt_measurement(now=now + 0.04, rtt=rtt(turn))
        for one in flight[lost:]:
            control.on_packet_acked(now=now + 0.04, packet=one)
    return control.congestion_window


def test_a_little_loss_without_a_queue_is_outgrown_and_much_is_not():
    assert after_rounds(0.02) > 1_000_000
    assert after_rounds(0.2) < 100_000


def test_loss_with_a_queue_cuts_as_cubic_does():
    def filling(turn):
        return 0.04 if turn < 7 else 0.2

    assert after_rounds(0.02, filling, rounds=30) < after_rounds(0.02, rounds=30) / 10


def test_sizes_are_tried_in_order_and_only_for_bulk():
    search = MtuSearch()
    assert search.probe(0.0, BULK_BYTES - 1) == 0
    for size in STEPS:
        assert search.probe(0.0, BULK_BYTES) == size
        assert search.probe(0.0, BULK_BYTES) == 0  # one at a time
        search.answered(size)
        assert search.size == size
    assert search.probe(0.0, BULK_BYTES) == 0


def test_three_lost_probes_end_the_search_for_ten_minutes():
    search = MtuSearch()
    for _ in range(3):
        assert search.probe(0.0, BULK_BYTES) == STEPS[0]
        search.lost(0.0, STEPS[0])
    assert search.probe(AGAIN_S - 1, BULK_BYTES) == 0
    assert search.probe(AGAIN_S, BULK_BYTES) == STEPS[0]


@pytest.mark.parametrize(("silences", "large"), [(2, 0), (0, 8)])
def test_a_black_hole_makes_datagrams_small(silences, large):
    search = MtuSearch()
    assert not search.is_black_hole(0.0, silences, large)  # they are small already
    search.answered(search.probe(0.0, BULK_BYTES))
    assert not search.is_black_hole(0.0, 1, 7)
    assert search.is_black_hole(0.0, silences, large)
    assert search.size == 1_200 and search.probe(1.0, BULK_BYTES) == 0


def test_u11_ten_punches_a_minute_to_one_and_a_bounded_number_to_all():
    puncher = Puncher(near=False)
    one = ("192.0.2.1", 5)
    sent = sum(len(puncher.allowed([one, one], 0.01 * n)) for n in range(100))
    assert sent == SUDPH_PUNCHES_MAX
    assert puncher.allowed([one], 61.0) == [one]
    many = [(f"192.0.{n >> 8}.{n & 255}", 5) for n in range(5_000)]
    assert len(puncher.allowed(many, 200.0)) == PER_MINUTE_MAX


@pytest.mark.parametrize(
    "endpoint",
    [("224.0.0.1", 5), ("0.0.0.0", 5), ("255.255.255.255", 5), ("ff02::1", 5), ("::", 5),
     ("127.0.0.1", 5), ("::1", 5), ("192.0.2.1", 0), ("example.org", 5)],
)  # fmt: skip
def test_where_nobody_may_send_us(endpoint):
    assert not is_target(endpoint, near=False)


@given(st.binary(max_size=50))
def test_any_datagram_is_of_one_kind(data):
    kind = kind_of(data)
    assert (kind is Kind.CONTROL) == (bool(data) and data[0] < 0x40)
