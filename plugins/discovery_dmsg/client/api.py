"""DMSG discovery over HTTP, as a node asks it. What it answers is verified before it is believed.

Why every entry is verified again: a discovery server is somebody else's machine. What it lists is
kept only as far as the keys themselves signed it (L16); one bad entry hides no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import anyio
import anyio.lowlevel
import msgspec

from skycore.contracts.http import HttpClient, HttpResponse
from skycore.contracts.runtime import Clock, Identity
from skycore.discovery.signed import accepted
from skycore.errors import (
    DecodeError,
    DiscoveryError,
    HttpError,
    InvalidKeyError,
    InvalidSignatureError,
    RequestRefusedError,
)
from skycore.model import dmsg_entry
from skycore.model.entries import DmsgEntry
from skycore.model.keys import PubKey

__all__ = ["DmsgApi", "Signed", "is_refused"]

AT: Final = "/dmsg-discovery"
ENTRY_BYTES_MAX: Final = 64 * 1024
LIST_BYTES_MAX: Final = 8 * 1024 * 1024
ENTRIES_MAX: Final = 100_000
ENTRIES_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of everybody's entries together: a server may answer each question with as much as it likes."""
BATCH: Final = 512
AT_A_TIME: Final = 32
"""Entries that are verified (0.2 ms each) before others have their turn."""
NOT_HERE: Final = "not found"
"""What a path is told that is none: a wrong address, not a missing entry."""
FRESH_S: Final = 2.0
"""How long a list of servers answers further questions."""


class Signed(NamedTuple):
    """An entry, and the key that it was verified to be signed by."""

    public: PubKey
    entry: DmsgEntry


class DmsgApi:
    """One discovery server. Raises `HttpError`, `RequestRefusedError`, `DiscoveryError`."""

    def __init__(
        self, http: HttpClient, identity: Identity, clock: Clock, url: str, timeout_s: float
    ) -> None:
        self.url = url.rstrip("/")
        self.counters: Counter[str] = Counter()
        """`reads`, `unchanged` (304), `writes`, `failed`; `unverified` entries left out."""
        self._http, self._network, self._clock = http, identity.network, clock
        self._timeout_s = timeout_s
        self._servers: tuple[Signed, ...] = ()
        self._left_out = 0
        self._tag = ""
        self._read_at = float("-inf")

    # --- reading ---------------------------------------------------------------------------------

    async def entry(self, public: bytes) -> DmsgEntry | None:
        """Return a key's entry; None where it has none, or is no key at all."""
        try:
            self._network.suite.check_public(public)
        except InvalidKeyError:
            return None
        response = await self._get(f"/entry/{public.hex()}", ENTRY_BYTES_MAX)
        if response.status == 404 and _is_missing(response):
            return None
        found = self._read(accepted(response, 200).body)
        if found is None or found.public != public:
            raise DiscoveryError(f"{self.url} tells an entry that its key did not sign")
        return found.entry

    async def servers(self) -> tuple[tuple[Signed, ...], int]:
        """Return all servers' entries, and how many were left out for what they are."""
        if self._clock.now() - self._read_at < FRESH_S:
            return self._servers, self._left_out
        headers = {"if-none-match": self._tag} if self._tag else {}
        response = await self._get("/all_servers", LIST_BYTES_MAX, headers)
        if response.status == 304:
            self.counters["unchanged"] += 1
        elif response.status == 404 and _is_missing(response):
            self._servers, self._left_out, self._tag = (), 0, ""
        else:
            rows = accepted(response, 200).json(list[msgspec.Raw])
            signed, left_out = await self._verified([bytes(row) for row in rows])
            self._servers = tuple(row for row in signed if row.entry.server is not None)
            self._left_out = left_out + len(signed) - len(self._servers)
            self._tag = response.headers.get("etag", "")
        self._read_at = self._clock.now()
        return self._servers, self._left_out

    async def entries(self) -> tuple[tuple[Signed, ...], int]:
        """Return everybody's entries, and how many were left out for what they are."""
        response = await self._get("/entries", LIST_BYTES_MAX)
        keys: list[str] = list(dict.fromkeys(accepted(response, 200).json(list[str])))
        if len(keys) > ENTRIES_MAX:
            raise DiscoveryError(f"{self.url} tells of more than {ENTRIES_MAX} entries")
        found: list[Signed] = []
        left_out = size = 0
        for start in range(0, len(keys), BATCH):
            asked = keys[start : start + BATCH]
            path = f"{AT}/entries/batch"
            response = await self._ask(
                "POST", path, msgspec.json.encode(asked), bytes_max=LIST_BYTES_MAX
            )
            size += len(response.body)
            if size > ENTRIES_BYTES_MAX:
                raise DiscoveryError(f"{self.url} tells more than {ENTRIES_BYTES_MAX} bytes")
            rows = accepted(response, 200).json(dict[str, msgspec.Raw])
            told = [bytes(row) for row in islice(rows.values(), len(asked))]
            good, bad = await self._verified(told)
            found += good
            left_out += bad + len(rows) - len(told)
        return tuple(found), left_out

    async def _verified(self, bodies: Sequence[bytes]) -> tuple[tuple[Signed, ...], int]:
        """Return what is signed, each key's newest, and how many others there were."""
        newest: dict[bytes, Signed] = {}
        left_out = 0
        for place, body in enumerate(bodies):
            if not place % AT_A_TIME:
                await anyio.lowlevel.checkpoint()
            found = self._read(body)
            if found is None:
                left_out += 1
                continue
            known = newest.get(found.public)
            if known is None or known.entry.sequence < found.entry.sequence:
                newest[found.public] = found
        return tuple(newest.values()), left_out

    def _read(self, body: bytes) -> Signed | None:
        try:
            entry = dmsg_entry.decode(body)
            return Signed(dmsg_entry.verify(self._network, entry), entry)
        except (DecodeError, InvalidKeyError, InvalidSignatureError):
            self.counters["unverified"] += 1
            return None

    # --- writing ---------------------------------------------------------------------------------

    async def write(self, entry: DmsgEntry) -> None:
        """Register a signed entry."""
        await self._hand_in("POST", f"{AT}/entry/", entry)

    async def delete(self, entry: DmsgEntry) -> None:
        """Hand in a signed deletion."""
        await self._hand_in("DELETE", f"{AT}/entry", entry)

    async def _hand_in(self, method: str, path: str, entry: DmsgEntry) -> None:
        self.counters["writes"] += 1
        response = accepted(await self._ask(method, path, dmsg_entry.encode(entry)), 200)
        told: Any = response.json()
        if not isinstance(told, dict) or told.get("code") != 200:  # a page of somebody in between
            raise DiscoveryError(
                f"{self.url} does not answer like a DMSG discovery",
                hint="is the address right, its prefix included?",
            )

    # --- asking ----------------------------------------------------------------------------------

    async def _get(
        self, path: str, bytes_max: int, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        self.counters["reads"] += 1
        return await self._ask("GET", AT + path, headers=headers, bytes_max=bytes_max)

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        bytes_max: int = ENTRY_BYTES_MAX,
    ) -> HttpResponse:
        try:
            return await self._http.request(
                method,
                self.url + path,
                body=body,
                headers=headers,
                timeout_s=self._timeout_s,
                body_bytes_max=bytes_max,
            )
        except HttpError:
            self.counters["failed"] += 1
            raise


def _is_missing(response: HttpResponse) -> bool:
    """Tell an answer "there is none" from a wrong address, which is no answer at all."""
    try:
        told: Any = response.json()
    except HttpError:
        return False
    return isinstance(told, dict) and told.get("code") == 404 and told.get("message") != NOT_HERE


def is_refused(error: RequestRefusedError, *words: str) -> bool:
    """Tell whether a refusal is of an entry's rules, by upstream's words."""
    return error.code == 422 and any(word in str(error) for word in words)
