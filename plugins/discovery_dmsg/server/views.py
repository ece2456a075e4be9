"""Two faces of the directory: its servers alone, and one that takes in records of the DHT.

Why faces and not tables: one key has one entry, whoever brings it and whatever is published of it.
Only the servers' part goes under the salt `dmsg-server`; and what the DHT says is ordered by the
entries' own sequence numbers, as what arrives by HTTP is, so neither way overtakes the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from discovery_dmsg.server.rules import SERVER, deletion, held_in, registration
from discovery_dmsg.settings import DmsgServerSettings
from skycore.contracts.registry import Listing, RegistryWrite, RegistryWritten
from skycore.discovery.directory import Directory, DirectoryChanges
from skycore.errors import DecodeError
from skycore.model import dmsg_entry

__all__ = ["ServersOnly", "TakenInto"]


class _ServerChanges(DirectoryChanges):
    """Changes of subjects that are servers, or were when last asked."""

    def __init__(self, directory: Directory, changes: DirectoryChanges) -> None:
        super().__init__(set())
        self._directory, self._changes = directory, changes
        self._known: set[bytes] = set()

    async def take(self) -> set[bytes]:
        """Wait for changes of servers; at first, of all there are."""
        while True:
            changed = await self._changes.take()
            servers = set(self._directory.having(SERVER))
            wanted = {s for s in changed if s in servers or s in self._known}
            is_first, self._known = not self._known, servers
            if wanted or is_first:
                return wanted


class _Face(Directory):
    """A directory seen by another: what a face does not say otherwise is as the whole has it."""

    def __init__(self, whole: Directory) -> None:  # it has no state of its own
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


class ServersOnly(_Face):
    """A directory's servers, to be read."""

    def of(self, subject: bytes) -> Listing:
        """Return the listing of a server; an empty one for anybody else."""
        listing = self._whole.of(subject)
        is_server = any(entry.key == SERVER for entry in listing.entries)
        return listing if is_server else Listing(subject, ())

    def __iter__(self) -> Iterator[Listing]:
        """Iterate over the servers."""
        return iter([self._whole.of(subject) for subject in self._whole.having(SERVER)])

    def __len__(self) -> int:
        """Return how many servers there are."""
        return len(self._whole.having(SERVER))

    @contextmanager
    def subscribe(self) -> Iterator[DirectoryChanges]:
        """Learn which servers change."""
        with self._whole.subscribe() as changes:
            yield _ServerChanges(self._whole, changes)


class TakenInto(_Face):
    """A directory as records of the DHT see it: written by the rules of entries."""

    def __init__(self, directory: Directory, settings: DmsgServerSettings) -> None:
        super().__init__(directory)
        self._settings = settings

    async def write(self, writes: Sequence[RegistryWrite]) -> Sequence[RegistryWritten]:
        """Write what records say, as far as nothing newer is held. Raises `StoreError`."""
        wanted = [self._translated(write) for write in writes]
        done = iter(await self._whole.write([write for write in wanted if write is not None]))
        return [RegistryWritten() if write is None else next(done) for write in wanted]

    def _translated(self, write: RegistryWrite) -> RegistryWrite | None:
        held = held_in(self._whole.of(write.subject))
        if not write.put:
            if held is None or not held.is_live or held.entry.timestamp > write.stamp:
                return None
            return deletion(write.subject, held.entry, self._settings, must_rise=False)
        try:
            entry = dmsg_entry.decode(write.put[0].body)
        except DecodeError:
            return None
        if held is not None and not held.is_live and entry.sequence <= held.entry.sequence:
            return None  # deleted here since: what the DHT still says is older
        if held is not None and held.is_live and entry.sequence < held.entry.sequence:
            entry = held.entry  # what is newer stays; that the key is alive is news all the same
        written = registration(write.subject, entry, write.lifetime_s, must_rise=False)
        return msgspec.structs.replace(written, beat=write.beat)
