"""The registry served to other nodes, over every carrier of streams.

Who calls is the stream's `remote`, which the transport's handshake proved; nothing in a call names
its sender (R3). A key that may not even read is told so and how to change it, and no method is
looked for. When the whitelist changes, streams of keys that are off it are cut (R5).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from skycore.contracts.access import Access, Level
from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.runtime import Clock, Lifecycle
from skycore.contracts.status import Health, Status, StatusSource
from skycore.contracts.streams import Service, Stream, StreamListener, Streams
from skycore.errors import StreamError
from skycore.jsonrpc import RpcServer, ServerLimits, not_listed
from skycore.logs import LimitedLog
from skycore.model.keys import short
from skycore.model.numbers import PacketType, Port
from skycore.tasks import every
from visor_rpc.settings import VisorRpcSettings

__all__ = ["VISOR_RPC", "VisorRpc", "open_status", "open_visor_rpc"]

log = logging.getLogger(__name__)
VISOR_RPC = Service("visor_rpc", PacketType.VISOR_RPC, Port.VISOR_RPC)


class VisorRpc:
    """What is served, and to whom."""

    def __init__(
        self, settings: VisorRpcSettings, server: RpcServer, access: Access, clock: Clock
    ) -> None:
        self.server = server
        self.refusals = LimitedLog(log, clock.now)
        self._access = access
        self._refusing_max = settings.refusing_max
        self._refusing = 0

    async def accept(self, listener: StreamListener, lifecycle: Lifecycle) -> None:
        """Take streams for as long as the listener gives any."""
        await lifecycle.wait_ready()
        while True:
            try:
                stream = await listener.accept()
            except StreamError:
                return
            if self._access.allows(stream.remote, Level.READ):
                self.server.take(stream, Caller(stream.remote))
            else:
                self.server.tasks.start(self._refuse, stream)

    def judge_again(self) -> None:
        """Cut the streams of keys that may not even read any more."""
        for remote in self.server.callers():
            if not self._access.allows(remote, Level.READ):
                cut = self.server.hang_up(remote)
                log.info("cut off: not whitelisted any more peer=%s streams=%d", short(remote), cut)

    async def hang_up_quiet(self) -> None:
        """Cut streams on which nothing happens."""
        self.server.hang_up_quiet()

    async def _refuse(self, stream: Stream) -> None:
        self.refusals.warning("rpc refused, not whitelisted peer=%s", short(stream.remote))
        if self._refusing >= self._refusing_max:
            await stream.aclose()
            return
        self._refusing += 1
        try:
            await self.server.refuse(stream, not_listed(stream.remote))
        finally:
            self._refusing -= 1


@asynccontextmanager
async def open_visor_rpc(
    settings: VisorRpcSettings,
    streams: tuple[Streams, ...],
    rpc: Rpc,
    access: Access,
    clock: Clock,
    lifecycle: Lifecycle,
) -> AsyncIterator[VisorRpc]:
    """Serve the registry on every carrier, once the node is up."""
    limits = ServerLimits(
        running_max=settings.running_max, open_max=settings.open_max, quiet_s=settings.quiet_s
    )
    async with AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(s.listen(VISOR_RPC)) for s in streams]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        served = VisorRpc(settings, RpcServer(rpc, tasks, clock, limits=limits), access, clock)
        stack.enter_context(access.on_change(served.judge_again))
        for listener in listeners:
            tasks.start_soon(served.accept, listener, lifecycle)
        pause_s = settings.quiet_s / 4
        tasks.start_soon(lambda: every(pause_s, served.hang_up_quiet, name="quiet rpc streams"))
        yield served
        tasks.cancel_scope.cancel()


class _Status:
    name = "visor_rpc"

    def __init__(self, served: VisorRpc) -> None:
        self._served = served

    async def status(self) -> Status:
        server = self._served.server
        return Status(
            Health.OK,
            f"{len(server.callers())} callers, {server.streams} streams",
            {
                "callers": len(server.callers()),
                "streams": server.streams,
                "calls": server.calls,
                "refused": self._served.refusals.count,
                "malformed": server.malformed.count,
            },
        )


@asynccontextmanager
async def open_status(served: VisorRpc) -> AsyncIterator[StatusSource]:
    """Tell what is served."""
    yield _Status(served)
