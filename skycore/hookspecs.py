"""Every hook there is: what a plugin may add to a node.

Hooks declare, contracts act. A hook is a plain function without arguments that returns factories
(or plain values); it is called once, while a node is put together, and never while it runs. A
factory is an `@asynccontextmanager` function whose annotated parameters say what it needs. Import
what a hook returns inside the hook: then listing commands or plugins costs nothing.

Each hook's docstring says what to return, when the kernel asks, who sees it, which contract it
is, and the suite to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

if TYPE_CHECKING:
    from skycore.contracts.access import AccessPolicy
    from skycore.contracts.command import Command
    from skycore.contracts.dht import Dht, Mirror
    from skycore.contracts.discovery import EntrySource
    from skycore.contracts.http import HttpRoutes
    from skycore.contracts.namespace import Namespace
    from skycore.contracts.registry import Registry
    from skycore.contracts.rpc import RpcService
    from skycore.contracts.security import Security
    from skycore.contracts.settings import PluginSettings
    from skycore.contracts.status import StatusSource
    from skycore.contracts.store import ItemStore
    from skycore.contracts.streams import Streams
    from skycore.contracts.transport import TransportType

__all__ = ["PROJECT", "Factory", "NodeSpec", "hookimpl", "hookspec", "slots"]

PROJECT = "skycore"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

T = TypeVar("T")
Factory = Callable[..., AbstractAsyncContextManager[T]]


class NodeSpec:
    """The hooks. All are optional; the answers of all active plugins count."""

    @hookspec
    def skycore_settings(self) -> type[PluginSettings]:  # type: ignore[empty-body]
        """Return the model of your config section, named after the plugin. One at most.

        Asked first, before any factory. Your factories get the validated instance by annotating a
        parameter with the model.
        """

    @hookspec
    def skycore_stores(self) -> Iterable[Factory[ItemStore]]:  # type: ignore[empty-body]
        """Return where items can rest. A node has one store, when somebody needs it.

        Seen by the gate alone. Contract: `contracts.store.ItemStore`. Suite: `StoreContract`.
        """

    @hookspec
    def skycore_mirrors(self) -> Iterable[Factory[Mirror]]:  # type: ignore[empty-body]
        """Return where published entries must also be. Any number.

        Seen by the publisher. Contract: `contracts.dht.Mirror`. Suite: `MirrorContract`.
        """

    @hookspec
    def skycore_transports(self) -> Iterable[Factory[TransportType]]:  # type: ignore[empty-body]
        """Return ways to reach a node. Any number, each with a `name` of its own.

        Seen by the transport manager, which adds security. Contract:
        `contracts.transport.TransportType`. Suites: `TransportTypeContract`, and
        `RelayTypeContract` for one that leads through somebody else.
        """

    @hookspec
    def skycore_security(self) -> Iterable[Factory[Security]]:  # type: ignore[empty-body]
        """Return the secure channel. A node has one.

        Seen by the transport manager. Contract: `contracts.security.Security`. Suite:
        `SecurityContract`.
        """

    @hookspec
    def skycore_streams(self) -> Iterable[Factory[Streams]]:  # type: ignore[empty-body]
        """Return carriers of streams. Any number, each with a `name` of its own.

        Seen by the DHT and by RPC. Contract: `contracts.streams.Streams`. Suite: `StreamsContract`.
        """

    @hookspec
    def skycore_namespaces(self) -> Iterable[Namespace]:  # type: ignore[empty-body]
        """Return declarations of salts: values, not factories. Each salt is claimed once.

        Seen by the gate and by RPC. Contract: `contracts.namespace.Namespace`. Suite:
        `NamespaceContract`.
        """

    @hookspec
    def skycore_dht(self) -> Iterable[Factory[Dht]]:  # type: ignore[empty-body]
        """Return the DHT. A node has one or none; none is how a service says "no DHT".

        Contract: `contracts.dht.Dht`. Suite: `DhtContract`.
        """

    @hookspec
    def skycore_rpc_methods(self) -> Iterable[Factory[RpcService]]:  # type: ignore[empty-body]
        """Return methods to call. Any number; names are unique in a node.

        Seen by the RPC registry, which checks access and parameters. Contract:
        `contracts.rpc.RpcService`. Suite: `RpcServiceContract`.
        """

    @hookspec
    def skycore_access(self) -> Iterable[Factory[AccessPolicy]]:  # type: ignore[empty-body]
        """Return opinions on who may do what. Any number; with none, nobody remote may.

        Seen by the access guard. Contract: `contracts.access.AccessPolicy`. Suite:
        `AccessPolicyContract`.
        """

    @hookspec
    def skycore_status(self) -> Iterable[Factory[StatusSource]]:  # type: ignore[empty-body]
        """Return who has something to say in `visor info`. Any number, each with its own `name`.

        Contract: `contracts.status.StatusSource`. Suite: `StatusSourceContract`.
        """

    @hookspec
    def skycore_http_routes(self) -> Iterable[Factory[HttpRoutes]]:  # type: ignore[empty-body]
        """Return what the node's HTTP server serves. Any number, each with its own `prefix`.

        Seen by the HTTP server, if the node has one (`http_server`); without one they do not
        start. Contract: `contracts.http.HttpRoutes`. Suite: `HttpRoutesContract`.
        """

    @hookspec
    def skycore_discovery(self) -> Iterable[Factory[EntrySource]]:  # type: ignore[empty-body]
        """Return who can look up records. Any number, each with its own `name`.

        Seen by whoever looks for addresses, servers or transports, as `Live[EntrySource]`, so that
        no source waits for another. Contract: `contracts.discovery.EntrySource`. Suite:
        `EntrySourceContract`.
        """

    @hookspec
    def skycore_registries(self) -> Iterable[Factory[Registry]]:  # type: ignore[empty-body]
        """Return where discovery servers keep who lists what. A node has one, when one is needed.

        Seen by the discovery servers. Contract: `contracts.registry.Registry`. Suite:
        `RegistryContract`.
        """

    @hookspec
    def skycore_services(self) -> Iterable[Factory[Any] | Any]:  # type: ignore[empty-body]
        """Return background work: factories, or `Provider(MyContract, factory)`.

        A Provider adds a contract of your own, which your other factories, or another plugin that
        knows your package, can need. Suite: none; a service is tested with its plugin.
        """

    @hookspec
    def skycore_commands(self) -> Iterable[Command]:  # type: ignore[empty-body]
        """Return additions to the command line. Paths are unique.

        Asked only when a command line is being read; the code is imported when it is used.
        """


def slots() -> Mapping[str, type]:
    """Return which contract each hook's factories provide. Imported when a node is assembled."""
    from skycore.contracts.access import AccessPolicy
    from skycore.contracts.dht import Dht, Mirror
    from skycore.contracts.discovery import EntrySource
    from skycore.contracts.http import HttpRoutes
    from skycore.contracts.registry import Registry
    from skycore.contracts.rpc import RpcService
    from skycore.contracts.security import Security
    from skycore.contracts.status import StatusSource
    from skycore.contracts.store import ItemStore
    from skycore.contracts.streams import Streams
    from skycore.contracts.transport import TransportType

    return {
        "skycore_stores": ItemStore,
        "skycore_mirrors": Mirror,
        "skycore_transports": TransportType,
        "skycore_security": Security,
        "skycore_streams": Streams,
        "skycore_dht": Dht,
        "skycore_rpc_methods": RpcService,
        "skycore_access": AccessPolicy,
        "skycore_status": StatusSource,
        "skycore_http_routes": HttpRoutes,
        "skycore_discovery": EntrySource,
        "skycore_registries": Registry,
    }
