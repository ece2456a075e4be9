"""visor.tp_rpc: call a method of another node, with this one's key and transports.

Why for local callers only: whoever could use it from afar would act under our key on every node
that trusts us (the confused deputy, R6). The registry refuses it by `local_only`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec

from skycore.contracts.access import Level
from skycore.contracts.rpc import Progress, RpcContext, RpcMethod, RpcService
from skycore.contracts.runtime import Identity
from skycore.contracts.streams import Stream, Streams
from skycore.errors import DialError, RpcError
from skycore.jsonrpc import Client
from skycore.model.keys import PubKey, parse_public, short
from visor_rpc.service import VISOR_RPC
from visor_rpc.settings import VisorRpcSettings

__all__ = ["open_proxy"]


class TpRpcParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to call, and what."""

    remote: str
    method: str
    params: dict[str, Any] = {}


class _Proxy:
    """One stream a call; all calls to a node share one transport and one session on it."""

    def __init__(
        self, settings: VisorRpcSettings, streams: Sequence[Streams], identity: Identity
    ) -> None:
        self._timeout_s = settings.call_timeout_s
        self._streams = streams
        self._identity = identity
        self.methods: Sequence[RpcMethod] = (
            RpcMethod("visor.tp_rpc", Level.ADMIN, TpRpcParams, object, self.tp_rpc,
                      "Call a method of another node over a transport.", local_only=True),
        )  # fmt: skip

    async def tp_rpc(self, params: TpRpcParams, context: RpcContext) -> Any:
        remote = parse_public(self._identity.network.suite, params.remote)
        if remote == self._identity.public:
            raise RpcError("this is the node's own key", hint="call the method directly")
        with anyio.move_on_after(self._timeout_s) as limit:

            def sign_of_life(done: int, total: int, text: str) -> None:
                limit.deadline = anyio.current_time() + self._timeout_s
                context.progress(done, total, text)

            return await self._call(remote, params, context, sign_of_life)
        raise RpcError(
            f"{short(remote)} gave no sign for {self._timeout_s:g} s",
            hint="is it up and reachable? skynode tp ls shows this node's transports",
        )

    async def _call(
        self, remote: PubKey, params: TpRpcParams, context: RpcContext, progress: Progress
    ) -> Any:
        context.progress(0, 0, f"reaching {short(remote)}")
        client = Client(await self._dial(remote))
        try:
            context.progress(0, 0, f"waiting for {params.method} of {short(remote)}")
            return await client.call(params.method, params.params, progress)
        finally:
            with anyio.CancelScope(shield=True):  # a stream's close never waits for the peer
                await client.aclose()

    async def _dial(self, remote: PubKey) -> Stream:
        trouble: list[DialError] = []
        for streams in self._streams:
            try:
                return await streams.dial(remote, VISOR_RPC)
            except DialError as bad:
                trouble.append(bad)
        raise DialError(
            f"cannot reach {short(remote)}: {'; '.join(str(bad) for bad in trouble) or 'no way'}",
            hint=next((bad.hint for bad in trouble if bad.hint), ""),
        )


@asynccontextmanager
async def open_proxy(
    settings: VisorRpcSettings, streams: tuple[Streams, ...], identity: Identity
) -> AsyncIterator[RpcService]:
    """Offer the method."""
    yield _Proxy(settings, streams, identity)
