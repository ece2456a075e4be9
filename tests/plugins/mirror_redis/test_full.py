"""A Redis that becomes full: of every item it is said truly whether it is stored (M3, C15)."""

from __future__ import annotations

import pytest

from skycore.errors import QuotaError, StoreFullError
from skycore.testing.contracts.store_model import START_S, lease_for, ranked, read_all


@pytest.mark.parametrize("parts", [(1,), (0, 2), (2,), (0, 1)])
async def test_m3_c15_a_batch_that_is_done_in_part_says_which_items_are_stored(
    redis, opened, full_at, parts
):
    async with opened(redis) as (store, link):
        items = [ranked(b"s%d" % i) for i in range(1_300)]  # three calls
        full_at(*parts)
        outcomes = await store.put_many(items)
        assert link.counters["connections"] == 1
        held = {row.target for row in await read_all(store)}
        assert {i.target for i, o in zip(items, outcomes, strict=True) if o.accepted} == held
        for at, outcome in enumerate(outcomes):
            assert (outcome.code == QuotaError.code) == (at // 512 in parts)
            assert outcome.accepted or "it has no memory left" in outcome.text
        renewed = await store.renew([lease_for(item, START_S + 900) for item in items], 0)
        for at, (item, outcome) in enumerate(zip(items, renewed, strict=True)):
            if at // 512 in parts:
                assert outcome.code == QuotaError.code
            else:
                assert outcome.accepted == (item.target in held)


async def test_m3_where_nothing_was_done_it_is_an_error(redis, opened, full_at):
    async with opened(redis) as (store, _):
        full_at(0, 1, 2)
        with pytest.raises(StoreFullError):
            await store.put_many([ranked(b"s%d" % i) for i in range(1_300)])
        assert await read_all(store) == []


async def test_m3_a_real_one_fills_up_and_no_outcome_is_false(own_redis, opened):
    server = own_redis("--maxmemory", "12mb", "--maxmemory-policy", "noeviction")
    async with opened(server) as (store, _):
        told: dict[bytes, bool] = {}
        with pytest.raises(StoreFullError):
            for turn in range(50):
                items = [ranked(b"%d-%d" % (turn, i), v=bytes(900)) for i in range(1_300)]
                outcomes = await store.put_many(items)
                told |= {i.target: o.accepted for i, o in zip(items, outcomes, strict=True)}
        held = {row.target for row in await read_all(store)}
        assert held and {target for target, is_stored in told.items() if is_stored} == held
        used = sum(u.bytes for u in (await store.usage()).values())
        assert used == 900 * len(held)
