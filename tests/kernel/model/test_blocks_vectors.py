"""docs/protocols/blocks.md, carried out a second time by hand, against the code and the vectors."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from namespaces_skywire.declarations import TP
from skycore.model.entries import TransportEntry
from skycore.model.trie import assembled_bytes, harvest, plant_set, plant_value, read_manifest

VECTORS = Path(__file__).parents[3] / "tests/vectors/skycore_blocks.json"


def sha(data):
    return hashlib.sha256(data).digest()


def u(value, size):
    return value.to_bytes(size, "big")


def by_hand(entries, depth, blocks):
    """Return (id, count, bytes) of the tree of (key, entry), as the document says it."""
    size = sum(4 + len(value) + (len(key) if key != value else 0) for key, value in entries)
    if len(entries) == 1 or size <= 4_096:
        block = b"\x01"
        for key, value in sorted(entries):
            block += b"\xff\xff" if key == value else u(len(key), 2) + key
            block += u(len(value), 2) + value
    else:
        block = b"\x00\x01"
        for digit in range(16):
            mine = [e for e in entries if hashlib.sha256(e[0]).hexdigest()[depth] == f"{digit:x}"]
            if mine:
                name, count, below = by_hand(mine, depth + 1, blocks)
                block += bytes((digit,)) + name + u(count, 4) + u(below, 4)
    blocks[sha(block)] = block
    return sha(block), len(entries), size


def plain_by_hand(value, blocks):
    row = []
    for start in range(0, len(value), 4_096):
        piece = b"\x02" + value[start : start + 4_096]
        blocks[sha(piece)] = piece
        row.append((sha(piece), 1, len(piece) - 1))
    while len(row) > 1:
        above = []
        for start in range(0, len(row), 64):
            below = row[start : start + 64]
            block = b"\x00\x02" + b"".join(
                bytes((at,)) + name + u(count, 4) + u(size, 4)
                for at, (name, count, size) in enumerate(below)
            )
            blocks[sha(block)] = block
            above.append((sha(block), sum(c for _, c, _ in below), sum(s for _, _, s in below)))
        row = above
    return row[0][0]


@given(
    st.dictionaries(st.binary(max_size=30), st.binary(min_size=1, max_size=700), min_size=1),
    st.integers(0, 40),
)
def test_a_set_planted_is_the_document_carried_out(rows, more):
    rows |= {b"%d" % n: b"%d" % n * 100 for n in range(more)} | {b"itself": b"itself"}
    entries = list(rows.items())
    size = assembled_bytes(3, len(entries), sum(map(len, rows.values())))
    tree = plant_set(3, entries, size)
    blocks = {}
    root, count, _ = by_hand(entries, 0, blocks)
    assert tree.blocks == blocks
    assert msgspec.msgpack.decode(tree.manifest) == [3, count, size, root]


@given(st.integers(1, 600_000))
def test_a_plain_value_planted_is_the_document_carried_out(size):
    value = (b"skycore" * (size // 7 + 1))[:size]
    tree = plant_value(value)
    blocks = {}
    root = plain_by_hand(value, blocks)
    assert tree.blocks == blocks
    assert msgspec.msgpack.decode(tree.manifest) == [0, 1, size, root]


def test_the_published_vector_of_a_set():
    want = json.loads(VECTORS.read_text())["set"]
    entries = [
        TransportEntry(
            uuid.UUID(int=n), ("02" + "ab" * 32, "03" + f"{n:064x}"), "stcpr", "automatic"
        )
        for n in range(1, 22)
    ]
    value = TP.encode(entries)
    assert (len(value), hashlib.sha256(value).hexdigest()) == (want["bytes"], want["value_sha256"])
    assert entries[0].set_key.hex() == want["first_key"]
    assert hashlib.sha256(entries[0].set_key).hexdigest().startswith(want["first_path"])
    tree = TP.plant(value)
    assert tree.manifest.hex() == want["manifest"]
    manifest = read_manifest(tree.manifest)
    assert (manifest.count, manifest.bytes) == (want["count"], want["bytes"])
    assert manifest.root.hex() == want["root"]
    assert tree.blocks[manifest.root].hex() == want["root_block"]
    assert tree.blocks[bytes.fromhex(want["leaf"])].hex() == want["leaf_block"]
    assert {name.hex(): len(block) for name, block in tree.blocks.items()} == want["blocks"]
    assert harvest(manifest, tree.blocks.get) == value


def test_the_published_vector_of_a_plain_value():
    want = json.loads(VECTORS.read_text())["plain"]
    value = bytes(i * i % 251 for i in range(want["bytes"]))
    assert hashlib.sha256(value).hexdigest() == want["value_sha256"]
    tree = plant_value(value)
    assert tree.manifest.hex() == want["manifest"]
    manifest = read_manifest(tree.manifest)
    assert tree.blocks[manifest.root].hex() == want["root_block"]
    assert {name.hex(): len(block) for name, block in tree.blocks.items()} == want["blocks"]
    assert harvest(manifest, tree.blocks.get) == value
