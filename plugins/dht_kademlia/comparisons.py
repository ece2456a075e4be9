"""What the DHT holds against what the HTTP services list, over and over: one number for a gauge.

Why a full node does it, and by itself: which of the two is right was the question that upstream
could never answer (L23). A node that has both sides can, at any time, at the price of a conditional
request for each list; somebody who looks only once something is wrong looks too late.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from dht_kademlia.settings import KademliaSettings
from skycore import Live
from skycore.contracts.dht import Dht
from skycore.contracts.discovery import EntrySource
from skycore.contracts.namespace import Namespaces
from skycore.contracts.runtime import Clock, Lifecycle
from skycore.discovery.comparing import WITHIN_S, Compared, Progress, compare
from skycore.errors import DiscoveryError, SkycoreError
from skycore.tasks import every

__all__ = ["Comparisons", "open_comparisons"]

log = logging.getLogger(__name__)
HERE: Final = "dht"
HTTP: Final = "http"
SOON_S: Final = 30.0
"""A node that has just become complete is looked at again after so long."""


class Comparisons:
    """Compares on demand, and remembers what the last rounds found."""

    def __init__(
        self, dht: Dht, sources: Live[EntrySource], namespaces: Namespaces, clock: Clock
    ) -> None:
        self._dht = dht
        self._sources = sources
        self._namespaces = namespaces
        self._clock = clock
        self._found: dict[bytes, Compared] = {}
        self._troubles: dict[bytes, str] = {}
        self._compared_at: float | None = None
        self._turn = anyio.Lock()

    # --- on demand -------------------------------------------------------------------------------

    def salts(self, name: str) -> list[bytes]:
        """Return what sources of a name know of, in order; of one that knows any, what is declared.

        Raises `DiscoveryError` where there is none of that name.
        """
        named = [source for source in self._sources if source.name == name]
        known = sorted({one.name for one in self._sources if one.salts != frozenset()} - {HERE})
        if not named or all(source.salts == frozenset() for source in named):
            raise DiscoveryError(
                f"this node has no source {name!r}" + (f", only {', '.join(known)}" * bool(known)),
                hint="set the url of a discovery service: [discovery_transport] url and the like",
            )
        salts: set[bytes] = set()
        for source in named:
            declared = {one.salt for one in self._namespaces}
            salts |= declared if source.salts is None else source.salts
        return sorted(salts)

    async def compare(
        self,
        name: str,
        salt: bytes,
        progress: Progress | None = None,
        within_s: float = WITHIN_S,
    ) -> Compared:
        """Compare the DHT with a source. Raises a SkycoreError where one of them cannot say.

        One look at a time: whoever asks for many makes himself wait, and not the services.
        """
        here, there = self._source(HERE, salt), self._source(name, salt)
        return await compare(
            here,
            there,
            salt,
            self._namespaces,
            progress=progress,
            within_s=within_s,
            turn=self._turn,
        )

    def _source(self, name: str, salt: bytes) -> EntrySource:
        for source in self._sources:
            if source.name == name and (source.salts is None or salt in source.salts):
                return source
        raise DiscoveryError(f"no source {name!r} knows of {salt!r}")

    # --- over and over ---------------------------------------------------------------------------

    @property
    def is_able(self) -> bool:
        """Whether this node has both sides."""
        return self._dht.is_complete and any(
            source.name == HTTP and source.salts for source in self._sources
        )

    async def look(self) -> None:
        """Compare every salt that an HTTP service lists."""
        if not self.is_able:
            self._found, self._troubles, self._compared_at = {}, {}, None
            return
        async with anyio.create_task_group() as tasks:
            for salt in self.salts(HTTP):
                tasks.start_soon(self._look, salt)
        self._compared_at = self._clock.now()

    async def _look(self, salt: bytes) -> None:
        try:
            found = await self.compare(HTTP, salt)
        except SkycoreError as trouble:
            self._troubles[salt] = str(trouble)[:200]
            return
        self._troubles.pop(salt, None)
        before = self._found.get(salt)
        self._found[salt] = found
        if found.different != (before.different if before else 0):
            log.info("against http salt=%r different=%d", salt.decode(), found.different)

    def status_fields(self) -> Mapping[str, Any]:
        """Return what the DHT's status adds; nothing where this node does not have both sides."""
        if self._compared_at is None:
            return {}
        salts = sorted(self._found.keys() | self._troubles.keys())
        return {
            "http_differences": sum(one.different for one in self._found.values()),
            "http_compared_s_ago": round(self._clock.now() - self._compared_at, 1),
            "http_troubles": len(self._troubles),
            "against_http": {salt.decode("utf-8", "replace"): self._said(salt) for salt in salts},
        }

    def _said(self, salt: bytes) -> Mapping[str, Any]:
        found = self._found.get(salt)
        return {
            "same": found.same if found else None,
            "different": found.different if found else None,
            "changing": found.changing if found else None,
            "subjects": [one.subject.hex() for one in found.divergences[:5]] if found else [],
            "trouble": self._troubles.get(salt, ""),
        }


@asynccontextmanager
async def open_comparisons(
    settings: KademliaSettings,
    dht: Dht,
    sources: Live[EntrySource],
    namespaces: Namespaces,
    clock: Clock,
    lifecycle: Lifecycle,
) -> AsyncIterator[Comparisons]:
    """Compare every `compare_interval_s` while this is a complete full node with HTTP sources."""
    comparisons = Comparisons(dht, sources, namespaces, clock)
    interval_s = settings.compare_interval_s

    def pause_s() -> float:
        return interval_s if comparisons.status_fields() else min(SOON_S, interval_s)

    async def run() -> None:
        await lifecycle.wait_ready()
        await every(pause_s, comparisons.look, name="dht against http")

    async with anyio.create_task_group() as tasks:
        if interval_s:
            tasks.start_soon(run)
        yield comparisons
        tasks.cancel_scope.cancel()
