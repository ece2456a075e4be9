"""Frames: whatever the cuts, the same bytes; whatever the forgery, a named error."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security_noise.core.cipher import CipherState
from security_noise.core.frames import FrameOpener, FrameSealer
from skycore.errors import NonceExhaustedError, RemoteProtocolError
from skycore.model.limits import FRAME_PLAINTEXT_MAX

KEY = bytes(range(32))


def sealer(n: int = 0) -> FrameSealer:
    return FrameSealer(CipherState(KEY, n))


def opener(n: int = 0) -> FrameOpener:
    return FrameOpener(CipherState(KEY, n), bytearray())


def sizes(wire: bytes) -> list[int]:
    found = []
    while wire:
        (size,) = struct.unpack_from(">H", wire)
        found.append(size)
        wire = wire[2 + size :]
    return found


@pytest.mark.parametrize(
    ("size", "frames"),
    [
        (1, [17]),
        (FRAME_PLAINTEXT_MAX, [65_535]),
        (FRAME_PLAINTEXT_MAX + 1, [65_535, 17]),
        (200_000, [65_535, 65_535, 65_535, 200_000 - 3 * FRAME_PLAINTEXT_MAX + 16]),
    ],
)
def test_as_few_frames_as_fit(size: int, frames: list[int]) -> None:
    wire = bytes(sealer().seal(bytes(size)))
    assert sizes(wire) == frames
    assert opener().open(wire) == bytes(size)


def test_nothing_is_no_frame() -> None:
    assert sealer().seal(b"") == b""
    assert opener().open(b"") == b""


@given(
    st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8),
    st.lists(st.integers(1, 500), min_size=1, max_size=40),
)
def test_any_cut_gives_the_same_bytes(messages: list[bytes], cuts: list[int]) -> None:
    seal, reader = sealer(), opener()
    wire = b"".join(seal.seal(message) for message in messages)
    got, at, turn = b"", 0, 0
    while at < len(wire):
        step = cuts[turn % len(cuts)]
        got += reader.open(wire[at : at + step])
        at, turn = at + step, turn + 1
    assert got == b"".join(messages)
    assert not reader.is_within_frame


def test_t4891_one_byte_at_a_time() -> None:
    seal, reader = sealer(), opener()
    wire = bytes(seal.seal(b"first") + seal.seal(b"second"))
    got = [reader.open(wire[i : i + 1]) for i in range(len(wire))]
    assert [part for part in got if part] == [b"first", b"second"]


def test_big_data_in_socket_sized_reads() -> None:
    data = random.Random(3).randbytes(1_000_003)
    wire, reader = bytes(sealer().seal(data)), opener()
    got = b"".join(reader.open(wire[at : at + 262_144]) for at in range(0, len(wire), 262_144))
    assert got == data


@pytest.mark.parametrize("size", range(17))
def test_f1_a_frame_of_nothing_is_refused(size: int) -> None:
    reader = opener()
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes"):
        reader.open(struct.pack(">H", size))
    with pytest.raises(RemoteProtocolError):
        reader.open(bytes(sealer().seal(b"x")))


def test_f1_a_long_length_without_a_body_holds_two_bytes() -> None:
    reader = opener()
    assert reader.open(b"\xff\xff") == b""
    assert reader.is_within_frame
    assert len(reader._held) == 2


def test_f2_cut_at_every_offset() -> None:
    wire = bytes(sealer().seal(b"some bytes"))
    for keep in range(1, len(wire)):
        reader = opener()
        assert reader.open(wire[:keep]) == b""
        assert reader.is_within_frame
        assert reader.open(wire[keep:]) == b"some bytes"
        assert not reader.is_within_frame


def test_n2_every_flipped_bit_is_refused_or_waits() -> None:
    wire = bytes(sealer().seal(b"hello"))
    for bit in range(len(wire) * 8):
        bent = bytearray(wire)
        bent[bit // 8] ^= 1 << bit % 8
        reader = opener()
        try:
            assert reader.open(bytes(bent)) == b""
            assert reader.is_within_frame  # a longer length: more is waited for
        except RemoteProtocolError:
            assert reader.failed is not None


def test_n7_a_replayed_frame_is_refused() -> None:
    seal, reader = sealer(), opener()
    frame = bytes(seal.seal(b"once"))
    assert reader.open(frame) == b"once"
    with pytest.raises(RemoteProtocolError, match="does not verify"):
        reader.open(frame)


def test_n10_what_came_before_a_forged_frame_is_delivered_first() -> None:
    seal, reader = sealer(), opener()
    good, bad = bytes(seal.seal(b"good")), bytearray(seal.seal(b"bad"))
    bad[-1] ^= 1
    after = bytes(seal.seal(b"after"))
    assert reader.open(good + bytes(bad) + after) == b"good"
    for data in (b"", after):
        with pytest.raises(RemoteProtocolError):
            reader.open(data)


def test_n8_every_frame_has_a_number_of_its_own() -> None:
    """10,000 frames of the same byte: no two alike, so no (key, nonce) came twice."""
    seal = sealer()
    assert len({bytes(seal.seal(b"same")) for _ in range(10_000)}) == 10_000


def test_n9_the_last_frames() -> None:
    last = 2**64 - 3
    seal, reader = sealer(last), opener(last)
    wire = bytes(seal.seal(b"a") + seal.seal(b"b"))
    with pytest.raises(NonceExhaustedError):
        seal.seal(b"c")
    extra = b"\x00\x11" + bytes(17)
    assert reader.open(wire + extra) == b"ab"
    with pytest.raises(NonceExhaustedError):
        reader.open(b"")


def test_one_scratch_serves_all_channels() -> None:
    scratch = bytearray()
    readers = [FrameOpener(CipherState(KEY), scratch) for _ in range(3)]
    got = [reader.open(bytes(sealer().seal(bytes((i,)) * 100))) for i, reader in enumerate(readers)]
    assert got == [bytes((i,)) * 100 for i in range(3)]
    assert len(scratch) <= 200


def test_ten_thousand_random_frames() -> None:
    dice = random.Random(5)
    for _ in range(10_000):
        reader = opener()
        data = dice.randbytes(dice.choice((1, 2, 18, 40, 100)))
        try:
            assert reader.open(data) == b""
        except RemoteProtocolError:
            continue
        assert len(reader._held) == len(data)
