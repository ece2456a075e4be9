"""The data folder on a real disk."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from skycore.errors import ConfigError, LocalProtocolError, StoreError

__all__ = ["FILE_BYTES_MAX", "FolderFiles"]

FILE_BYTES_MAX = 4 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class FolderFiles:
    """Small state by name in one folder of mode 0700. `contracts.runtime.Files`.

    Raises `ConfigError` where the folder cannot be made private, `LocalProtocolError` for a name or
    size that no caller may use, `StoreError` where the disk fails.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = stat.S_IMODE(folder.stat().st_mode)
            if mode & 0o077:
                self._tighten(mode)
        except OSError as bad:
            raise ConfigError(
                f"the data folder {folder} cannot be used: {bad.strerror}",
                hint="choose another one with --data",
            ) from bad

    def _tighten(self, mode: int) -> None:
        """Close an empty folder to others; never touch one in which something else may live.

        Others may look into such a folder (our files are 0600), but not put things there.
        """
        if not any(self._folder.iterdir()):
            self._folder.chmod(0o700)
        elif mode & 0o022:
            raise ConfigError(
                f"others may write into the data folder {self._folder} (mode {mode:04o})",
                hint=f"chmod 700 {self._folder}, if it is this node's alone",
            )

    def path(self, name: str) -> Path | None:
        """Return where a library may open a file itself."""
        if not _NAME.fullmatch(name):
            raise LocalProtocolError(
                f"{name!r} is no file name", hint="letters, digits, '.', '_' and '-', 128 at most"
            )
        return self._folder / name

    def read(self, name: str) -> bytes | None:
        """Return the content, or None where there is none."""
        path = self.path(name)
        assert path is not None
        try:
            with path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as bad:
            raise StoreError(f"{path} cannot be read: {bad.strerror}") from bad
        if len(data) > FILE_BYTES_MAX:
            raise StoreError(f"{path} is over {FILE_BYTES_MAX} bytes: not a file of ours")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Replace the content as a whole: a crash leaves the old or the new, never a mix.

        Written beside it, flushed, renamed over it, and the rename flushed (the folder's own
        fsync): the order that ext4, xfs and btrfs all keep.
        """
        path = self.path(name)
        assert path is not None
        if len(data) > FILE_BYTES_MAX:
            raise LocalProtocolError(f"{name}: {len(data)} bytes; {FILE_BYTES_MAX} are allowed")
        beside = self._folder / f".{name}.new"
        try:
            self._write_through(beside, data)
            beside.replace(path)
            self._flush_folder()
        except OSError as bad:
            beside.unlink(missing_ok=True)
            raise StoreError(f"{path} cannot be written: {bad.strerror}") from bad

    def _write_through(self, path: Path, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(path, flags, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _flush_folder(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
