"""The control socket: real Unix sockets, permissions, dead nodes and second ones."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import asynccontextmanager

import anyio
import pytest

from rpc_local import service
from rpc_local.service import open_control_socket
from rpc_local.settings import RpcLocalSettings
from skycore.control import UnixListener, UnixStream, control_socket_path
from skycore.errors import (
    AccessDeniedError,
    AlreadyRunningError,
    ConfigError,
    RpcError,
    SkycoreError,
    TooManyRequestsError,
)
from skycore.jsonrpc import connect_control
from skycore.testing.fakes import AlwaysReady, FakeClock, MemoryFiles


class Registry:
    """As much of a registry as the socket needs."""

    def __init__(self):
        self.gate = anyio.Event()
        self.running = 0
        self.callers = []

    def methods(self):
        return []

    async def call_json(self, caller, name, params, progress=None):
        self.callers.append(caller)
        if name == "slow":
            self.running += 1
            try:
                await self.gate.wait()
            finally:
                self.running -= 1
        elif name == "progress":
            progress(1, 2, "half")
            for _ in range(20):  # time for the news to go out before the answer
                await anyio.lowlevel.checkpoint()
        return params


class Folder:
    """Files in a real folder."""

    def __init__(self, folder):
        self._folder = folder

    def path(self, name):
        return self._folder / name


@asynccontextmanager
async def running(folder, registry=None, lifecycle=None, **settings):
    files = Folder(folder) if folder else MemoryFiles()
    registry = registry or Registry()
    async with open_control_socket(
        RpcLocalSettings(**settings), files, registry, FakeClock(), lifecycle or AlwaysReady()
    ) as control:
        yield control


async def until(condition):
    with anyio.fail_after(10):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_a_local_user_calls_as_one(tmp_path):
    registry = Registry()
    async with running(tmp_path, registry), connect_control(tmp_path) as client:
        assert await client.call("echo", {"a": 1}) == {"a": 1}
    assert registry.callers[0].is_local


async def test_a_hundred_calls_at_once_over_one_connection(tmp_path):
    got = {}
    async with (
        running(tmp_path),
        connect_control(tmp_path) as client,
        anyio.create_task_group() as tasks,
    ):

        async def one(i):
            got[i] = await client.call("echo", {"i": i})

        for i in range(100):
            tasks.start_soon(one, i)
    assert got == {i: {"i": i} for i in range(100)}


async def test_a_large_call_and_answer_cross_whole(tmp_path):
    text = "x" * (3 * 2**20)
    async with running(tmp_path), connect_control(tmp_path) as client:
        assert (await client.call("echo", {"text": text}))["text"] == text


async def test_progress_crosses(tmp_path):
    told = []
    async with running(tmp_path), connect_control(tmp_path) as client:
        await client.call("progress", progress=lambda *news: told.append(news))
    assert told == [(1, 2, "half")]


async def test_only_its_user_can_open_it(tmp_path):
    async with running(tmp_path) as control:
        mode = control.path.stat().st_mode
        assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert not control.path.exists()


async def test_r6_another_user_is_refused_even_with_the_socket(tmp_path, monkeypatch):
    registry = Registry()
    async with running(tmp_path, registry):
        monkeypatch.setattr(UnixStream, "user", lambda stream: os.getuid() + 1)
        async with connect_control(tmp_path) as client:
            with pytest.raises(AccessDeniedError):
                await client.call("echo")
    assert not registry.callers


async def test_the_socket_of_a_dead_node_is_replaced(tmp_path):
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(control_socket_path(tmp_path)))
    dead.listen()
    dead.close()  # as a killed process leaves it
    async with running(tmp_path), connect_control(tmp_path) as client:
        assert await client.call("echo") == {}


async def test_a_second_node_on_the_folder_is_refused_by_name(tmp_path):
    async with running(tmp_path):
        with pytest.raises(AlreadyRunningError, match="already runs"):
            async with running(tmp_path):
                pass
        async with connect_control(tmp_path) as client:  # the first one lives on
            assert await client.call("echo") == {}
    async with running(tmp_path):
        pass


async def test_of_two_that_start_together_one_comes_up(tmp_path):
    outcomes = []

    async def start():
        try:
            async with running(tmp_path):
                outcomes.append("up")
                await until(lambda: len(outcomes) == 5)
        except AlreadyRunningError:
            outcomes.append("refused")

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(start)
    assert sorted(outcomes) == ["refused"] * 4 + ["up"]


async def test_somebody_elses_live_socket_is_not_taken_away(tmp_path):
    listener = UnixListener(control_socket_path(tmp_path))
    with pytest.raises(AlreadyRunningError):
        async with running(tmp_path):
            pass
    listener.close()


async def test_a_file_in_its_place_is_a_named_error(tmp_path):
    control_socket_path(tmp_path).write_text("not a socket")
    with pytest.raises(ConfigError, match="no control socket"):
        async with running(tmp_path):
            pass
    assert control_socket_path(tmp_path).read_text() == "not a socket"


async def test_a_path_too_long_for_a_socket_still_has_one(tmp_path):
    folder = tmp_path / ("a-long-name-" * 12)
    folder.mkdir()
    async with running(folder) as control:
        assert control.path.parent != folder
        assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
        async with connect_control(folder) as client:
            assert await client.call("echo") == {}
    assert not control.path.exists()
    control.path.with_suffix(".lock").unlink()


async def test_a_node_without_a_folder_has_no_socket():
    async with running(None) as control:
        assert control.path is None


class Starting:
    ready = False


async def test_it_answers_at_once_that_it_is_starting(tmp_path):
    lifecycle = Starting()
    async with running(tmp_path, lifecycle=lifecycle), connect_control(tmp_path) as client:
        with pytest.raises(RpcError, match="still starting"):
            await client.call("echo")
        lifecycle.ready = True
        assert await client.call("echo") == {}


async def test_r13_a_program_that_is_killed_ends_its_calls(tmp_path):
    registry = Registry()
    async with running(tmp_path, registry) as control, anyio.create_task_group() as tasks:

        async def program():
            async with connect_control(tmp_path) as client:
                await client.call("slow")

        tasks.start_soon(program)
        await until(lambda: registry.running)
        tasks.cancel_scope.cancel()
    await until(lambda: not registry.running)
    assert control.connections == 0


async def test_r13_also_while_the_node_lives_on(tmp_path):
    registry = Registry()
    async with running(tmp_path, registry) as control:
        with anyio.move_on_after(10) as scope:
            async with connect_control(tmp_path) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(client.call, "slow")
                await until(lambda: registry.running)
                scope.cancel()
        await until(lambda: not registry.running and not control.connections)


async def test_connections_are_bounded(tmp_path):
    async with running(tmp_path, connections_max=2) as control:
        async with connect_control(tmp_path) as one, connect_control(tmp_path) as two:
            await one.call("echo")
            await two.call("echo")
            async with connect_control(tmp_path) as three:
                with pytest.raises(TooManyRequestsError, match="2 programs"):
                    await three.call("echo")
        await until(lambda: not control.connections)
        async with connect_control(tmp_path) as again:
            assert await again.call("echo") == {}


async def test_when_the_node_stops_callers_are_told(tmp_path):
    registry, failed = Registry(), []

    async def program():
        async with connect_control(tmp_path) as client:
            try:
                await client.call("slow")
            except SkycoreError as lost:
                failed.append(lost)

    async with anyio.create_task_group() as tasks, running(tmp_path, registry):
        tasks.start_soon(program)
        await until(lambda: registry.running)
    assert len(failed) == 1


class Flaky:
    """A listener that lacks file descriptors for a while."""

    def __init__(self, listener, failures):
        self.listener = listener
        self.failures = failures

    async def accept(self):
        if self.failures:
            self.failures -= 1
            raise OSError(24, "Too many open files")
        return await self.listener.accept()

    def close(self):
        self.listener.close()


async def test_f9_a_lack_of_file_descriptors_is_waited_out(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "ACCEPT_PAUSE_S", 0)
    real = service._listen

    async def listen(path):
        return Flaky(await real(path), 3)

    monkeypatch.setattr(service, "_listen", listen)
    async with running(tmp_path), connect_control(tmp_path) as client:
        assert await client.call("echo") == {}
