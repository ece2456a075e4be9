"""How long an entry lives: as its own edge says, and not a sweep longer."""

from __future__ import annotations

import anyio
import pytest

LIFE_S, SWEEP_S, CYCLE_S = 300, 5, 90


async def test_l19_an_entry_of_an_edge_that_died_after_its_first_word_is_gone(tpd, tp, people):
    alice, bob, *_ = people
    await tpd.register(alice, tp(alice, bob))
    await anyio.sleep(LIFE_S - 1)
    assert len(await tpd.listed()) == 1
    await anyio.sleep(1 + SWEEP_S + 1)
    assert await tpd.listed() == set()
    assert (await tpd.get(f"/transports/edge:{alice.public.hex()}")).status == 404


async def test_l20_one_edge_does_not_keep_the_other_edge_alive(tpd, tp, people):
    alice, bob, *_ = people
    told = tp(alice, bob)
    for who in (alice, bob):
        await tpd.register(who, told)
    for _ in range(4):
        await anyio.sleep(CYCLE_S)
        await tpd.register(alice, told)
    assert (await tpd.get(f"/transports/edge:{bob.public.hex()}")).status == 404
    assert (await tpd.get(f"/transports/id:{told['t_id']}?sides=1")).json()["one_sided"]
    await anyio.sleep(LIFE_S + SWEEP_S + 1)
    assert await tpd.listed() == set()


async def test_l6_what_expires_is_gone_from_lists_tags_and_stats(tpd, tp, people):
    alice, bob, carol, _ = people
    await tpd.register(alice, tp(alice, bob), tp(alice, carol))
    first = await tpd.get("/all-transports")
    await anyio.sleep(200)
    await tpd.register(alice, tp(alice, carol))
    await anyio.sleep(100 + SWEEP_S + 1)
    assert await tpd.listed() == {tp(alice, carol)["t_id"]}
    again = await tpd.get("/all-transports", if_none_match=first.headers["etag"])
    assert again.status == 200
    assert (await tpd.get("/all-transports/stats")).json()["total_transports"] == 1
    told = await tpd.status.status()
    assert (told.fields["subjects"], told.fields["transports"]) == (1, 1)


@pytest.mark.parametrize("seconds", [CYCLE_S, 2 * CYCLE_S, 3 * CYCLE_S])
async def test_three_refreshes_may_be_lost(tpd, tp, people, seconds):
    alice, bob, *_ = people
    await tpd.register(alice, tp(alice, bob))
    await anyio.sleep(seconds)
    assert len(await tpd.listed()) == 1
