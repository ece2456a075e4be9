"""The node: read the configuration, load its plugins, plan, enter, run, leave.

    load profile -> import only its plugins -> collect settings models -> validate
      -> collect factories -> plan -> enter in order -> READY -> wait -> leave in reverse

Why `assemble` stands apart from `Node.open`: `skynode plan` and `skynode config` show what would
run without starting anything.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import anyio

from skycore.contracts.access import Access
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.rpc import Rpc
from skycore.contracts.runtime import (
    Clock,
    Entropy,
    Files,
    Identity,
    Lifecycle,
    Network,
    NodeInfo,
    OwnClock,
    Workers,
)
from skycore.contracts.settings import PluginSettings
from skycore.contracts.status import StatusSource
from skycore.contracts.store import Items, ItemStore
from skycore.contracts.transport import Transports
from skycore.errors import PluginConflictError, SkycoreError
from skycore.events import Events
from skycore.guards.access import open_access
from skycore.guards.clock import CorrectedClock
from skycore.guards.gate import GateSettings, open_gate
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.guards.rpc import open_rpc
from skycore.guards.timekeeper import open_timekeeper
from skycore.guards.transports import TransportsSettings, open_transports
from skycore.hookspecs import slots
from skycore.identity import load_identity, network_constants
from skycore.logs import node_name
from skycore.model.keys import SecretKey, short
from skycore.plugins import Plugins, installed
from skycore.runtime.clock import RealClock
from skycore.runtime.entropy import RealEntropy
from skycore.runtime.files import FolderFiles
from skycore.runtime.memory import MemoryFiles
from skycore.runtime.network import RealNetwork
from skycore.runtime.workers import ThreadWorkers
from skycore.settings import (
    IdentitySettings,
    Layers,
    NetworkSettings,
    NodeSettings,
    read_layers,
    validate,
)
from skycore.wiring import Plan, Provider, make_plan, running

__all__ = ["KERNEL_SECTIONS", "Assembly", "Node", "Seams", "assemble", "run", "until_told"]

T = TypeVar("T")
STOP_S: Final = 5.0
"""So long a node that was told to stop may take back what it told others, and say goodbye."""
log = logging.getLogger(__name__)

KERNEL_SECTIONS: Mapping[str, type[PluginSettings]] = {
    "node": NodeSettings,
    "network": NetworkSettings,
    "identity": IdentitySettings,
    "transports": TransportsSettings,
    "gate": GateSettings,
    "publisher": PublisherSettings,
}
GUARDS = (
    Provider(Transports, open_transports, "transports", on_demand=True),
    Provider(Items, open_gate, "gate", on_demand=True),
    Provider(Publisher, open_publisher, "publisher", on_demand=True),
    Provider(Rpc, open_rpc, "rpc", on_demand=True),
    Provider(Access, open_access, "access", on_demand=True),
    Provider(StatusSource, open_timekeeper, "clock"),
)
# What a node has only because something in it asks for it.
ON_DEMAND = frozenset(
    {
        "skycore_stores",
        "skycore_security",
        "skycore_transports",
        "skycore_http_routes",
        "skycore_registries",
    }
)
PRIVATE: Mapping[type, str] = {ItemStore: "gate"}


@dataclass(frozen=True)
class Seams:
    """Where a node touches the world: real by default, simulated in `skycore.testing`."""

    clock: Clock = field(default_factory=RealClock)
    entropy: Entropy = field(default_factory=RealEntropy)
    network: Network = field(default_factory=RealNetwork)
    files: Files = field(default_factory=MemoryFiles)
    workers: Workers = field(default_factory=ThreadWorkers)


@dataclass(frozen=True)
class Assembly:
    """A node put together on paper."""

    node: NodeSettings
    layers: Layers
    plugins: Plugins
    sections: Mapping[str, PluginSettings]
    namespaces: Namespaces
    plan: Plan
    idle: Sequence[Provider] = ()
    """What plugins offer and nothing here asks for: routes without an HTTP server, for example."""

    def section(self, name: str, model: type[T]) -> T:
        """Return a validated section."""
        return cast(T, self.sections[name])


def assemble(node: NodeSettings, layers: Layers) -> Assembly:
    """Load the plugins, validate their settings, and plan. Starts nothing. Raises by name."""
    plugins = Plugins(node.active())
    models = {**KERNEL_SECTIONS, **_models(plugins)}
    ignored = [name for name in installed() if name not in models]
    sections = validate(models, layers, ignored)
    namespaces = _namespaces(plugins)
    given = {type(s): s for s in sections.values()} | dict.fromkeys(_GIVEN)
    offered = _providers(plugins)
    plan = make_plan(
        [*GUARDS, *offered],
        given,
        private=PRIVATE,
        hint_for=lambda contract: _who_provides(contract, plugins),
    )
    idle = [provider for provider in offered if provider not in plan.needs]
    return Assembly(node, layers, plugins, sections, namespaces, plan, idle)


_GIVEN: Sequence[type] = (
    Clock, CorrectedClock, Entropy, Events, Files, Identity, Lifecycle, Namespaces, Network,
    NodeInfo, OwnClock, Workers,
)  # fmt: skip


def _models(plugins: Plugins) -> Mapping[str, type[PluginSettings]]:
    models = dict(plugins.answers("skycore_settings"))
    clash = sorted(set(models) & set(KERNEL_SECTIONS))
    if clash:
        raise PluginConflictError(f"plugin {clash[0]!r} has the name of a kernel section")
    return {name: cast(type[PluginSettings], model) for name, model in models.items()}


def _namespaces(plugins: Plugins) -> Namespaces:
    return Namespaces(n for _, found in plugins.answers("skycore_namespaces") for n in found)


def _providers(plugins: Plugins) -> list[Provider]:
    found = [
        Provider(contract, factory, plugin, on_demand=hook in ON_DEMAND)
        for hook, contract in slots().items()
        for plugin, factories in plugins.answers(hook)
        for factory in factories
    ]
    for plugin, services in plugins.answers("skycore_services"):
        for service in services:
            if isinstance(service, Provider):
                found.append(Provider(service.contract, service.factory, plugin, service.on_demand))
            else:
                found.append(Provider(object, service, plugin))
    return found


def _who_provides(contract: type, active: Plugins) -> str:
    """Return a hint naming installed, inactive plugins that provide a contract."""
    hooks = [hook for hook, offered in slots().items() if offered is contract]
    able = []
    for name in installed():
        if name in active.names or not hooks:
            continue
        with contextlib.suppress(SkycoreError):
            if any(True for hook in hooks for _ in Plugins([name]).answers(hook)):
                able.append(name)
    if not able:
        return "no installed plugin provides it"
    return f'add one of them: [node] enable = ["{able[0]}"]   (installed: {", ".join(able)})'


class _Lifecycle:
    """Told by Node.open when every part is up."""

    def __init__(self) -> None:
        self._up = anyio.Event()

    @property
    def ready(self) -> bool:
        return self._up.is_set()

    async def wait_ready(self) -> None:
        await self._up.wait()

    def up(self) -> None:
        self._up.set()


class Node:
    """A running node. `async with Node.open(profile="visor") as node: ...`."""

    def __init__(
        self, identity: Identity, assembly: Assembly, parts: Mapping[type, Sequence[Any]]
    ) -> None:
        self.identity = identity
        self.assembly = assembly
        self._parts = parts

    def get(self, contract: type[T]) -> T:
        """Return the one part that provides a contract. For embedders; plugins name their needs.

        Raises `SkycoreError` where this node has none.
        """
        found = self._parts.get(contract, ())
        if not found:
            raise SkycoreError(
                f"this node has no {contract.__name__}",
                hint=_who_provides(contract, self.assembly.plugins),
            )
        return cast(T, found[0])

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        profile: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        config: Path | None = None,
        data: Path | None = None,
        environment: Mapping[str, str] | None = None,
        secret: SecretKey | None = None,
        seams: Seams | None = None,
    ) -> AsyncIterator[Node]:
        """Run a node while the context lasts.

        `settings` are sections, as in a file, and win over everything. Without `data` the node
        has a new key and keeps nothing. Raises `ConfigError`, `PluginError` and `WiringError`
        before anything starts; a part that fails later ends the context with its error.
        """
        node, layers = read_layers(
            profile=str(profile) if profile else None,
            file=config,
            environment=environment,
            assigned=settings,
        )
        assembly = assemble(node, layers)
        seams = seams or Seams(files=FolderFiles(data) if data else MemoryFiles())
        network = network_constants(assembly.section("network", NetworkSettings))
        where = assembly.section("identity", IdentitySettings)
        identity = load_identity(network, where, seams.files, seams.entropy, secret)
        lifecycle = _Lifecycle()
        given = _given(assembly, seams, identity, lifecycle)
        node_name.set(short(identity.public))
        for part in assembly.idle:
            log.warning("not started, nothing here asks for it part=%s", part.name)
        async with running(assembly.plan, given) as parts:
            lifecycle.up()
            log.info("ready profile=%s parts=%d", node.profile, len(assembly.plan.order))
            try:
                yield cls(identity, assembly, parts)
            finally:
                log.info("stopping")


def _given(
    assembly: Assembly, seams: Seams, identity: Identity, lifecycle: Lifecycle
) -> Mapping[type, Any]:
    name = assembly.section("network", NetworkSettings).name
    info = NodeInfo(
        assembly.node.profile, tuple(assembly.plugins.names), metadata.version("skycore"), name
    )
    clock = CorrectedClock(seams.clock)
    return {
        Clock: clock,
        CorrectedClock: clock,
        Entropy: seams.entropy,
        Events: Events(),
        Files: seams.files,
        Identity: identity,
        Lifecycle: lifecycle,
        Namespaces: assembly.namespaces,
        Network: seams.network,
        NodeInfo: info,
        OwnClock: seams.clock,
        Workers: seams.workers,
    } | {type(s): s for s in assembly.sections.values()}


async def until_told(
    node: AbstractAsyncContextManager[object], signals: AsyncIterator[signal.Signals]
) -> None:
    """Run a node until a signal comes. How it ends: see `run`."""
    told, up = anyio.Event(), False
    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            async for number in signals:
                log.info("told to stop signal=%s", number.name)
                if not up or told.is_set():
                    tasks.cancel_scope.cancel()
                told.set()

        async def limit() -> None:
            await told.wait()
            await anyio.sleep(STOP_S)
            log.warning("stopping takes too long: the rest is not waited for")
            tasks.cancel_scope.cancel()

        tasks.start_soon(listen)
        tasks.start_soon(limit)
        async with node:
            up = True
            await told.wait()
        tasks.cancel_scope.cancel()


def run(
    profile: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    data: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a node until SIGINT or SIGTERM; return the exit code 0. Errors are raised.

    The first signal stops it part after part, so that each can still use those it needs: to take
    back what it told others, for example. A second one, one during the start, or `STOP_S`, which
    parts have for that together, stops it at once.
    """

    async def main() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            node = Node.open(profile, settings, config=config, data=data, environment=environment)
            await until_told(node, signals)

    anyio.run(main, backend_options={"use_uvloop": _has_uvloop()})
    return 0


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return False
    return True
