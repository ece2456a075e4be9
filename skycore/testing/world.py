"""World: many whole nodes in one process, on one virtual clock, that repeat from a seed.

    async def scenario() -> None:
        async with World(seed=7) as world:
            await world.full_node()                       # the others start from it
            alice, bob = await world.spawn("visor", n=2)
            await world.until(lambda: alice.get(Dht).peer_count == 2, limit_s=60)

    simulate(scenario, seed=7)

Why whole nodes: what breaks in the field is lifecycle, wiring, timers and cut links, and those are
in no unit. A node here is `skycore.node.Node`, the one that runs on real sockets; only its seams
differ.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus

from skycore.model.keys import ED25519, PubKey, SecretKey, short
from skycore.node import Node, Seams
from skycore.settings import read_layers
from skycore.testing.fakes import InlineWorkers
from skycore.testing.loop import SimLoop
from skycore.testing.nat import Nat, NatKind
from skycore.testing.network import Link, SimNetwork
from skycore.testing.seams import SimClock, SimFiles, derived_entropy
from skycore.testing.trace import Trace

__all__ = ["Link", "SimNode", "World"]

T = TypeVar("T")
PORT = 7_777
POLL_S = 0.1
ROUNDING_S = 1e-6
INSTEAD: Mapping[str, str] = {"store_sqlite": "store_memory", "rpc_local": ""}
"""What needs a real disk or socket, and what a simulated node has in its place."""


class SimNode:
    """A node of a world: the host, key, disk and clock that outlive its runs, and the run."""

    def __init__(
        self, index: int, address: str, secret: SecretKey, settings: Mapping[str, Any]
    ) -> None:
        self.index, self.address = index, address
        self.secret, self.settings = secret, settings
        self.public: PubKey = ED25519.public(secret)
        self.clock = SimClock()
        self.nat: Nat | None = None
        """What it is behind; its `address` is then known to its own network only."""
        self.disk: dict[str, bytes] = {}
        self.starts = 0
        self.node: Node | None = None
        """The running node; None while it is down."""
        self.crash: Exception | None = None
        """What ended its last run, if nobody asked for the end."""
        self._files = SimFiles(self.disk)
        self._scope = anyio.CancelScope()
        self._told = anyio.Event()
        self._gone = anyio.Event()

    def __repr__(self) -> str:
        return f"<{self.name} {self.address} {'up' if self.node else 'down'}>"

    @property
    def name(self) -> str:
        """The first eight hex digits of its key, as in log lines."""
        return short(self.public)

    @property
    def contact(self) -> str:
        """`PK@host:port`, as bootstrap lists have it."""
        return f"{self.public.hex()}@{self.address}:{PORT}"

    def get(self, contract: type[T]) -> T:
        """Return a part of the running node, as `Node.get`."""
        if self.node is None:
            raise RuntimeError(f"{self!r} does not run")
        return self.node.get(contract)


class World:
    """Hosts, nodes and the network between them. `async with World(seed) as world: ...`.

    `settings` are sections that every node gets; what `spawn` is given wins over them. A node
    that crashes does not stop the world: the error is its `crash`, `until` raises it, and so does
    the end of the world unless you have set it to None.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        link: Link | None = None,
        settings: Mapping[str, Any] | None = None,
        keep_max: int = 0,
    ) -> None:
        self.seed = seed
        self.trace = Trace(keep_max)
        """Everything that moved on the network; compare `trace.digest` of two runs."""
        self.nodes: list[SimNode] = []
        self.seeds: list[SimNode] = []
        """Whom new nodes are told to start from: the first node of all, or the full nodes."""
        self.network: SimNetwork
        self._link, self._settings = link, settings or {}
        self._tasks: TaskGroup
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        if not isinstance(asyncio.get_running_loop(), SimLoop):
            raise RuntimeError(
                "a World needs virtual time: run it with skycore.testing.simulate, or let pytest's "
                "anyio_backend fixture return skycore.testing.sim_backend()"
            )
        self.network = SimNetwork(self.seed, self._link, trace=self.trace)
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(f"world seed={self.seed} t={anyio.current_time():.3f} s")
        self._tasks.cancel_scope.cancel()
        # The body's own error goes its way bare, not in the group that a task group would make.
        await self._stack.aclose()
        if error is None:
            self.check()

    # --- nodes -----------------------------------------------------------------------------------

    def prepare(
        self,
        profile: str | Path = "visor",
        n: int = 1,
        settings: Mapping[str, Any] | None = None,
        *,
        seeds: Sequence[SimNode] | None = None,
        nat: NatKind | Nat | None = None,
    ) -> list[SimNode]:
        """Make nodes that do not run yet: each a host, a key and a configuration.

        They start from `seeds`, else from the world's. A profile's SQLite store is replaced by
        one in memory, and its control socket is left out. A kind of NAT puts each behind one of
        its own, a NAT of `network.nat` all of them behind that one.
        """
        fresh = []
        for _ in range(n):
            index = len(self.nodes) + 1
            address = f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}"
            secret = ED25519.secret(derived_entropy(self.seed, "key", index).bytes(32))
            start_from = self.seeds if seeds is None else seeds
            merged = _merged(
                {
                    "transport_stcpr": {"listen": f"{address}:{PORT}"},
                    "dht_kademlia": {"bootstrap": [s.contact for s in start_from]},
                },
                self._settings,
                settings or {},
                {"node": {"profile": str(profile)}},
            )
            node = SimNode(index, address, secret, _simulated(merged))
            node.nat = (
                self.network.nat(nat, "100" + address[2:]) if isinstance(nat, NatKind) else nat
            )
            self.nodes.append(node)
            if not self.seeds:
                self.seeds.append(node)
            fresh.append(node)
        return fresh

    async def spawn(
        self,
        profile: str | Path = "visor",
        n: int = 1,
        settings: Mapping[str, Any] | None = None,
        *,
        seeds: Sequence[SimNode] | None = None,
        nat: NatKind | Nat | None = None,
        pause_s: float = 0.0,
    ) -> list[SimNode]:
        """Prepare nodes and start them, one after the other; return when all are ready.

        Without a pause (virtual seconds between two starts) all of them start at one time.
        """
        fresh = self.prepare(profile, n, settings, seeds=seeds, nat=nat)
        for node in fresh:
            await self.start(node)
            await anyio.sleep(pause_s)
        return fresh

    async def full_node(self, settings: Mapping[str, Any] | None = None) -> SimNode:
        """Start a full node; the nodes made after it start from it too."""
        (node,) = self.prepare("fullnode", 1, settings)
        if node not in self.seeds:
            self.seeds.append(node)
        await self.start(node)
        return node

    async def start(self, node: SimNode) -> None:
        """Start a node that is down, with its key and its disk; raises what keeps it from it."""
        if node.node is not None:
            raise RuntimeError(f"{node!r} runs already")
        node.starts += 1
        node.crash = None
        node._files = SimFiles(node.disk)
        node._scope, node._told, node._gone = anyio.CancelScope(), anyio.Event(), anyio.Event()
        await self._tasks.start(self._live, node, name=f"node {node.name}")

    async def stop(self, node: SimNode) -> None:
        """Stop a node as a signal would; return when it is down. Safe on one that is."""
        node._told.set()
        if node.node is not None:
            await node._gone.wait()

    async def kill(self, node: SimNode) -> None:
        """End a node as kill -9 would: no goodbye, nothing more reaches its disk."""
        node._files.is_dead = True
        node._scope.cancel()  # first: its tasks must not see their sockets break
        self.network.kill(node.address)
        if node.node is not None:
            await node._gone.wait()

    async def restart(self, node: SimNode) -> None:
        """Start a node again: the same key and disk, another instance. Stops it first."""
        await self.stop(node)
        await self.start(node)

    async def _live(self, node: SimNode, *, task_status: TaskStatus[None]) -> None:
        seams = Seams(
            clock=node.clock,
            entropy=derived_entropy(self.seed, "node", node.index, node.starts),
            network=self.network.host(node.address, node.nat),
            files=node._files,
            workers=InlineWorkers(),
        )
        gone = node._gone
        try:
            with node._scope:
                async with Node.open(
                    settings=node.settings, secret=node.secret, seams=seams
                ) as running:
                    node.node = running
                    task_status.started()
                    await node._told.wait()
        except Exception as error:
            if node.node is None:
                raise
            node.crash = error
        finally:
            node.node = None
            gone.set()

    # --- time and trouble ------------------------------------------------------------------------

    async def until(
        self, is_so: Callable[[], object], *, limit_s: float, what: str = "", step_s: float = POLL_S
    ) -> float:
        """Let time pass until a condition holds; return the virtual seconds that it took.

        Raises a crashed node's error at once, and `TimeoutError` after `limit_s`.
        """
        began = anyio.current_time()
        while not is_so():
            self.check()
            left_s = began + limit_s - anyio.current_time()
            if left_s < ROUNDING_S:  # a sleep of less might not move the clock
                raise TimeoutError(f"not so after {limit_s:g} s: {what or is_so}")
            await anyio.sleep(min(step_s, left_s))
        return anyio.current_time() - began

    def check(self) -> None:
        """Raise the errors of crashed nodes, if there are any."""
        crashes = [node.crash for node in self.nodes if node.crash is not None]
        if crashes:
            raise ExceptionGroup(f"nodes crashed (world seed={self.seed})", crashes)

    def partition(self, *groups: Iterable[SimNode]) -> None:
        """Cut groups of nodes from each other; a node in none or in several reaches everybody."""
        self.network.partition(*([node.address for node in group] for group in groups))

    def heal(self) -> None:
        """Mend every partition, cut, isolation and clog."""
        self.network.heal()


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for layer in layers:
        for section, values in layer.items():
            whole[section] = {**whole.get(section, {}), **values}
    return whole


def _simulated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Exchange the plugins that need a real machine."""
    node, _ = read_layers(assigned=settings)
    active = node.active()
    gone = [name for name in active if name in INSTEAD]
    added = [INSTEAD[name] for name in gone if INSTEAD[name] and INSTEAD[name] not in active]
    section = {
        **settings["node"],
        "enable": [*node.enable, *added],
        "disable": [*node.disable, *gone],
    }
    return {**settings, "node": section}
