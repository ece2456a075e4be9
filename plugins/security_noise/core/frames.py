"""Frames of an established channel: `u16 length ‖ ciphertext`, any number of them at a time.

Why many at a time: at 64 KiB a frame the cipher takes 17 µs, so an await or a copy for each frame
would cost as much as the cipher. Sealing fills one buffer; opening takes whatever has arrived.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag

from security_noise.core.cipher import TAG_BYTES, CipherState
from skycore.errors import NonceExhaustedError, RemoteProtocolError, SkycoreError
from skycore.model.limits import FRAME_PLAINTEXT_MAX

__all__ = ["FrameOpener", "FrameSealer"]

_HEAD = 2
_OVER = _HEAD + TAG_BYTES
_SMALL = 2_048
_head = struct.Struct(">H").pack
_put_length = struct.Struct(">H").pack_into


class FrameSealer:
    """Turn bytes into frames, each as full as a frame may be but the last."""

    __slots__ = ("_cipher",)

    def __init__(self, cipher: CipherState) -> None:
        self._cipher = cipher

    def seal(self, data: bytes) -> bytearray:
        """Return the frames of `data`, in one buffer. Raises `NonceExhaustedError`."""
        size = len(data)
        if 0 < size <= _SMALL:  # a buffer and its views would cost more than this copy
            return bytearray(_head(size + TAG_BYTES) + self._cipher.encrypt(data))
        frames = -(-size // FRAME_PLAINTEXT_MAX)
        out = bytearray(size + frames * _OVER)
        at = 0
        with memoryview(data) as source, memoryview(out) as target:
            for start in range(0, size, FRAME_PLAINTEXT_MAX):
                part = source[start : start + FRAME_PLAINTEXT_MAX]
                sealed = len(part) + TAG_BYTES
                _put_length(out, at, sealed)
                at += _HEAD
                self._cipher.encrypt_into(part, target[at : at + sealed])
                at += sealed
        return out


class FrameOpener:
    """Turn bytes as they arrive, cut anywhere, into plaintext. Holds at most one frame's bytes.

    `scratch` is where frames are opened, and grows to one read's size; one serves all channels of
    a node, since opening never waits. After a bad frame every call raises the same error.
    """

    __slots__ = ("_cipher", "_failed", "_held", "_scratch")

    def __init__(self, cipher: CipherState, scratch: bytearray) -> None:
        self._cipher = cipher
        self._scratch = scratch
        self._held = bytearray()
        self._failed: SkycoreError | None = None

    @property
    def failed(self) -> SkycoreError | None:
        """The error that every further call would raise."""
        return self._failed

    @property
    def is_within_frame(self) -> bool:
        """Whether part of a frame has arrived and the rest has not."""
        return bool(self._held)

    def open(self, data: bytes) -> bytes:
        """Return the plaintext of every frame that `data` completes; empty if it completes none.

        What came before a bad frame is returned; the next call raises `RemoteProtocolError`
        (`NonceExhaustedError` where the frames of a key have run out).
        """
        if self._failed is not None:
            raise self._failed
        if not self._held and _OVER < len(data) <= _SMALL + _OVER:
            alone = self._open_alone(data)
            if alone is not None:
                return alone
        more = len(self._held) + len(data) - len(self._scratch)
        if more > 0:  # a node that only ever sees small packets keeps a small scratch
            self._scratch += bytes(more)
        size = 0
        with memoryview(data) as view, memoryview(self._scratch) as out:
            try:
                for sealed in self._frames(view):
                    with sealed:
                        end = size + len(sealed) - TAG_BYTES
                        self._cipher.decrypt_into(sealed, out[size:end])
                    size = end
            except InvalidTag:
                self._failed = RemoteProtocolError("a frame does not verify")
            except (RemoteProtocolError, NonceExhaustedError) as bad:
                self._failed = bad
            plain = bytes(out[:size])
        if self._failed is not None and not plain:
            raise self._failed
        return plain

    def _open_alone(self, data: bytes) -> bytes | None:
        """Open one whole small frame, as most reads are; None where `data` is not exactly that."""
        if len(data) - _HEAD != data[0] << 8 | data[1]:
            return None
        try:
            return self._cipher.decrypt(data[_HEAD:])
        except InvalidTag:
            self._failed = RemoteProtocolError("a frame does not verify")
        except NonceExhaustedError as over:
            self._failed = over
        raise self._failed

    def _frames(self, data: memoryview) -> Iterator[memoryview]:
        """Yield each complete ciphertext; keep the rest. Release a view before taking the next."""
        at, end, held = 0, len(data), self._held
        while held and at < end:  # first the frame that the last call left unfinished
            need = _HEAD if len(held) < _HEAD else _HEAD + _ciphertext_size(held, 0)
            part = data[at : at + need - len(held)]
            held += part
            at += len(part)
            if len(held) == need > _HEAD:
                with memoryview(held) as whole:
                    yield whole[_HEAD:]
                held.clear()
        while end - at >= _HEAD:
            start = at + _HEAD
            stop = start + _ciphertext_size(data, at)
            if stop > end:
                break
            yield data[start:stop]
            at = stop
        held += data[at:]


def _ciphertext_size(data: bytearray | memoryview, at: int) -> int:
    size = data[at] << 8 | data[at + 1]
    if size <= TAG_BYTES:  # a frame of nothing would be work without end for its reader
        raise RemoteProtocolError(f"a frame of {size} bytes; at least {TAG_BYTES + 1} are allowed")
    return size
