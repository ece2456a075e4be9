"""Simulated visors: keys that register with real discovery services, without a node around each.

Why not nodes: a service sees requests, and a thousand processes would show nothing more of it. What
they send is what a visor sends, by the project's own signed client. Each remembers what it told, so
a network can be asked afterwards whether it says the same: nothing missing, nothing besides.
"""

from __future__ import annotations

import base64
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import anyio
import msgspec

from skycore.contracts.http import HttpClient, HttpResponse
from skycore.contracts.namespace import Namespaces
from skycore.contracts.runtime import Clock, Identity
from skycore.discovery.comparing import canonical
from skycore.discovery.signed import SignedClient, accepted
from skycore.errors import SkycoreError
from skycore.jsonrpc import Client
from skycore.model import dmsg_entry
from skycore.model.entries import (
    AddressBind,
    AddressEntry,
    DmsgClient,
    DmsgEntry,
    DmsgServer,
    DmsgServerEntry,
    ServiceEntry,
    TransportEntry,
)
from skycore.model.keys import PubKey
from skycore.model.packets import transport_id
from skycore.model.recording import Snapshot

__all__ = [
    "PREFIXES",
    "SALTS",
    "Content",
    "SimulatedFleet",
    "SimulatedVisor",
    "held_by",
    "visors_of_pairs",
    "visors_of_snapshot",
]

PREFIXES: Final = {"tp": "/tpd", "dmsg": "/dmsgd", "svc": "/sd", "addr": "/ar"}
"""Where the services are by default, by the salt of what they list."""
SALTS: Final = ("tp", "dmsg", "dmsg-server", "svc", "addr")
AT_ONCE: Final = 8
"""Visors that speak at a time."""
BATCH: Final = 1_000
LOOPBACK: Final = "127.0.0.1"
Content = dict[str, dict[str, bytes]]
"""By salt and subject (hex): what is said of it, in its one encoding without what moves."""


class SimulatedVisor:
    """A key, what it offers, and what of that it told."""

    def __init__(self, who: Identity) -> None:
        self.who = who
        self.key = who.public.hex()
        self.transports: dict[uuid.UUID, TransportEntry] = {}
        self.services: tuple[ServiceEntry, ...] = ()
        self.delegated: tuple[str, ...] = ()
        """Servers of a DMSG client; none: it is no client."""
        self.server: DmsgServer | None = None
        self.port = 0
        """Of its stcpr listener; 0: none."""
        self.clients: dict[str, SignedClient] = {}
        self.turn = anyio.Lock()
        """Whose it is says or takes back something: never both at once."""
        self._sequence = 0

    def link(self, other: PubKey, kind: str, label: str = "automatic") -> None:
        """List a transport to another key, as this side of it."""
        t_id = transport_id(self.who.public, other, kind)
        low, high = sorted((self.key, other.hex()))
        self.transports[t_id] = TransportEntry(t_id, (low, high), kind, label)

    @property
    def says(self) -> tuple[object, ...]:
        """Return what tells one state of it from another."""
        return self.transports, self.services, self.delegated, self.server, self.port

    def dmsg_entry(self, now_ns: int, *, deletes: bool = False) -> DmsgEntry:
        """Return its entry, signed now."""
        self._sequence = max(self._sequence + 1, now_ns // 1_000_000)
        entry = DmsgEntry(
            self.key,
            version=dmsg_entry.VERSION,
            sequence=self._sequence,
            timestamp=now_ns,
            client=DmsgClient(self.delegated) if self.delegated else None,
            client_type="visor" if self.delegated else "",
            server=self.server,
        )
        return dmsg_entry.sign(self.who.network, entry, self.who.sign, deletes=deletes)

    def bodies(self) -> Mapping[str, Any]:
        """Return what the network should say of this key, by salt."""
        told: dict[str, Any] = {}
        if self.transports:
            told["tp"] = tuple(self.transports.values())
        if self.services:
            told["svc"] = self.services
        if self.delegated or self.server:
            told["dmsg"] = self.dmsg_entry(1)
        if self.server:
            told["dmsg-server"] = DmsgServerEntry(
                self.key, self.server.address, dht_bootstrap=self.server.dht_bootstrap
            )
        if self.port:
            bind = AddressBind(port=str(self.port), remote_addr=LOOPBACK)
            told["addr"] = AddressEntry(pk=self.key, stcpr=bind)
        return told


class SimulatedFleet:
    """Visors by name, and the services at one base address that they register with.

    `served` are the salts (`PREFIXES`) whose services are there; the others are not asked.
    """

    def __init__(
        self,
        visors: Iterable[SimulatedVisor],
        http: HttpClient,
        url: str,
        clock: Clock,
        namespaces: Namespaces,
        served: Collection[str] = tuple(PREFIXES),
    ) -> None:
        self.visors = {visor.key: visor for visor in visors}
        self.served = frozenset(served)
        self.requests = 0
        self.http, self._url, self._clock, self._namespaces = http, url, clock, namespaces

    # --- what visors do --------------------------------------------------------------------------

    async def register(self, visors: Iterable[SimulatedVisor] | None = None) -> None:
        """Let visors (None: all) say everything. Raises `HttpError`, `RequestRefusedError`."""
        await self._each(self.visors.values() if visors is None else visors, self._register)

    async def keep(self, pause_s: float) -> None:
        """Repeat everything for ever, as visors do; a service that is away is asked again."""
        while True:
            with contextlib.suppress(SkycoreError):
                await self.register()
            await anyio.sleep(pause_s)

    async def leave(self, visors: Iterable[SimulatedVisor]) -> None:
        """Let visors take back what they said, and forget them. Raises as `register`."""
        gone = list(visors)
        self.forget(gone)
        await self._each(gone, self._leave)

    async def replace(self, visors: Iterable[SimulatedVisor]) -> None:
        """Let the fleet be these: others leave, new ones come, who changed says so.

        Raises as `register`.
        """
        wanted = {visor.key: visor for visor in visors}
        await self.leave([v for key, v in self.visors.items() if key not in wanted])
        changed = [v for v in self.visors.values() if v.says != wanted[v.key].says]
        await self._each(changed, lambda v: self._become(v, wanted[v.key]))
        came = [visor for key, visor in wanted.items() if key not in self.visors]
        self.visors |= {visor.key: visor for visor in came}
        await self.register([*changed, *came])

    def forget(self, visors: Iterable[SimulatedVisor]) -> None:
        """Let visors die: what they listed must end by itself."""
        for visor in visors:
            self.visors.pop(visor.key, None)

    async def unlink(self, visor: SimulatedVisor, ids: Sequence[uuid.UUID]) -> None:
        """Let a visor delete some of its transports. Raises as `register`."""
        async with visor.turn:
            for t_id in ids:
                visor.transports.pop(t_id, None)
            await self._signed(visor, "tp", "POST", "/transports/delete-batch", ids)

    async def _register(self, visor: SimulatedVisor) -> None:
        if visor.key not in self.visors:  # it left before its turn came
            return
        if visor.transports:
            rows = list(visor.transports.values())
            await self._signed(visor, "tp", "POST", "/v3/transports/", rows)
        if visor.services:
            await self._signed(visor, "svc", "POST", "/api/services", visor.services)
        if visor.port:
            bind = {"port": str(visor.port)}
            await self._signed(visor, "addr", "POST", "/bind/stcpr", bind)
        if visor.delegated or visor.server:
            await self._entry(visor, "POST")

    async def _leave(self, visor: SimulatedVisor) -> None:
        await self._become(visor, SimulatedVisor(visor.who))

    async def _become(self, visor: SimulatedVisor, other: SimulatedVisor) -> None:
        """Take back what another state of a visor lacks, and be in that state."""
        if ids := sorted(visor.transports.keys() - other.transports.keys()):
            await self._signed(visor, "tp", "POST", "/transports/delete-batch", ids)
        for service in () if other.services else visor.services:
            path = f"/api/services/{service.address}?type={service.type}"
            await self._signed(visor, "svc", "DELETE", path)
        if visor.port and not other.port:
            await self._signed(visor, "addr", "DELETE", "/bind/stcpr")
        if (visor.delegated or visor.server) and not (other.delegated or other.server):
            await self._entry(visor, "DELETE")
        for name in ("transports", "services", "port", "delegated", "server"):
            setattr(visor, name, getattr(other, name))

    async def _signed(
        self, visor: SimulatedVisor, salt: str, method: str, path: str, body: Any = None
    ) -> None:
        if salt not in self.served:
            return
        client = visor.clients.get(salt)
        if client is None:
            client = SignedClient(self.http, visor.who, self._url + PREFIXES[salt])
            visor.clients[salt] = client
        content = b"" if body is None else msgspec.json.encode(body)
        self.requests += 1
        accepted(await client.request(method, path, content))

    async def _entry(self, visor: SimulatedVisor, method: str) -> HttpResponse | None:
        if "dmsg" not in self.served:
            return None
        entry = visor.dmsg_entry(self._clock.wall_ns(), deletes=method == "DELETE")
        url = f"{self._url}{PREFIXES['dmsg']}/dmsg-discovery/entry"
        self.requests += 1
        body = dmsg_entry.encode(entry)
        return accepted(await self.http.request(method, url, body=body))

    async def _each(
        self,
        visors: Iterable[SimulatedVisor],
        do: Callable[[SimulatedVisor], Awaitable[None]],
    ) -> None:
        """Do something for each, some at a time; the first trouble is raised bare, at the end."""
        turns = anyio.Semaphore(AT_ONCE)
        troubles: list[SkycoreError] = []

        async def one(visor: SimulatedVisor) -> None:
            async with turns, visor.turn:
                if not troubles:
                    try:
                        await do(visor)
                    except SkycoreError as trouble:
                        troubles.append(trouble)

        async with anyio.create_task_group() as tasks:
            for visor in tuple(visors):
                tasks.start_soon(partial(one, visor))
        if troubles:
            raise troubles[0]

    # --- what the network should say -------------------------------------------------------------

    def expected(self) -> Content:
        """Return all that these visors said, as `held_by` reads it back."""
        salts = {*self.served, *(("dmsg-server",) if "dmsg" in self.served else ())}
        told: Content = {salt: {} for salt in SALTS if salt in salts}
        for visor in self.visors.values():
            for salt, body in visor.bodies().items():
                if salt in salts:
                    told[salt][visor.key] = canonical(self._namespaces, salt.encode(), body)
        return told


def visors_of_pairs(
    pairs: Iterable[tuple[int, int, str]], wanted: Collection[int], name: Callable[[int], Identity]
) -> dict[int, SimulatedVisor]:
    """Return the wanted visors of a list of transports, by number; both edges list each."""
    visors = {number: SimulatedVisor(name(number)) for number in sorted(wanted)}
    for one, other, kind in pairs:
        for number, far in ((one, other), (other, one)):
            if number in visors:
                visors[number].link(name(far).public, kind)
    return visors


def visors_of_snapshot(
    snapshot: Snapshot, servers: Mapping[str, str], name: Callable[[str], Identity]
) -> dict[str, SimulatedVisor]:
    """Return the visors of a recorded moment, by recorded key, each with a key of its own.

    `servers` are addresses of DMSG servers by recorded key. A recording does not tell by which
    servers a client is reached, nor at which port a visor listens: both are made up.
    """
    visors: dict[str, SimulatedVisor] = {}

    def at(key: str) -> SimulatedVisor:
        return visors.setdefault(key, SimulatedVisor(name(key)))

    for key, address in servers.items():
        at(key).server = DmsgServer(address, available_sessions=100)
    keys = [at(key).key for key in servers]
    for key in snapshot.dmsg_clients:
        if keys and at(key).server is None:
            at(key).delegated = (keys[_number(key) % len(keys)],)
    for service in sorted(snapshot.services, key=lambda one: one.set_key):
        key, _, port = service.address.partition(":")
        own = msgspec.structs.replace(service, address=f"{at(key).key}:{port}", local_ips=())
        at(key).services += (own,)
    for transport in snapshot.transports:
        one, other = transport.edges
        at(one).link(at(other).who.public, transport.type, transport.label)
        at(other).link(at(one).who.public, transport.type, transport.label)
    for key in (*snapshot.sudph, *snapshot.stcpr):
        at(key).port = 10_000 + _number(key) % 50_000
    return visors


def _number(key: str) -> int:
    """Return a number that is the key's own, so that one snapshot is like the next."""
    return int(key[-8:], 16)


async def held_by(node: Client, salts: Iterable[str], namespaces: Namespaces) -> Content:
    """Return what a node holds under some salts, read value by value over its own RPC.

    What a DMSG entry says must be signed by its key: raises `InvalidSignatureError` otherwise.
    """
    held: Content = {}
    for salt in salts:
        held[salt] = {}
        after = ""
        while True:
            asked = {"salt": salt, "limit": BATCH, "after": after}
            page = await node.call("dht.list", asked)
            assert not page["bad"], page["bad"]
            for row in page["items"]:
                value = await _value(node, row)
                if value is not None:
                    held[salt][row["subject"]] = _canonical(namespaces, salt, value)
            after = page["next"]
            if not after:
                break
    return held


def _canonical(namespaces: Namespaces, salt: str, value: bytes) -> bytes:
    namespace = namespaces.find(salt.encode())
    assert namespace is not None, salt
    return canonical(namespaces, salt.encode(), namespace.decode(value))


async def _value(node: Client, row: Mapping[str, Any]) -> bytes | None:
    """Return the value of a listed record, from its blocks where it stands in them."""
    if row["kind"] == "tombstone":
        return None
    if not row["in_blocks"]:
        return bytes.fromhex(row["value_hex"])
    value = bytearray()
    asked = {name: row[name] for name in ("subject", "salt", "digest")}
    while True:
        answer = await node.call("dht.value", asked | {"offset": len(value)})
        value += base64.b64decode(answer["piece"])
        if len(value) >= answer["total"]:
            return bytes(value)
