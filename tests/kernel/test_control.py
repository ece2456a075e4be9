"""Where the control socket lies, and its folder."""

from __future__ import annotations

import os

import anyio
import pytest
from anyio.lowlevel import checkpoint

from skycore import control
from skycore.control import (
    SOCKET_NAME,
    UnixListener,
    connect_unix,
    control_socket_path,
    make_socket_folder,
)
from skycore.errors import ConfigError, StreamError


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


@pytest.fixture
async def ends(tmp_path):
    listener = UnixListener(tmp_path / "s")
    near = await connect_unix(tmp_path / "s")
    far = await listener.accept()
    yield near, far
    for end in (near, far):
        await end.aclose()
    listener.close()


async def test_a_socket_speaks_like_a_stream(ends):
    near, far = ends
    await near.send(b"hello")
    assert await far.receive() == b"hello"
    await near.aclose()
    assert await far.receive() == b""
    with pytest.raises(StreamError, match="lost"):
        await far.send(b"x")
    for broken in (near.receive(), near.send(b"x")):
        with pytest.raises(StreamError, match="closed"):
            await broken


async def test_closing_wakes_whoever_waits(ends):
    near, _ = ends
    woken = []

    async def wait(work):
        try:
            await work
        except StreamError as closed:
            woken.append(str(closed))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, near.receive())
        tasks.start_soon(wait, near.send(b"x" * 10_000_000))
        for _ in range(10):
            await checkpoint()
        await near.aclose()
    assert woken == ["the connection is closed"] * 2


async def test_f23_a_large_write_arrives_whole(ends):
    near, far = ends
    data = os.urandom(5_000_000)
    got = bytearray()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(near.send, data)
        while len(got) < len(data):
            got += await far.receive()
    assert got == data


async def test_the_system_tells_who_is_at_the_other_end(ends):
    for end in ends:
        assert end.user() in (os.getuid(), None)


async def test_a_socket_is_for_its_user_alone(tmp_path):
    listener = UnixListener(tmp_path / "s")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    listener.close()


async def test_nobody_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        await connect_unix(tmp_path / "s")
    UnixListener(tmp_path / "s").close()
    with pytest.raises(ConnectionRefusedError):
        await connect_unix(tmp_path / "s")
    with pytest.raises(OSError):
        UnixListener(tmp_path / "s")


async def test_a_node_that_does_not_accept_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "BACKLOG", 0)
    monkeypatch.setattr(control, "CONNECT_TIMEOUT_S", 0.05)
    listener = UnixListener(tmp_path / "s")
    first = await connect_unix(tmp_path / "s")
    with pytest.raises(TimeoutError):
        await connect_unix(tmp_path / "s")
    await first.aclose()
    listener.close()
