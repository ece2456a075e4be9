"""Frames: whole bodies out of any pieces, and nothing allocated that a peer merely announced."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.errors import RemoteProtocolError, StreamError
from skycore.frames import FrameReader, frame


class Pieces:
    """A stream that yields given pieces, then its end."""

    def __init__(self, pieces):
        self.pieces = [p for p in pieces if p]

    async def receive(self, max_bytes=65_536):
        return self.pieces.pop(0) if self.pieces else b""


def cut(data, places):
    places = sorted({p % (len(data) + 1) for p in places})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def run(coroutine):
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


async def read_all(reader):
    bodies = []
    while (body := await reader.read()) is not None:
        bodies.append(body)
    return bodies


@given(
    bodies=st.lists(st.binary(min_size=1, max_size=60), max_size=8),
    places=st.lists(st.integers(0, 2_000), max_size=20),
)
def test_any_cut_of_the_bytes_gives_the_same_bodies(bodies, places):
    wire = b"".join(map(frame, bodies))
    reader = FrameReader(Pieces(cut(wire, places)), 60)
    assert run(read_all(reader)) == bodies


@pytest.mark.parametrize("header", ["00000000", "00000011", "ffffffff"])
def test_an_empty_or_oversize_frame_is_refused_before_its_body_is_read(header):
    source = Pieces([bytes.fromhex(header), b"x" * 100])
    with pytest.raises(RemoteProtocolError, match="1 to 16"):
        run(FrameReader(source, 16).read())
    assert source.pieces  # nobody read on


@pytest.mark.parametrize("cut_at", range(1, 9))
def test_an_end_inside_a_frame_is_an_error(cut_at):
    with pytest.raises(StreamError, match="inside a frame"):
        run(FrameReader(Pieces([frame(b"hello")[:cut_at]]), 16).read())


def test_the_end_between_frames_is_the_end():
    reader = FrameReader(Pieces([frame(b"a") + frame(b"b")]), 16)
    assert run(read_all(reader)) == [b"a", b"b"]
    assert run(reader.read()) is None


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_random_bytes_raise_only_named_errors(noise, places):
    reader = FrameReader(Pieces(cut(noise, places)), 32)
    with contextlib.suppress(RemoteProtocolError, StreamError):
        assert all(1 <= len(body) <= 32 for body in run(read_all(reader)))
