"""A discovery server's directory and its feeding, with a real publisher, store and peer."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import msgspec

from namespaces_skywire.declarations import ALL, SVC
from skycore.contracts.dht import PutReport
from skycore.contracts.namespace import Namespaces
from skycore.contracts.registry import Listed, RegistryWrite
from skycore.contracts.store import PutOutcome
from skycore.discovery.directory import open_directory
from skycore.discovery.feeding import Outlet, open_feeding
from skycore.events import Events
from skycore.guards.gate import GateSettings, open_gate
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.model.delegation_token import encode_delegation
from skycore.model.entries import ServiceEntry
from skycore.model.items import Kind, make_delegation
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import InlineWorkers, MemoryFiles, SeededEntropy, identity
from skycore.testing.mirrors import PeersMirror
from skycore.wiring import Live
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings

AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(AUTHORITY))
ME = identity("server", NETWORK)
TABLE, SALT = "service-discovery", b"svc"
UNTIL = 1_800_000_000 + 20 * 86_400


def key(name):
    return bytes(identity(name, NETWORK).public)


def service(name, port=1, kind="vpn"):
    entry = ServiceEntry(address=f"{key(name).hex()}:{port}", type=kind)
    return Listed(entry.set_key, msgspec.json.encode(entry))


def listing(name, *ports, **more):
    put = tuple(service(name, port) for port in ports)
    return RegistryWrite(key(name), put=put, whole=True, **more)


def body_of(listed):
    return [msgspec.json.decode(entry.body, type=ServiceEntry) for entry in listed.entries]


class FlakyMirror(PeersMirror):
    """A mirror into a peer's gate that can be away."""

    is_down = False

    async def mirror(self, items, **more):
        if self.is_down:
            return [PutReport(PutOutcome(400, text="away")) for _ in items]
        return await super().mirror(items, **more)


class Side:
    """A server's directory and the node around it, and the peer that its mirror writes to."""

    def __init__(self, clock, me=ME):
        self.clock = clock
        self.me = me
        self.registry = DictRegistry(clock)
        self.files = MemoryFiles()
        self.namespaces = Namespaces(ALL)
        self.mirrors = []

    async def tell(self, *writes):
        await self.directory.write(writes)

    async def standing(self, gate=None):
        """Return what is published: ports by subject."""
        gate = gate or self.peer
        rows = await gate.listing(SALT, bytes(32), b"\xff" * 32, 10_000)
        return {
            row.item.subject: [int(e.address.rpartition(":")[2]) for e in SVC.decode(row.value)]
            for row in rows
            if row.item.kind != Kind.TOMBSTONE
        }

    def listed(self):
        return {
            one.subject: [int(e.address.rpartition(":")[2]) for e in body_of(one)]
            for one in self.directory
        }

    @asynccontextmanager
    async def gate(self, who):
        async with (
            open_memory_store(MemoryStoreSettings(), SeededEntropy()) as store,
            open_gate(
                GateSettings(), store, who, self.namespaces, self.clock, InlineWorkers(), Events()
            ) as gate,
        ):
            yield gate

    @asynccontextmanager
    async def feeding(
        self, *, salts=(SALT,), make_body=body_of, sweep_s=5.0, verify_s=60.0, until=UNTIL
    ):
        """Run the feeding; leave it and enter again for a restart."""
        tokens = [
            make_delegation(NETWORK, AUTHORITY, self.me.public, salt, until) for salt in salts
        ]
        settings = PublisherSettings(delegations=tuple(map(encode_delegation, tokens)))
        async with (
            open_publisher(
                settings,
                self.me,
                self.own,
                Live(self.mirrors),
                self.namespaces,
                self.clock,
                self.files,
            ) as publisher,
            open_directory(self.registry, TABLE, self.clock, sweep_s=sweep_s) as self.directory,
        ):
            outlet = Outlet(
                publisher, self.own, Live(self.mirrors), self.namespaces, self.me, self.clock,
                SeededEntropy(), self.files,
            )  # fmt: skip
            async with open_feeding(
                self.directory, SALT, make_body, outlet, name="svc", verify_s=verify_s
            ) as feeding:
                yield feeding


class BothHold(FlakyMirror):
    """As a real mirror: what it takes stands in this node's own store, too."""

    def __init__(self, name, peers, sender, own):
        super().__init__(name, peers, sender)
        self.own = own

    async def mirror(self, items, *, blocks=None, **more):
        if self.is_down:
            return await super().mirror(items, blocks=blocks, **more)
        given = tuple((blocks or {}).values())
        outcomes = await self.own.admit(items, sender=bytes(ME.public), blocks=given)
        reports = await super().mirror(items, blocks=blocks, **more)
        return [
            PutReport(outcome, report.replicas)
            for outcome, report in zip(outcomes, reports, strict=True)
        ]

    async def renew(self, leases):
        await self.own.renew(leases, sender=bytes(ME.public))
        return await super().renew(leases)


async def until(is_so, limit_s=120.0):
    with anyio.fail_after(limit_s):
        while not (await is_so()):
            await anyio.sleep(0.1)


async def equal(side):
    """Tell whether both sides say the same."""
    return await side.standing() == side.listed()


@asynccontextmanager
async def open_side(clock):
    """Yield a side with its own store and one peer, which its mirror writes to."""
    one = Side(clock)
    async with one.gate(ME) as one.own, one.gate(identity("peer", NETWORK)) as one.peer:
        one.mirror = BothHold("peer", [one.peer], bytes(ME.public), one.own)
        one.mirrors.append(one.mirror)
        yield one
