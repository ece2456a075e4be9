"""RPC methods: one registry, from every plugin, called by the local user or by remote keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from skycore.contracts.access import Level
from skycore.model.keys import PubKey

__all__ = ["Caller", "Progress", "Rpc", "RpcContext", "RpcMethod", "RpcService"]

Progress = Callable[[int, int, str], None]
"""done, total (0 where unknown), what is being done."""


@dataclass(frozen=True)
class Caller:
    """Who calls: a remote key, proven by its transport, or (None) a user of this machine."""

    remote: PubKey | None = None

    @property
    def is_local(self) -> bool:
        """Whether the call came over the control socket."""
        return self.remote is None


@dataclass(frozen=True)
class RpcContext:
    """What a method may know besides its parameters."""

    caller: Caller
    progress: Progress = field(default=lambda done, total, text: None)


@dataclass(frozen=True)
class RpcMethod:
    """Declare a method. `call(params, context)` gets a validated `params` and returns `result`."""

    name: str
    level: Level
    params: type
    """A msgspec.Struct with `forbid_unknown_fields=True`; the registry refuses another."""
    result: type
    call: Callable[[Any, RpcContext], Awaitable[Any]]
    summary: str
    local_only: bool = False
    """For proxies: never for a remote caller, whatever its level."""


class RpcService(Protocol):
    """A plugin's methods. Names are unique in the node; clashes are refused at assembly."""

    methods: Sequence[RpcMethod]


class Rpc(Protocol):
    """The registry: finds, checks access once, validates, calls."""

    def methods(self) -> Sequence[RpcMethod]:
        """Return every method, by name."""
        ...

    async def call(
        self, caller: Caller, name: str, params: Any, progress: Progress | None = None
    ) -> Any:
        """Call by name with plain JSON data; return plain JSON data.

        Raises `AccessDeniedError` before anything of the method runs, `RpcError` with code -32601
        for an unknown method and -32602 for parameters that do not fit, and whatever
        `SkycoreError` the method itself raises.
        """
        ...

    async def call_json(
        self, caller: Caller, name: str, params: bytes, progress: Progress | None = None
    ) -> bytes:
        """Do the same with JSON text both ways: what servers use, without values in between.

        `params` is strict JSON already (skycore.jsonrpc): one document, no key twice.
        """
        ...
