"""The control socket: RPC for the user that runs the node, who may do everything.

Why a Unix socket of mode 0600 in a folder of mode 0700: file permissions say who may call, with no
token to leak and no port that a web page could reach. Where the system tells who is at the other
end (Linux), another user is refused even if he was handed the socket.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio

from rpc_local.settings import RpcLocalSettings
from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.runtime import Clock, Files, Lifecycle
from skycore.control import (
    SOCKET_NAME,
    UnixListener,
    UnixStream,
    connect_unix,
    control_socket_path,
    make_socket_folder,
)
from skycore.errors import (
    AccessDeniedError,
    AlreadyRunningError,
    ConfigError,
    TooManyRequestsError,
)
from skycore.jsonrpc import RpcServer

__all__ = ["ControlSocket", "open_control_socket"]

log = logging.getLogger(__name__)
ACCEPT_PAUSE_S = 0.5


class ControlSocket:
    """The open socket; `path` is None where the node has no data folder."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.connections = 0


@asynccontextmanager
async def open_control_socket(
    settings: RpcLocalSettings, files: Files, rpc: Rpc, clock: Clock, lifecycle: Lifecycle
) -> AsyncIterator[ControlSocket]:
    """Listen on the data folder's socket. Raises `AlreadyRunningError` where a node answers there.

    Answers from the first moment; until every part is up, with "still starting".
    """
    inside = files.path(SOCKET_NAME)
    if inside is None:
        yield ControlSocket(None)
        return
    path = control_socket_path(inside.parent)
    control = ControlSocket(path)
    make_socket_folder(path)
    with _only_one(path):
        listener = await _listen(path)
        try:
            async with anyio.create_task_group() as tasks:
                server = RpcServer(rpc, tasks, clock, lifecycle=lifecycle)
                tasks.start_soon(_Door(settings, control, server).stay_open, listener)
                log.info("control socket open path=%s", path)
                yield control
                tasks.cancel_scope.cancel()
        finally:
            listener.close()
            _unlink(path)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold a lock that the system drops when we die, however we die. `AlreadyRunningError`.

    The probe alone would let two nodes that start together both find nobody.
    """
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _running(path) from None
        yield
    finally:
        os.close(handle)


def _running(path: Path) -> AlreadyRunningError:
    return AlreadyRunningError(
        f"a node already runs on {path.parent}",
        hint="stop it, or give this one a folder of its own with --data",
    )


async def _listen(path: Path) -> UnixListener:
    await _refuse_second(path)
    try:
        return UnixListener(path)
    except OSError as bad:
        raise ConfigError(
            f"no control socket at {path}: {bad.strerror}",
            hint="the data folder must be on a file system that knows Unix sockets",
        ) from bad


async def _refuse_second(path: Path) -> None:
    """Raise `AlreadyRunningError` if a node listens there; else take its dead socket away."""
    try:
        stream = await connect_unix(path)
    except OSError as bad:
        if bad.errno == errno.ECONNREFUSED:
            _unlink(path)
        return
    await stream.aclose()
    raise _running(path)


def _unlink(path: Path) -> None:
    """Take a socket away: ours, or that of a node that is gone. Never anything else."""
    try:
        if path.is_socket():
            path.unlink()
    except OSError as bad:
        log.warning("cannot remove the control socket path=%s error=%r", path, bad.strerror)


class _Door:
    """Lets callers in: this user's (or root's), and a bounded number of them."""

    def __init__(
        self, settings: RpcLocalSettings, control: ControlSocket, server: RpcServer
    ) -> None:
        self._settings = settings
        self._control = control
        self._server = server

    async def stay_open(self, listener: UnixListener) -> None:
        """Accept for ever; a lack of file descriptors is waited out (F9)."""
        while True:
            try:
                stream = await listener.accept()
            except OSError as bad:
                log.warning("control socket cannot accept error=%r", bad.strerror)
                await anyio.sleep(ACCEPT_PAUSE_S)
            else:
                self._server.tasks.start(self.come_in, stream)

    async def come_in(self, stream: UnixStream) -> None:
        """Serve a connection, or say why not."""
        user = stream.user()
        if user is not None and user not in (os.getuid(), 0):
            self._server.malformed.warning("control socket refused user=%d", user)
            await self._server.refuse(stream, AccessDeniedError("this node is another user's"))
        elif self._control.connections >= self._settings.connections_max:
            await self._server.refuse(
                stream,
                TooManyRequestsError(
                    f"{self._control.connections} programs are connected to this node already",
                    hint="close one, or raise rpc_local.connections_max",
                ),
            )
        else:
            await self._serve(stream)

    async def _serve(self, stream: UnixStream) -> None:
        self._control.connections += 1
        try:
            await self._server.serve(stream, Caller())
        finally:
            self._control.connections -= 1
