"""Reconciling values in blocks: heads bring their blocks both ways, whole or not at all."""

import contextlib
import functools

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skycore.contracts.namespace import Form, Namespace
from skycore.errors import TransportError
from skycore.model.items import ItemClass, Kind, make_item
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.model.trie import plant_value
from skycore.testing.fakes import START_NS, identity

NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(identity("authority").secret))
TAGS = Namespace(b"tags", 1, str, Form.SET, {ItemClass.OWNER: 3_600})
ENTRIES = 2_000
EVERYTHING = (bytes(32), b"\xff" * 32)


@functools.cache
def head(name, seq=1, turn=0, *, size=0):
    """Return a set of 2,000 entries, one of which depends on `turn`; or a plain value of `size`."""
    if size:
        tree, salt = plant_value(bytes(range(256)) * (size // 256)), b"big"
    else:
        value = TAGS.encode([f"tag {n} of {name}" for n in range(1, ENTRIES)] + [f"turn {turn}"])
        tree, salt = TAGS.plant(value), b"tags"
    assert tree
    item = make_item(
        NETWORK,
        identity(name, NETWORK).secret,
        salt=salt,
        seq=START_NS + seq,
        until=START_NS // 10**9 + 1_000,
        v=tree.manifest,
        kind=Kind.MANIFEST,
    )
    return item, tree.blocks


async def put(side, *heads):
    for item, blocks in heads:
        (outcome,) = await side.put(item, blocks=list(blocks.values()))
        assert outcome.accepted, outcome


async def values(side):
    """Return every value, put together and checked: none is in part."""
    held = await side.gate.listing(None, *EVERYTHING, 1_000)
    return {(s.target, s.item.seq): await side.gate.value(s) for s in held}


def test_c28_heads_bring_their_blocks_both_ways(pair):
    async def story():
        async with pair() as (here, there):
            await put(here, head("a", 2, 1), head("b"), head("e", size=300_000))
            await put(there, head("a"), head("b", 2, 1), head("c"), head("d", size=300_000))
            report = await here.reconcile(there)
            assert report.complete, report
            assert (report.different, report.pulled, report.pushed) == (5, 3, 2)
            assert report.refused == 0, report
            assert await here.contents() == await there.contents()
            assert await values(here) == await values(there)
            assert len(await values(here)) == 5
            before = here.exchange.bytes_moved
            assert (await there.reconcile(here)).different == 0
            assert here.exchange.bytes_moved - before < 1_024

    anyio.run(story)


@pytest.mark.parametrize("newer_here", [True, False])
def test_c28_one_change_of_a_large_set_moves_little(pair, newer_here):
    async def story():
        async with pair() as (here, there):
            for side in (here, there):
                await put(side, head("a"))
            await put(here if newer_here else there, head("a", 2, 1))
            before = here.exchange.bytes_moved
            report = await here.reconcile(there)
            moved = here.exchange.bytes_moved - before
            assert (report.different, report.complete) == (1, True)
            assert report.bytes == moved
            whole = sum(map(len, head("a")[1].values()))
            assert moved < whole // 4, (moved, whole)
            assert await values(here) == await values(there)

    anyio.run(story)


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 1))
def test_c18_a_run_may_die_at_any_byte_of_a_block(pair, where):
    async def story():
        async with pair() as (here, there):
            for side in (here, there):
                await put(side, head("a"), head("b"))
            await put(here, head("a", 2, 1), head("c"))
            await put(there, head("b", 2, 1), head("d"))
            here.streams.left = int(where * 250_000)
            with contextlib.suppress(TransportError):
                await here.reconcile(there)
            for side in (here, there):
                held = await values(side)  # raises where a value is in part
                assert {seq - START_NS for _, seq in held} <= {1, 2}
            here.streams.left = 10**9
            assert (await here.reconcile(there)).complete
            assert await here.contents() == await there.contents()
            assert await values(here) == await values(there)
            assert len(await values(here)) == 4

    anyio.run(story)
