"""What the desks of signed requests have in common, from a proven request to one write.

Why a class to derive: the address resolver, the service and the transport discovery differ in what
is listed and how it is read, and in nothing of who may ask, how often, at what cost, and what a
refusal counts as. Every accepted write is one round trip, its nonce, entries and heartbeat together
(L7). DMSG discovery has a desk of its own kind: there entries sign themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from skycore.contracts.registry import RegistryWrite, RegistryWritten
from skycore.contracts.runtime import Clock, Identity, NodeInfo
from skycore.discovery.answers import Asked, Desk, ErrorShape, Handler, Reply, json_reply
from skycore.discovery.callers import Caller, Callers, CallerSettings
from skycore.discovery.directory import Directory
from skycore.discovery.quotas import SourceQuotas
from skycore.discovery.serving import CallerRates, once_loaded, started_at
from skycore.errors import RequestRefusedError
from skycore.model.keys import PubKey

__all__ = ["Route", "ServerDesk", "ServerSettings"]

Route = tuple[str, str, Handler]
"""Method, pattern, handler."""


class ServerSettings(CallerSettings):
    """Where such a server serves, whom it believes, how long what is listed lives."""

    prefix: str = ""
    """Path before all routes; "" puts them at the root, as upstream has them."""
    entry_lifetime_s: float = Field(300.0, ge=30, le=86_400)
    """How long what is listed lives if it is not repeated: at least three times the 90 s of
    visors."""
    sweep_s: float = Field(5.0, gt=0, le=300)
    """How often that whose life is over is ended."""
    requests_per_minute: float = Field(60.0, ge=0)
    """Signed requests of one key; 0 for no limit. The HTTP server bounds addresses besides."""
    burst: int = Field(20, ge=1)
    """How many may come at once before the rate counts."""
    callers_remembered_max: int = Field(10_000, ge=100)
    """Keys whose rate is counted; the one seen longest ago is forgotten first."""
    feed: bool = True
    """Publish what is listed to the mirrors: into the DHT, or to its Redis."""
    take: bool = True
    """List what visors publish of themselves in the DHT, while this node follows it."""
    verify_s: float = Field(60.0, ge=1)
    """How often what is listed here is compared with what stands in the DHT."""


class ServerDesk(ABC):
    """Answers requests. `app` is the ASGI application; a service adds its routes."""

    table: ClassVar[str]
    """Of the registry; also what the service is called."""
    name: ClassVar[str]
    """One word, for logs and routes: "tpd"."""
    salt: ClassVar[bytes]
    """Of the records that say the same in the DHT."""
    shape: ClassVar[ErrorShape]

    def __init__(
        self,
        settings: ServerSettings,
        directory: Directory,
        identity: Identity,
        info: NodeInfo,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.directory = directory
        self.counters: Counter[str] = Counter()
        """Requests by how they ended: `refused_STATUS`, `deregistered`, and the service's own."""
        self._callers = Callers(identity, settings)
        self._clock = clock
        self._info = info
        self._started_at = started_at(clock)
        self._rates = CallerRates(
            settings.requests_per_minute, settings.burst, settings.callers_remembered_max, clock
        )
        self._quotas = SourceQuotas(settings, directory, clock)
        routes = (
            *self.routes(),
            ("GET", "/security/nonces/{key}", self._nonce),
            ("GET", "/health", self._health),
        )
        loaded = once_loaded(routes, directory)
        self.app = Desk(self.shape, [(m, path, self._counted(h)) for m, path, h in loaded])

    @abstractmethod
    def routes(self) -> Iterable[Route]:
        """Return the service's own routes."""

    @abstractmethod
    def listed(self) -> tuple[str, Mapping[str, Any]]:
        """Return what is listed, in words and in the status' fields."""

    @abstractmethod
    def health(self) -> Mapping[str, Any]:
        """Return what `/health` tells besides what every service does."""

    def _counted(self, handler: Handler) -> Handler:
        async def counting(asked: Asked) -> Reply:
            try:
                return await handler(asked)
            except RequestRefusedError as refused:
                self.counters[f"refused_{refused.code}"] += 1
                raise

        return counting

    # --- who asks, and what is written ----------------------------------------------------------

    def proven(self, asked: Asked) -> Caller:
        """Return who signed a request, and count it. Raises `RequestRefusedError` (401, 429)."""
        caller = self._callers.prove(asked.scope, asked.body)
        self._rates.take(caller.public)
        return caller

    def monitor(self, asked: Asked) -> Caller:
        """Return which monitor signed a request, and count it. Raises `RequestRefusedError`."""
        monitor = self._callers.prove_monitor(asked.scope, asked.body)
        self._rates.take(monitor.public)
        return monitor

    async def write(self, caller: Caller, **said: Any) -> RegistryWritten:
        """Do what a caller says of itself, and use its nonce up, in one round trip.

        `said` are fields of `RegistryWrite`. Raises `RequestRefusedError` for a nonce that is not
        the next one and where the caller's address has no room left; `StoreError`.
        """
        write = RegistryWrite(caller.public, nonce=caller.nonce, **said)
        with self._quotas.admit(caller.public, caller.host, write.put, whole=write.whole):
            (written,) = await self.directory.write((write,))
            return self._rates.settle(caller.public, written)

    async def end(self, monitor: Caller, writes: Sequence[RegistryWrite]) -> None:
        """Do what a monitor says of others, until they list it again."""
        if monitor.nonce is not None:  # first: of a batch, each write stands by itself
            await self.write(monitor)
        written = await self.directory.write(writes)
        self.counters["deregistered"] += sum(len(one.removed) for one in written)

    def signs(self, asked: Asked) -> bool:
        """Tell whether a request claims to be signed: for routes where it need not be."""
        return self._callers.signs(asked.scope)

    def key(self, text: str) -> PubKey:
        """Read a key of this network. Raises `RequestRefusedError` (400)."""
        return self._callers.key(text)

    # --- routes that all have -------------------------------------------------------------------

    async def _nonce(self, asked: Asked) -> Reply:
        try:
            public = self.key(asked.path["key"])
        except RequestRefusedError as bad:
            return json_reply({"error": {"message": str(bad), "code": 400}}, 400)
        nonce = await self.directory.next_nonce(public)
        return json_reply({"edge": public.hex(), "next_nonce": nonce})

    async def _health(self, asked: Asked) -> Reply:
        told: dict[str, Any] = {
            "service_name": self.table,
            "build_info": {"version": self._info.version},
            "started_at": self._started_at,
            "dmsg_address": "",
            "dmsg_servers": [],
            "network": self._info.network,
            "trouble": self.directory.trouble,
        }
        return json_reply(told | dict(self.health()))
