"""The control socket: where it lies, and a byte stream that speaks like a contracts Stream.

Why apart from skycore.jsonrpc: the node that listens and the command line that dials must agree
on one path, and the path must cost no heavy import. Used by plugins/rpc_local and `skynode`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

import anyio
from anyio.abc import ByteStream

from skycore.errors import ConfigError, StreamError

__all__ = ["SOCKET_NAME", "ByteLink", "control_socket_path", "make_socket_folder"]

SOCKET_NAME = "control.sock"
SOCKET_PATH_MAX = 100
"""Bytes. `sun_path` holds 108 on Linux and 104 elsewhere, its closing NUL included."""


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


class ByteLink:
    """An anyio byte stream with the manners of `contracts.streams.Stream`.

    The end of the stream is b"", and every way of failing is `StreamError`.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        """Send all. Raises `StreamError`."""
        try:
            await self._stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as lost:
            raise StreamError("the connection was lost") from lost

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return what is there, or b"" at the end. Raises `StreamError`."""
        try:
            return await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as lost:
            raise StreamError("the connection was lost") from lost

    async def aclose(self) -> None:
        """Close."""
        await self._stream.aclose()
