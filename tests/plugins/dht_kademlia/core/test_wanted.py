"""Of a reply only what was asked for is held."""

from dht_kademlia.core.wanted import is_full, pick
from skycore.model.limits import BLOCK_MAX, BLOCKS_BYTES_MAX
from skycore.model.trie import plant_value, read_manifest

PLANTED = plant_value(b"".join(n.to_bytes(4, "big") for n in range(100_000)))
TREE, ROOT = PLANTED.blocks, read_manifest(PLANTED.manifest).root


def test_all_below_what_was_asked_for_is_taken_if_it_was_asked_deep():
    assert pick([ROOT], list(TREE.values()), deep=True) == TREE
    assert pick([ROOT], list(TREE.values()), deep=False) == {ROOT: TREE[ROOT]}


def test_what_nobody_asked_for_is_not_held():
    junk = [b"junk", bytes(100), b""]
    assert pick([ROOT], [*junk, TREE[ROOT], *junk], deep=True) == {ROOT: TREE[ROOT]}
    assert pick([ROOT], junk, deep=True) == {}
    leaves = list(TREE.values())[-3:]
    assert pick([ROOT], leaves, deep=True) == {}


def test_more_than_a_reply_carries_is_not_looked_at():
    assert pick([ROOT], [bytes(BLOCK_MAX + 1), TREE[ROOT]], deep=True) == {}
    filler = [bytes(BLOCK_MAX)] * (BLOCKS_BYTES_MAX // BLOCK_MAX)
    assert pick([ROOT], [*filler, TREE[ROOT]], deep=True) == {}
    assert pick([ROOT], [bytes(90), TREE[ROOT]], deep=True, bytes_max=100) == {}


def test_a_full_reply_is_one_that_had_no_room_for_another_block():
    assert not is_full([])
    assert not is_full([bytes(1000)])
    assert is_full([bytes(BLOCK_MAX)] * (BLOCKS_BYTES_MAX // BLOCK_MAX - 1))
