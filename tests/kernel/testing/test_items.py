"""The gate's face in a dict answers as the gate does, as far as it goes."""

from __future__ import annotations

import msgspec
import pytest

from skycore.contracts.store import ItemKey, Outcome
from skycore.errors import MissingBlocksError
from skycore.model.items import Kind, make_item, make_lease
from skycore.model.prints import range_print
from skycore.model.trie import plant_value
from skycore.testing.fakes import TEST_NETWORK, FakeClock, identity
from skycore.testing.items import DictItems

ALICE, PEER = identity("alice").secret, bytes(identity("peer").public)
WHOLE = (bytes(32), b"\xff" * 32)


def item_of(clock, seq, *, v=b"v", kind=Kind.VALUE, life_s=300):
    until = clock.wall_s() + life_s
    return make_item(TEST_NETWORK, ALICE, salt=b"s", seq=seq, until=until, v=v, kind=kind)


async def test_a_large_value_comes_in_blocks():
    clock = FakeClock()
    items, tree = DictItems(TEST_NETWORK, clock), plant_value(b"long " * 20_000)
    head, blocks = item_of(clock, 1, v=tree.manifest, kind=Kind.MANIFEST), tree.blocks
    (outcome,) = await items.admit([head], sender=PEER, blocks=[bytes(99)])
    while outcome.code == Outcome.MISSING_BLOCKS:
        assert await items.get(head.target) == ()
        sent = [blocks[name] for name in outcome.missing[:9]]
        (outcome,) = await items.admit([head], sender=PEER, blocks=sent)
    assert outcome.code == Outcome.STORED
    (stored,) = await items.get(head.target)
    assert await items.value(stored) == b"long " * 20_000
    assert await items.tree(head) == blocks
    assert items.assemble(head, blocks) == b"long " * 20_000
    assert await items.blocks(list(blocks)) == list(blocks.values())
    with pytest.raises(MissingBlocksError):
        items.assemble(head, {})
    wrong = msgspec.msgpack.encode((0, 2, 100_000, next(iter(blocks))))
    (outcome,) = await items.admit(
        [item_of(clock, 2, v=wrong, kind=Kind.MANIFEST)], sender=PEER, blocks=()
    )
    assert outcome.code == 402


async def test_history_fingerprints_and_news():
    clock = FakeClock()
    items = DictItems(TEST_NETWORK, clock)
    news = items.changed()
    await items.admit([item_of(clock, 1)], sender=PEER)
    assert news.is_set()
    news = items.changed()
    await items.admit([item_of(clock, 1)], sender=PEER)
    assert not news.is_set()
    await items.admit([item_of(clock, 2), item_of(clock, 3)], sender=PEER)
    (stored,) = await items.get(item_of(clock, 3).target)
    assert [s.item.seq for s in await items.history(stored.target, 9)] == [2, 1]
    assert await items.tree(stored.item) == {}
    assert await items.value(stored) == b"v"
    news = items.changed()
    await items.renew([make_lease(TEST_NETWORK, ALICE, stored, clock.wall_s() + 900)], sender=PEER)
    assert news.is_set()
    (stored,) = await items.get(stored.target)
    [found] = await items.fingerprints(b"s", [WHOLE])
    assert found == range_print([(stored.target, 3, stored.rank, stored.until)])
    assert await items.fingerprints(b"other", [WHOLE]) == [(0, 0)]
    clock.advance(900)
    assert await items.fingerprints(None, [WHOLE]) == [(0, 0)]
    assert await items.drop([ItemKey(stored.target, 3)]) == 1
