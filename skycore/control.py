"""The control socket: where it lies, and Unix sockets that speak like a contracts Stream.

Why apart from skycore.jsonrpc: the node that listens and the command line that dials must agree
on one path, and the path must cost no heavy import. Used by plugins/rpc_local and `skynode`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint

from skycore.errors import ConfigError, StreamError

__all__ = [
    "SOCKET_NAME",
    "UnixListener",
    "UnixStream",
    "connect_unix",
    "control_socket_path",
    "make_socket_folder",
]

SOCKET_NAME = "control.sock"
SOCKET_PATH_MAX = 100
"""Bytes. `sun_path` holds 108 on Linux and 104 elsewhere, its closing NUL included."""

BACKLOG = 128
CONNECT_TIMEOUT_S = 5.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: Linux's struct ucred


def _runtime_folder() -> Path:
    """Return this user's runtime folder; not from the environment, which services do not share."""
    user = os.getuid()
    own = Path(f"/run/user/{user}")
    return own if own.is_dir() else Path(tempfile.gettempdir()) / f"skynode-{user}"


def control_socket_path(folder: Path, *, runtime: Path | None = None) -> Path:
    """Return the socket of the node whose data folder this is.

    In the folder itself, or, where that path is longer than the system allows, under a name made
    from its hash in the user's runtime folder (`runtime`, for tests).
    """
    folder = folder.resolve()
    path = folder / SOCKET_NAME
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    return (runtime or _runtime_folder()) / f"skynode-{digest}.sock"


def make_socket_folder(path: Path) -> None:
    """Make sure that only this user can put things where the socket goes.

    Raises `ConfigError`: a folder in /tmp that somebody else made first is a trap.
    """
    folder = path.parent
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigError(
            f"{folder} is not this user's alone; no control socket can be put there",
            hint="use a --data folder with a shorter path, or remove that folder",
        )


class UnixStream:
    """A connected Unix socket with the manners of `contracts.streams.Stream`.

    The end of the stream is b"", and every way of failing is `StreamError`. One reader and one
    writer at a time; closing wakes both. Not anyio's own: that one (4.16) sets a future twice
    where a socket becomes readable in the turn in which its reader is cancelled.
    """

    __slots__ = ("_closed", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._closed = False

    async def send(self, data: bytes) -> None:
        """Send all. Raises `StreamError`."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await self._wait(anyio.wait_writable)
            except OSError as bad:
                raise self._lost(bad) from bad

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return what is there, or b"" at the end. Raises `StreamError`."""
        await checkpoint()  # a program that never stops sending must not hold up the node
        while True:
            try:
                return self._socket.recv(max_bytes)
            except BlockingIOError:
                await self._wait(anyio.wait_readable)
            except OSError as bad:
                raise self._lost(bad) from bad

    async def aclose(self) -> None:
        """Close at once. The system still delivers what was sent."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._socket)
            self._socket.close()

    def user(self) -> int | None:
        """Return the user id at the other end, or None where the system does not tell."""
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None:
            return None
        told = self._socket.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
        user: int = _CREDENTIALS.unpack(told)[1]
        return user

    async def _wait(self, until: Callable[[socket.socket], Awaitable[None]]) -> None:
        try:
            await until(self._socket)
        except anyio.ClosedResourceError as closed:
            raise StreamError("the connection is closed") from closed

    def _lost(self, bad: OSError) -> StreamError:
        return StreamError("the connection is closed" if self._closed else "the connection is lost")


class UnixListener:
    """A listening Unix socket, for its user alone (0600)."""

    def __init__(self, path: Path) -> None:
        """Bind. Raises `OSError`; a socket of that name must be gone already."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(os.fspath(path))
            path.chmod(0o600)  # before listen(): until then nobody can connect
            self._socket.listen(BACKLOG)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    async def accept(self) -> UnixStream:
        """Return the next connection. Raises `OSError` where descriptors run out."""
        while True:
            try:
                return UnixStream(self._socket.accept()[0])
            except BlockingIOError:
                await anyio.wait_readable(self._socket)

    def close(self) -> None:
        """Close. The path stays."""
        anyio.notify_closing(self._socket)
        self._socket.close()


async def connect_unix(path: Path) -> UnixStream:
    """Connect. Raises `OSError`; a full backlog is waited for, CONNECT_TIMEOUT_S at most."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with anyio.move_on_after(CONNECT_TIMEOUT_S):
            while True:
                try:
                    sock.connect(os.fspath(path))
                    return UnixStream(sock)
                except BlockingIOError:  # Unix sockets connect at once or not at all
                    await anyio.sleep(0.02)
        raise TimeoutError(errno.ETIMEDOUT, "it does not accept connections")
    except BaseException:
        sock.close()
        raise
