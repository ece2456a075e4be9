"""Rates of callers, and uptimes."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from skycore.contracts.registry import Beats, RegistryWritten
from skycore.discovery.serving import CallerRates, Uptimes, started_at
from skycore.errors import RequestRefusedError
from skycore.testing.fakes import FakeClock

ALICE, BOB = b"a" * 32, b"b" * 32


def refuses(rates, key):
    with pytest.raises(RequestRefusedError) as said:
        rates.take(key)
    return said.value.code, str(said.value)


def test_a_caller_has_a_burst_and_then_a_rate():
    clock = FakeClock()
    rates = CallerRates(30, 2, 100, clock)
    rates.take(ALICE)
    rates.take(ALICE)
    told = (429, "Rate limit exceeded: maximum 30 requests per minute")
    assert refuses(rates, ALICE) == told
    rates.take(BOB)
    clock.advance(1.9)
    refuses(rates, ALICE)
    clock.advance(0.2)
    rates.take(ALICE)
    refuses(rates, ALICE)


def test_what_is_given_back_does_not_count_and_is_no_gift():
    rates = CallerRates(30, 2, 100, FakeClock())
    repeated = RegistryWritten(error="nonce")
    for _ in range(9):
        rates.take(ALICE)
        with pytest.raises(RequestRefusedError):
            rates.settle(ALICE, repeated)
    for key in (ALICE, BOB) * 9:
        with pytest.raises(RequestRefusedError):
            rates.settle(key, repeated)
    assert len(rates) == 1
    for _ in range(2):
        rates.take(ALICE)
        assert rates.settle(ALICE, RegistryWritten(changed=True)).changed
    assert refuses(rates, ALICE)[0] == 429


def test_rates_are_bounded_and_can_be_off():
    clock = FakeClock()
    rates = CallerRates(30, 1, 10, clock)
    for i in range(1_000):
        rates.take(i.to_bytes(32, "big"))
    assert len(rates) == 10
    off = CallerRates(0, 1, 10, clock)
    for _ in range(100):
        off.take(ALICE)
    assert len(off) == 0


class Days:
    """A directory's beats, and how often they were asked for."""

    def __init__(self, days):
        self.days, self.asked = days, 0

    async def beats(self, day):
        self.asked += 1
        return self.days.get(day, {})


async def test_uptimes_by_day_and_over_all_of_them():
    clock = FakeClock()  # 2027-01-15 08:00 UTC
    now = clock.wall_s()
    days = Days(
        {
            "2027-01-15": {ALICE: Beats(97, now - 10), BOB: Beats(1, now - 4_000)},
            "2027-01-14": {ALICE: Beats(144, now - 40_000)},
            "2027-01-01": {BOB: Beats(288, 0)},
        }
    )
    uptimes = Uptimes(days, clock)
    alice, bob = await uptimes.rows()
    assert (alice["key"], alice["online"], bob["online"]) == (ALICE.hex(), True, False)
    assert alice["uptime"] == (97 + 144) * 300
    assert alice["downtime"] == (97 + 6 * 288) * 300 - alice["uptime"]
    assert bob["percentage"] == round(100 / (97 + 6 * 288), 2)
    (alice,) = await uptimes.rows({ALICE}, version="v2")
    assert alice["daily"] == {"2027-01-14": "50.00", "2027-01-15": "100.00"}
    assert alice["on"]


async def test_the_registry_is_asked_seldom():
    clock = FakeClock()
    days = Days({})
    uptimes = Uptimes(days, clock)
    for _ in range(100):
        assert await uptimes.rows() == []
    assert days.asked == 7
    clock.advance(61)
    await uptimes.rows()
    assert days.asked == 9
    clock.advance(86_400)
    await uptimes.rows()
    assert days.asked == 11


async def test_everybodys_rows_are_made_once_for_all_who_ask_and_let_others_in():
    """Anybody may ask for them, as often as he likes."""
    clock = FakeClock()
    keys = [i.to_bytes(32, "big") for i in range(2_000)]
    days = Days({"2027-01-15": {key: Beats(3, clock.wall_s()) for key in keys}})
    uptimes, turns = Uptimes(days, clock), 0

    async def others():
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        rows = await uptimes.rows()
        assert len(rows) == 2_000
        assert turns >= 7
        tasks.cancel_scope.cancel()
    assert await uptimes.rows() is rows
    assert [row["pk"] for row in await uptimes.rows(keys[:3], version="v2")] == [
        key.hex() for key in keys[:3]
    ]
    assert await uptimes.rows() is rows
    assert await uptimes.rows(version="of nobody") is rows
    clock.advance(61)
    assert await uptimes.rows() is not rows


def test_a_start_is_told_in_utc():
    assert started_at(FakeClock()) == "2027-01-15T08:00:00Z"
