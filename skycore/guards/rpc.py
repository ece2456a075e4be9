"""The registry of RPC methods: the one way to call one, from the control socket or from afar.

Why a guard: access is judged here, once, before a byte of the parameters is decoded; a plugin
cannot forget it. Only what plugins declared can be called (R9): a name is a key in a dict, never
an attribute. All methods are known when the registry opens, so a clash stops the node's start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from skycore.contracts.access import Access, Level
from skycore.contracts.rpc import Caller, Progress, Rpc, RpcContext, RpcMethod, RpcService
from skycore.contracts.runtime import Clock
from skycore.errors import AccessDeniedError, LocalProtocolError, PluginConflictError, RpcError
from skycore.jsonrpc import ErrorCode, not_listed
from skycore.logs import LimitedLog
from skycore.model.keys import short

__all__ = ["open_rpc"]

log = logging.getLogger(__name__)


class MethodsParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to choose."""


class MethodRow(msgspec.Struct, frozen=True):
    """A method, for people and for programs that look around."""

    name: str
    level: str
    summary: str
    local_only: bool


class _Entry:
    """A method made ready to be called."""

    __slots__ = ("decoder", "method")

    def __init__(self, method: RpcMethod) -> None:
        _check_params(method)
        self.method = method
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(method.params)


def _check_params(method: RpcMethod) -> None:
    """Refuse a model that takes parameters by position, or ignores those it does not know."""
    config = getattr(method.params, "__struct_config__", None)
    if config is None or config.array_like or not config.forbid_unknown_fields:
        raise LocalProtocolError(
            f"rpc method {method.name!r}: params must be a Struct that refuses unknown fields",
            hint="class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True): ...",
        )


class _Rpc:
    def __init__(self, services: Sequence[RpcService], access: Access, clock: Clock) -> None:
        self._access = access
        self._refusals = LimitedLog(log, clock.now)
        self._entries: dict[str, _Entry] = {}
        own = RpcMethod(
            "rpc.methods",
            Level.READ,
            MethodsParams,
            list[MethodRow],
            self._list,
            "List the methods of this node.",
        )
        for method in (own, *(m for service in services for m in service.methods)):
            if method.name in self._entries:
                raise PluginConflictError(f"two plugins offer the rpc method {method.name!r}")
            self._entries[method.name] = _Entry(method)
        self._entries = dict(sorted(self._entries.items()))

    def methods(self) -> Sequence[RpcMethod]:
        return [entry.method for entry in self._entries.values()]

    async def _list(self, params: MethodsParams, context: RpcContext) -> list[MethodRow]:
        return [
            MethodRow(m.name, m.level.name.lower(), m.summary, m.local_only) for m in self.methods()
        ]

    async def call(
        self, caller: Caller, name: str, params: Any, progress: Progress | None = None
    ) -> Any:
        entry = self._admit(caller, name)
        try:
            given: Any = msgspec.convert({} if params is None else params, entry.method.params)
        except (msgspec.ValidationError, RecursionError) as bad:
            raise _unfit(name, bad) from None
        result = await entry.method.call(given, _context(caller, progress))
        # By way of JSON: to_builtins would leave tuples, which a remote caller never sees.
        return msgspec.json.decode(msgspec.json.encode(result))

    async def call_json(
        self, caller: Caller, name: str, params: bytes, progress: Progress | None = None
    ) -> bytes:
        entry = self._admit(caller, name)
        try:
            given = entry.decoder.decode(params)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as bad:
            raise _unfit(name, bad) from None
        result = await entry.method.call(given, _context(caller, progress))
        return msgspec.json.encode(result)

    def _admit(self, caller: Caller, name: str) -> _Entry:
        """Return the method, if this caller may call it. Who may nothing learns no names."""
        entry = self._entries.get(name)
        if caller.remote is not None:
            level = entry.method.level if entry else Level.READ
            if not self._access.allows(caller.remote, level):
                raise self._refused(caller, name, level)
            if entry is not None and entry.method.local_only:
                self._log_refusal(caller, name, "local only")
                raise AccessDeniedError(
                    f"{name} is for users of the node's own machine",
                    hint="call it there, with skynode",
                )
        if entry is None:
            raise RpcError(
                f"there is no method {name[:64]!r}",
                code=ErrorCode.METHOD_UNKNOWN,
                hint="rpc.methods lists what this node offers",
            )
        return entry

    def _refused(self, caller: Caller, name: str, level: Level) -> AccessDeniedError:
        remote = caller.remote
        assert remote is not None
        wanted = level.name.lower()
        self._log_refusal(caller, name, wanted)
        if level is Level.READ or not self._access.allows(remote, Level.READ):
            return not_listed(remote)
        return AccessDeniedError(
            f"not authorised: {name} needs the level {wanted}",
            hint="its operator can run: skynode visor whitelist add"
            f" {remote.hex()} --level {wanted}",
        )

    def _log_refusal(self, caller: Caller, name: str, level: str) -> None:
        assert caller.remote is not None
        self._refusals.warning(
            "rpc refused peer=%s method=%r level=%s", short(caller.remote), name[:64], level
        )


def _context(caller: Caller, progress: Progress | None) -> RpcContext:
    return RpcContext(caller) if progress is None else RpcContext(caller, progress)


def _unfit(name: str, bad: Exception) -> RpcError:
    return RpcError(
        f"the parameters do not fit {name}: {bad}",
        code=ErrorCode.INVALID_PARAMS,
        hint="parameters go by name; docs/protocols/rpc.md, and the README of the plugin",
    )


@asynccontextmanager
async def open_rpc(
    services: tuple[RpcService, ...], access: Access, clock: Clock
) -> AsyncIterator[Rpc]:
    """Gather the methods of all plugins. Raises `PluginConflictError` for a name taken twice.

    A plugin that offers methods and also needs the registry does so with two factories.
    """
    yield _Rpc(services, access, clock)
