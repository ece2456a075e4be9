"""Whom a service's feeding has published: the only records that it may ever take back.

Why a list of its own, over restarts: this node publishes other things under the same salts, too (an
imported recording, a record put by hand), and a service that lists none of those must not delete
them. Lost marks cost little: such a record ends with its lease.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from skycore.contracts.runtime import Files

__all__ = ["FedSubjects"]

MARK_BYTES: Final = 8
MARKS_MAX: Final = 400_000
"""What a state file holds; beyond that nobody is marked."""


class FedSubjects:
    """A set of subjects, kept in the data folder as marks (the first bytes of a hash)."""

    def __init__(self, files: Files, salt: bytes) -> None:
        self._files, self._name = files, f"fed-{salt.hex()}.bin"
        data = files.read(self._name) or b""
        steps = range(0, len(data) - len(data) % MARK_BYTES, MARK_BYTES)
        self._marks = {data[at : at + MARK_BYTES] for at in steps}
        self._is_saved = True

    def __contains__(self, subject: bytes) -> bool:
        """Return whether the feeding published this subject, now or in an earlier run."""
        return _mark(subject) in self._marks

    def note(self, subject: bytes, *, stands: bool) -> None:
        """Note that a record was published, or taken back."""
        mark = _mark(subject)
        if stands == (mark in self._marks) or (stands and len(self._marks) >= MARKS_MAX):
            return
        (self._marks.add if stands else self._marks.discard)(mark)
        self._is_saved = False

    def save(self) -> None:
        """Write what changed since the last time."""
        if not self._is_saved:
            self._files.write(self._name, b"".join(sorted(self._marks)))
            self._is_saved = True


def _mark(subject: bytes) -> bytes:
    return sha256(subject).digest()[:MARK_BYTES]
