"""What the registry's scripts are told and what they answer, as lists of strings.

Why plain strings: Lua in Redis has no integers of 64 bits. Times and stamps are 16 hex digits, so
comparing text is comparing numbers; subjects are hex, which people can read in `redis-cli`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mirror_redis.rows import hex64, number
from skycore.contracts.registry import (
    Beats,
    Listing,
    RegistryWrite,
    RegistryWritten,
)
from skycore.discovery.registries import beats_of, listing_of
from skycore.errors import StoreCorruptError, StoreError

__all__ = ["beats_from", "damaged", "listing_from", "write_words", "written_from"]

_SLOT_BYTES = 36


def write_words(write: RegistryWrite, now_ns: int) -> list[bytes]:
    """Return a write as the script reads it."""
    until = now_ns // 10**6 + max(0, int(write.lifetime_s * 1_000))
    flags = "".join(
        letter
        for letter, is_set in (
            ("w", write.whole), ("p", write.prolong), ("m", write.must_rise), ("b", write.beat),
        )
        if is_set
    )  # fmt: skip
    words = [
        write.subject.hex().encode(),
        flags.encode(),
        hex64(until),
        hex64(write.stamp) if write.stamp else b"",
        b"" if write.nonce is None else number(write.nonce),
        number(len(write.put)),
        number(len(write.remove)),
    ]
    for entry in write.put:
        words += entry
    words += write.remove
    return words


def listing_from(subject: bytes, flat: Sequence[bytes]) -> Listing:
    """Return a listing of `key, body, …`."""
    return listing_of(subject, dict(zip(flat[::2], flat[1::2], strict=True)))


def written_from(write: RegistryWrite, reply: Sequence[Any]) -> RegistryWritten:
    """Return what became of a write."""
    error, next_nonce, stamp, changed, removed, flat = reply
    return RegistryWritten(
        error=error.decode(),
        next_nonce=int(next_nonce),
        stamp=int(stamp, 16),
        changed=bool(changed),
        listing=listing_from(write.subject, flat) if changed else None,
        removed=tuple(removed),
    )


def beats_from(flat: Sequence[bytes]) -> dict[bytes, Beats]:
    """Return a day. Raises `StoreCorruptError`."""
    try:
        return {
            bytes.fromhex(subject.decode("ascii")): beats_of(
                held[:_SLOT_BYTES], int(held[_SLOT_BYTES:])
            )
            for subject, held in zip(flat[::2], flat[1::2], strict=True)
        }
    except ValueError as bad:
        raise damaged(bad) from bad


def damaged(bad: Exception) -> StoreError:
    """Return the error of what no server of ours wrote."""
    return StoreCorruptError(
        f"Redis holds what cannot be read as a registry: {bad}",
        hint="does another program write under this prefix?",
    )
