"""Whom a service's feeding has published: the only records that it may ever take back.

Why a list of its own, over restarts: this node publishes other things under the same salts, too (an
imported recording, a record put by hand), and a service that lists none of those must not delete
them.

Why marked before it is published, and not after: a process may die in between, and then nobody
would know that the record is ours to take back; it would stand until its lease ends. A mark without
a record does no harm: there is nothing to take back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import sha256
from itertools import islice
from typing import Final

from skycore.contracts.runtime import Files
from skycore.errors import StoreError

__all__ = ["FedSubjects"]

MARK_BYTES: Final = 8
MARKS_MAX: Final = 400_000
"""What a state file holds; beyond that nobody is marked."""

SPARE: Final = 1_000
"""Marks without a record that do not matter."""


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

    def begin(self, subjects: Iterable[bytes]) -> None:
        """Mark subjects that are about to be published, and save. Raises `StoreError`."""
        wanted = {_mark(subject) for subject in subjects} - self._marks
        fresh = set(islice(wanted, max(0, MARKS_MAX - len(self._marks))))
        if fresh:
            self._marks |= fresh
            self._is_saved = False
            try:
                self.save()
            except StoreError:
                self._marks -= fresh
                raise

    def end(self, subject: bytes) -> None:
        """Note that a record was taken back; saved with the next ones."""
        if (mark := _mark(subject)) in self._marks:
            self._marks.discard(mark)
            self._is_saved = False

    def trim(self, *known: Collection[bytes]) -> None:
        """Forget marks of nobody who is known, once they are most: saved with the next ones.

        A record whose lease ended while no service ran is taken back by nobody, and its mark would
        stay; after years of that there would be no room for others.
        """
        if len(self._marks) <= SPARE + 2 * sum(map(len, known)):
            return
        before = len(self._marks)
        self._marks &= {_mark(subject) for subjects in known for subject in subjects}
        self._is_saved = self._is_saved and len(self._marks) == before

    def save(self) -> None:
        """Write what changed since the last time. Raises `StoreError`; then the next one tries."""
        if not self._is_saved:
            self._files.write(self._name, b"".join(sorted(self._marks)))
            self._is_saved = True


def _mark(subject: bytes) -> bytes:
    return sha256(subject).digest()[:MARK_BYTES]
