"""Where the control socket lies, and its folder."""

from __future__ import annotations

import os

import anyio
import pytest

from skycore.control import SOCKET_NAME, ByteLink, control_socket_path, make_socket_folder
from skycore.errors import ConfigError, StreamError
from skycore.testing.fakes import stream_pair


def test_a_short_path_lies_in_the_folder(tmp_path):
    assert control_socket_path(tmp_path / "n") == (tmp_path / "n").resolve() / SOCKET_NAME


def test_a_long_path_is_hashed_into_the_runtime_folder(tmp_path):
    folder = tmp_path / ("long" * 30)
    path = control_socket_path(folder, runtime=tmp_path / "run")
    assert path.parent == tmp_path / "run"
    assert path == control_socket_path(folder, runtime=tmp_path / "run")
    assert path != control_socket_path(folder / "other", runtime=tmp_path / "run")
    assert len(os.fsencode(control_socket_path(folder))) <= 100


def test_every_spelling_of_a_folder_is_one_socket(tmp_path, monkeypatch):
    (tmp_path / "n").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "n")
    monkeypatch.chdir(tmp_path)
    spellings = ["n", "./n", "n/../n", "link", tmp_path / "n"]
    assert len({control_socket_path(type(tmp_path)(s)) for s in spellings}) == 1


def test_the_folder_is_made_for_its_owner_alone(tmp_path):
    make_socket_folder(tmp_path / "run" / "x.sock")
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    make_socket_folder(tmp_path / "run" / "x.sock")


def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(ConfigError, match="not this user's alone"):
        make_socket_folder(tmp_path / "run" / "x.sock")


def test_a_link_put_there_by_somebody_is_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError):
        make_socket_folder(tmp_path / "run" / "x.sock")


async def test_a_link_speaks_like_a_stream():
    one, other = stream_pair()
    near, far = ByteLink(one), ByteLink(other)
    await near.send(b"hello")
    assert await far.receive() == b"hello"
    await near.aclose()
    assert await far.receive() == b""
    with pytest.raises(StreamError):
        await far.send(b"x")


async def test_a_connection_that_breaks_is_a_stream_error(tmp_path):
    async with await anyio.create_unix_listener(tmp_path / "s") as listener:
        stream = await anyio.connect_unix(tmp_path / "s")
        await (await listener.accept()).aclose()
        link = ByteLink(stream)
        await link.aclose()
        for broken in (link.receive(), link.send(b"x")):
            with pytest.raises(StreamError):
                await broken
