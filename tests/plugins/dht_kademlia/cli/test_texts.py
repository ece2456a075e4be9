"""What commands write for people."""

import pytest

from dht_kademlia.cli.texts import (
    authority,
    brief_value,
    content,
    moment_ns,
    signed_at,
    size,
    span,
    when,
)
from skycore.errors import ConfigError

ITEM = {
    "kind": "value", "item_class": "owner", "entries": None, "size": 5, "in_blocks": False,
    "value": "hello", "value_hex": "68656c6c6f", "issuer": "", "issued_until": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.0 kB"), (1_234_567, "1.2 MB"),
     (999_960, "1.0 MB"), (16 * 2**20, "16.8 MB"), (5 * 10**9, "5.0 GB")],
)  # fmt: skip
def test_sizes(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (59, "59 s"), (61, "1 min 1 s"), (3_600, "1 h"),
     (90_061, "1 d 1 h")],
)  # fmt: skip
def test_spans(seconds, text):
    assert span(seconds) == text


def test_times_and_seqs():
    assert when(1_761_667_200) == "2025-10-28 16:00:00 UTC"
    assert signed_at("1761667200000000000") == "2025-10-28 16:00:00 UTC"
    assert signed_at("7") == "seq 7"
    ns = 1_761_667_200 * 10**9
    for text in (str(ns), "2025-10-28T16:00", "2025-10-28 16:00:00 UTC", "2025-10-28T18:00+02:00"):
        assert moment_ns(text) == ns
    assert moment_ns("2025-10-28T16:00:00.000001") == ns + 1_000
    with pytest.raises(ConfigError, match="neither a time nor a seq"):
        moment_ns("yesterday")


def test_the_chain_of_authority():
    assert authority(ITEM) == "its own key"
    by = {"issuer": "abcd", "issued_until": 1_761_667_200}
    delegate = authority(ITEM | by | {"item_class": "delegate"})
    assert delegate == "delegated by abcd (the subject) until 2025-10-28 16:00:00 UTC"
    mirror = authority(ITEM | by | {"item_class": "mirror"})
    assert mirror == (
        "mirror, delegated by the network's authority abcd until 2025-10-28 16:00:00 UTC"
    )


def test_contents_in_a_line():
    assert content(ITEM) == "5 bytes"
    many = ITEM | {"kind": "manifest", "entries": 5_000, "size": 1_200_000, "in_blocks": True}
    assert brief_value(many) == content(many) == "5,000 entries, 1.2 MB"
    assert content(ITEM | {"entries": 1}) == "1 entry, 5 bytes"
    assert brief_value(ITEM | {"kind": "tombstone"}) == "deleted"
    assert brief_value(ITEM) == '"hello"'
    assert brief_value(ITEM | {"value": None}) == "hex 68656c6c6f"
    assert len(brief_value(ITEM | {"value": "x" * 500})) == 60
