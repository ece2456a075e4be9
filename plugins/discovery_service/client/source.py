"""The service discovery as a source of services. What it says stands under no signature."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import msgspec

from discovery_service.entries import ANY_TYPE, service_of
from skycore.contracts.discovery import Record, Records
from skycore.contracts.http import HttpResponse
from skycore.contracts.runtime import Clock
from skycore.discovery.signed import SignedClient, accepted
from skycore.errors import DiscoveryError
from skycore.model.entries import ServiceEntry

__all__ = ["HttpServices"]

SALT = b"svc"
PATH = "/api/services"
LIFETIME_S = 300
"""How long a server keeps a service that is not repeated."""
ONE_BYTES_MAX = 1024 * 1024
ALL_BYTES_MAX = 8 * 1024 * 1024
AT_A_TIME = 256
"""Rows that are read before others have their turn."""
_row = msgspec.json.Decoder(dict[str, Any])


class HttpServices:
    """`contracts.discovery.EntrySource`; knows nothing where no server is set."""

    name = "http"
    is_local = False

    def __init__(self, client: SignedClient | None, clock: Clock) -> None:
        self.salts: frozenset[bytes] | None = frozenset((SALT,) if client else ())
        self._client = client
        self._clock = clock

    async def find(self, salt: bytes, subject: bytes) -> Record | None:
        """Ask what a key offers."""
        if self._client is None or salt != SALT:
            return None
        answer = await self._client.get(
            f"{PATH}/{subject.hex()}?type={ANY_TYPE}", body_bytes_max=ONE_BYTES_MAX
        )
        if answer.status == 404:
            return None
        by_subject, strange = await _read(accepted(answer))
        entries = by_subject.get(subject)
        if strange and not entries:
            raise DiscoveryError(f"{strange} of the service discovery's rows are no services")
        return self._record(subject, entries) if entries else None

    async def records(self, salt: bytes) -> Records:
        """Ask for all services. What is none is left out, and the answer is marked partial."""
        if self._client is None or salt != SALT:
            raise DiscoveryError(
                "no service discovery is set", hint="set discovery_service.url, or give --url"
            )
        answer = await self._client.get(f"{PATH}?type={ANY_TYPE}", body_bytes_max=ALL_BYTES_MAX)
        by_subject, strange = await _read(accepted(answer))
        found = [self._record(subject, by_subject[subject]) for subject in sorted(by_subject)]
        note = f"{strange} of its rows are no services" if strange else ""
        return Records(tuple(found), self.name, self._clock.wall_ns(), not strange, note)

    def _record(self, subject: bytes, entries: list[ServiceEntry]) -> Record:
        now_ns, until_s = self._clock.wall_ns(), self._clock.wall_s() + LIFETIME_S
        ordered = tuple(sorted(entries, key=lambda entry: entry.set_key))
        return Record(SALT, subject, ordered, now_ns, until_s, self.name)


async def _read(answer: HttpResponse) -> tuple[dict[bytes, list[ServiceEntry]], int]:
    """Return services by key, and how many rows are none."""
    rows: list[msgspec.Raw] = answer.json(list[msgspec.Raw])
    by_subject: dict[bytes, list[ServiceEntry]] = {}
    strange = 0
    for place, row in enumerate(rows):
        if not place % AT_A_TIME:
            await anyio.lowlevel.checkpoint()
        try:
            entry = service_of(_row.decode(row))
            subject = bytes.fromhex(entry.address.partition(":")[0])
        except (msgspec.DecodeError, ValueError, RecursionError):
            strange += 1
            continue
        by_subject.setdefault(subject, []).append(entry)
    return by_subject, strange
