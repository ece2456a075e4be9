"""The HTTP side: what the service is told, and what it is seen to list.

Why closed transports are deleted by name: what a service lists ends by itself only after minutes,
and a route set up over a dead transport fails for somebody else (Skywire's #2224, #2305).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from discovery_transport.client.own import OwnTransports
from skycore.contracts.http import HttpResponse
from skycore.discovery.signed import SignedClient, accepted
from skycore.model.entries import TransportEntry

__all__ = ["RECORD_HEADER", "Listed", "Registrar", "read_entries"]

T = TypeVar("T")
RECORD_HEADER: Final = "sky-record-seq"
"""Of the answer to `edge:`: seq of the subject's own DHT record that the listing was taken from."""
BATCH: Final = 1_000
"""Entries in one request: about 230 kB."""
EDGE_BYTES_MAX: Final = 8 * 1024 * 1024


class Listed(NamedTuple):
    """What the service says that this node lists."""

    ids: frozenset[uuid.UUID]
    seq: int
    """Of the DHT record that the service took it from; 0: it did not, or does not say."""


class Registrar:
    """Tells the service, and knows what it was told."""

    def __init__(
        self, client: SignedClient, own: OwnTransports, public: bytes, timeout_s: float
    ) -> None:
        self._client, self._own, self._timeout_s = client, own, timeout_s
        self._path = f"/v3/transports/edge:{public.hex()}"
        self._may_list: set[uuid.UUID] | None = None
        """What the service may list of ours; None before it was asked: an earlier run's, too."""
        self.registrations = 0
        self.deletes = 0
        self.checks = 0

    async def register(self) -> None:
        """Say everything that is to be listed, and what no longer is.

        Raises `HttpError`, `RequestRefusedError`.
        """
        if self._may_list is None:
            self._may_list = set((await self.look()).ids)
        entries = self._own.entries
        ids = {entry.t_id for entry in entries}
        self._may_list |= ids  # before: without an answer nobody knows
        for batch in _batches(entries) if entries else [()]:  # none: still a sign of life
            self.registrations += 1
            body = msgspec.json.encode(batch)
            await self._send("/v3/transports/", body)
        await self._delete(sorted(self._may_list - ids))

    def expect(self, ids: Iterable[uuid.UUID]) -> None:
        """Learn what the service lists of ours: the next registration deletes what is gone."""
        if self._may_list is not None:
            self._may_list.update(ids)

    async def leave(self) -> None:
        """Take back everything: the node stops."""
        await self._delete(sorted(self._may_list or ()))

    async def look(self) -> Listed:
        """Ask what the service lists of this node. Raises as `register`."""
        self.checks += 1
        response = await self._client.get(
            self._path, timeout_s=self._timeout_s, body_bytes_max=EDGE_BYTES_MAX
        )
        entries = read_entries(accepted(response, 200, 404))
        text = response.headers.get(RECORD_HEADER, "")
        seq = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
        return Listed(frozenset(entry.t_id for entry in entries), seq)

    async def _delete(self, ids: Sequence[uuid.UUID]) -> None:
        for batch in _batches(ids):
            self.deletes += 1
            await self._send("/transports/delete-batch", msgspec.json.encode(batch))
            assert self._may_list is not None
            self._may_list.difference_update(batch)

    async def _send(self, path: str, body: bytes) -> None:
        accepted(await self._client.request("POST", path, body, timeout_s=self._timeout_s))


def read_entries(response: HttpResponse) -> list[TransportEntry]:
    """Return the entries of an answer; none of a 404. Raises `HttpReplyError`."""
    if response.status == 404:
        return []
    entries: list[TransportEntry] = response.json(list[TransportEntry])
    return entries


def _batches(things: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), BATCH):
        yield things[start : start + BATCH]
