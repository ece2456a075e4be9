"""A disk in memory for SQLite that can lose power, fill up and fail.

Why: killing a process proves nothing about durability, because the kernel still has what was
written; only a disk that forgets what was not synced tells `synchronous=FULL` from OFF. It is a
VFS (sqlite.org/vfs.html) in Python, registered through ctypes in the very library that the sqlite3
module uses, so the store under test runs unchanged. It has no shared memory and no locks: a
connection on it must use `locking_mode=EXCLUSIVE`, as the store's does.
"""

from __future__ import annotations

import ctypes
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_double, c_int, c_int64, c_void_p
from typing import Any

__all__ = ["DiskUnavailableError", "SqliteDisk"]

_OK, _IOERR, _FULL, _CANTOPEN, _NOTFOUND = 0, 10, 13, 14, 12
_IOERR_SHORT_READ, _IOERR_WRITE, _IOERR_FSYNC = 522, 778, 1034
_OPEN_READONLY, _OPEN_READWRITE, _OPEN_CREATE = 1, 2, 4
_POWERSAFE_OVERWRITE = 0x1000
_SECTOR = 512


class DiskUnavailableError(RuntimeError):
    """The sqlite3 module's library cannot be reached through ctypes on this system."""


class _OpenFile(ctypes.Structure):
    _fields_ = (("methods", c_void_p), ("number", c_int64))


def _callback(*arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(c_int, *arguments)


_METHODS: list[tuple[str, Any]] = [
    ("close", _callback(POINTER(_OpenFile))),
    ("read", _callback(POINTER(_OpenFile), c_void_p, c_int, c_int64)),
    ("write", _callback(POINTER(_OpenFile), c_void_p, c_int, c_int64)),
    ("truncate", _callback(POINTER(_OpenFile), c_int64)),
    ("sync", _callback(POINTER(_OpenFile), c_int)),
    ("size", _callback(POINTER(_OpenFile), POINTER(c_int64))),
    ("lock", _callback(POINTER(_OpenFile), c_int)),
    ("unlock", _callback(POINTER(_OpenFile), c_int)),
    ("check_reserved", _callback(POINTER(_OpenFile), POINTER(c_int))),
    ("control", _callback(POINTER(_OpenFile), c_int, c_void_p)),
    ("sector_size", _callback(POINTER(_OpenFile))),
    ("characteristics", _callback(POINTER(_OpenFile))),
]


class _Methods(ctypes.Structure):
    _fields_ = (("version", c_int), *_METHODS)


_CALLS: list[tuple[str, Any]] = [
    ("open", _callback(c_void_p, c_char_p, POINTER(_OpenFile), c_int, POINTER(c_int))),
    ("delete", _callback(c_void_p, c_char_p, c_int)),
    ("access", _callback(c_void_p, c_char_p, c_int, POINTER(c_int))),
    ("full_path", _callback(c_void_p, c_char_p, c_int, c_void_p)),
    ("dl_open", c_void_p),
    ("dl_error", c_void_p),
    ("dl_symbol", c_void_p),
    ("dl_close", c_void_p),
    ("randomness", _callback(c_void_p, c_int, c_void_p)),
    ("sleep", _callback(c_void_p, c_int)),
    ("current_time", _callback(c_void_p, POINTER(c_double))),
    ("last_error", _callback(c_void_p, c_int, c_void_p)),
]


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("version", c_int),
        ("file_size", c_int),
        ("path_max", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        *_CALLS,
    )


class _File:
    """What reads see, what is safe, and what was written since."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.safe = b""
        self.unsynced: list[tuple[int, bytes | None]] = []
        """(offset, data), or (size, None) for a truncation."""

    def change(self, offset: int, data: bytes | None) -> None:
        _apply(self.seen, offset, data)
        self.unsynced.append((offset, data))

    def sync(self) -> None:
        self.safe = bytes(self.seen)
        self.unsynced.clear()

    def after_power_loss(self, dice: random.Random) -> bytes:
        """What is safe, and of the rest whatever the disk happened to have done."""
        content = bytearray(self.safe)
        share = dice.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        for offset, data in self.unsynced:
            if data is None:
                if dice.random() < share:
                    _apply(content, offset, None)
                continue
            for start in range(0, len(data), _SECTOR):
                if dice.random() < share:
                    _apply(content, offset + start, data[start : start + _SECTOR])
        return bytes(content)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class SqliteDisk:
    """The disk. Every connection that is opened inside `with disk.mounted():` is on it."""

    def __init__(self, seed: int = 0) -> None:
        self._dice = random.Random(seed)
        self._files: dict[bytes, _File] = {}
        self._open: dict[int, bytes] = {}
        self._opened = 0
        self.operations = 0
        """Writes and syncs so far."""
        self.power_lost_after: int | None = None
        """The operation from which on nothing works any more."""
        self.room: int | None = None
        """How many bytes all files may have together."""
        self.failing = False
        """Whether writes and syncs fail, as of a dying disk."""
        self.read_only = False
        try:
            self._library = ctypes.CDLL("libsqlite3.so.0")
            self._library.sqlite3_vfs_find.restype = c_void_p
        except (OSError, AttributeError) as bad:
            raise DiskUnavailableError(str(bad)) from bad
        self._build()

    def _build(self) -> None:
        self._methods = _Methods(
            1, *(kind(self._guarded(getattr(self, f"_{name}"))) for name, kind in _METHODS)
        )
        calls = (
            None if kind is c_void_p else kind(self._guarded(getattr(self, f"_vfs_{name}")))
            for name, kind in _CALLS
        )
        self._vfs = _Vfs(
            1, ctypes.sizeof(_OpenFile), 1024, None, b"skycore-%d" % id(self), None, *calls
        )

    def _guarded(self, method: Callable[..., int]) -> Callable[..., int]:
        # ctypes prints and drops exceptions; SQLite must be told that the call failed.
        def guarded(*arguments: Any) -> int:
            try:
                return method(*arguments)
            except OSError:
                return _IOERR

        return guarded

    @contextmanager
    def mounted(self) -> Iterator[SqliteDisk]:
        """Make this the disk that new connections use."""
        library = self._library
        before = c_void_p(library.sqlite3_vfs_find(None))
        library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)
        try:
            self._probe()
            yield self
        finally:
            library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
            library.sqlite3_vfs_register(before, 1)

    def _probe(self) -> None:
        """Open a connection where no real disk has a folder."""
        read_only, self.read_only = self.read_only, False
        try:
            connection = sqlite3.connect("/no such folder/probe.db")
            connection.execute("PRAGMA schema_version")
            connection.close()
        except sqlite3.OperationalError as bad:
            reason = "the sqlite3 module has a library of its own"
            raise DiskUnavailableError(reason) from bad
        finally:
            self.read_only = read_only

    def lose_power(self) -> None:
        """Forget what was not synced, all or some of it, in no order; then work again."""
        for file in self._files.values():
            file.seen = bytearray(file.after_power_loss(self._dice))
            file.sync()
        self.power_lost_after = None

    def _spend(self) -> None:
        self.operations += 1
        if self.power_lost_after is not None and self.operations > self.power_lost_after:
            raise OSError("no power")

    def _of(self, handle: Any) -> _File:
        return self._files[self._open[handle.contents.number]]

    # --- one open file --------------------------------------------------------------------------

    def _close(self, handle: Any) -> int:
        self._open.pop(handle.contents.number, None)
        return _OK

    def _read(self, handle: Any, into: int, size: int, offset: int) -> int:
        data = bytes(self._of(handle).seen[offset : offset + size])
        ctypes.memmove(into, data.ljust(size, b"\0"), size)
        return _OK if len(data) == size else _IOERR_SHORT_READ

    def _write(self, handle: Any, source: int, size: int, offset: int) -> int:
        self._spend()
        if self.failing:
            return _IOERR_WRITE
        file = self._of(handle)
        more = max(0, offset + size - len(file.seen))
        held = sum(len(f.seen) for f in self._files.values())
        if self.room is not None and more and held + more > self.room:
            return _FULL
        file.change(offset, ctypes.string_at(source, size))
        return _OK

    def _truncate(self, handle: Any, size: int) -> int:
        self._spend()
        self._of(handle).change(size, None)
        return _OK

    def _sync(self, handle: Any, flags: int) -> int:
        self._spend()
        if self.failing:
            return _IOERR_FSYNC
        self._of(handle).sync()
        return _OK

    def _size(self, handle: Any, out: Any) -> int:
        out[0] = len(self._of(handle).seen)
        return _OK

    def _lock(self, handle: Any, level: int) -> int:
        return _OK

    _unlock = _lock

    def _check_reserved(self, handle: Any, out: Any) -> int:
        out[0] = 0
        return _OK

    def _control(self, handle: Any, operation: int, data: int) -> int:
        return _NOTFOUND

    def _sector_size(self, handle: Any) -> int:
        return _SECTOR

    def _characteristics(self, handle: Any) -> int:
        return _POWERSAFE_OVERWRITE

    # --- the folder -----------------------------------------------------------------------------

    def _vfs_open(self, vfs: int, name: bytes | None, handle: Any, flags: int, out: Any) -> int:
        handle.contents.methods = None
        self._opened += 1
        path = name if name is not None else b"temporary-%d" % self._opened
        if path not in self._files and (self.read_only or not flags & _OPEN_CREATE):
            return _CANTOPEN
        self._files.setdefault(path, _File())
        self._open[self._opened] = path
        handle.contents.number = self._opened
        handle.contents.methods = ctypes.addressof(self._methods)
        if out and self.read_only:
            flags = flags & ~(_OPEN_READWRITE | _OPEN_CREATE) | _OPEN_READONLY
        if out:
            out[0] = flags
        return _OK

    def _vfs_delete(self, vfs: int, name: bytes, sync: int) -> int:
        self._spend()
        self._files.pop(name, None)
        return _OK

    def _vfs_access(self, vfs: int, name: bytes, flags: int, out: Any) -> int:
        out[0] = int(name in self._files)
        return _OK

    def _vfs_full_path(self, vfs: int, name: bytes, size: int, into: int) -> int:
        ctypes.memmove(into, name + b"\0", len(name) + 1)
        return _OK

    def _vfs_randomness(self, vfs: int, size: int, into: int) -> int:
        ctypes.memmove(into, self._dice.randbytes(size), size)
        return size

    def _vfs_sleep(self, vfs: int, microseconds: int) -> int:
        return _OK

    def _vfs_current_time(self, vfs: int, out: Any) -> int:
        out[0] = 2_460_000.5  # a Julian day; nothing here depends on it
        return _OK

    def _vfs_last_error(self, vfs: int, size: int, into: int) -> int:
        return _OK
