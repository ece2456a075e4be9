"""Dials that a server hands to this node: checked as if the server were an enemy, then answered.

Why a signed answer in every case: only with the destination's signature does a dialler believe that
it was accepted, and a refusal with a reason ends a wait that silence would not.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from relay_dmsg.client.carried import CarriedStream
from relay_dmsg.client.door import Door
from relay_dmsg.core.dials import Judged, SeenDials, judge, make_answer
from relay_dmsg.core.messages import Code, Dial, Message
from relay_dmsg.framing import read_message, send_message
from skycore.contracts.runtime import Clock, Identity
from skycore.contracts.streams import Stream, StreamListener
from skycore.errors import RemoteProtocolError, StreamError
from skycore.model.keys import short
from skycore.model.numbers import Port

__all__ = ["Inbound"]

log = logging.getLogger(__name__)
REQUEST_S = 5.0
GOODBYE_S = 1.0


class Inbound:
    """The destination's side of dials."""

    def __init__(
        self,
        identity: Identity,
        clock: Clock,
        door: Door,
        counters: Counter[str],
        is_server: Callable[[bytes], bool],
        tasks: TaskGroup,
        *,
        requests_max: int,
    ) -> None:
        self._identity = identity
        self._clock = clock
        self._door = door
        self._counters = counters
        self._is_server = is_server
        self._tasks = tasks
        self._requests_max = requests_max
        self._requests: Counter[bytes] = Counter()
        """Dials being answered, of each server: one that floods us takes nothing from others."""
        self.seen = SeenDials()

    async def accept(self, listener: StreamListener) -> None:
        """Take dials for as long as the listener gives any."""
        while True:
            try:
                stream = await listener.accept()
            except StreamError:
                return
            server = bytes(stream.remote)
            if self._requests[server] >= self._requests_max or not self._is_server(server):
                self._counters["dials_dropped"] += 1
                await stream.aclose()
                continue
            self._requests[server] += 1
            self._tasks.start_soon(self._take, stream)

    async def _take(self, stream: Stream) -> None:
        kept = False
        try:
            message: Message | None = None
            with anyio.move_on_after(REQUEST_S):
                message = await read_message(stream)
            if isinstance(message, Dial):
                kept = await self._answer(stream, message)
            else:
                self._counters["dials_malformed"] += 1
        except RemoteProtocolError as bad:
            self._counters["dials_malformed"] += 1
            log.debug("bad dial server=%s error=%r", short(stream.remote), str(bad))
        except StreamError:
            pass
        finally:
            server = bytes(stream.remote)
            self._requests[server] -= 1
            if not self._requests[server]:
                del self._requests[server]
            if not kept:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()

    async def _answer(self, stream: Stream, dial: Dial) -> bool:
        """Accept or refuse; tell whether the stream is somebody else's now."""
        judged = self._judge(dial, stream.remote)
        if judged.code == Code.ACCEPTED and not self._door.promise():
            judged = judged._replace(code=Code.BUSY, reason="too many connections wait already")
        answer = make_answer(self._identity, dial, judged.code, judged.reason)
        if judged.code != Code.ACCEPTED:
            self._counters["dials_refused"] += 1
            await send_message(stream, answer)
            await stream.send_eof()
            with anyio.move_on_after(GOODBYE_S):
                await stream.receive()
            return False
        carried: CarriedStream | None = None
        try:
            await send_message(stream, answer)
            carried = CarriedStream(stream, judged.request.src)
            self._counters["dials_accepted"] += 1
        finally:
            kept = self._door.keep(carried)
        return kept

    def _judge(self, dial: Dial, server: bytes) -> Judged:
        own = self._identity
        judged = judge(own.network, dial, self._clock.wall_ns())
        if judged.code != Code.ACCEPTED:
            return judged
        request = judged.request
        if request.dst != own.public:
            return judged._replace(code=Code.BAD_REQUEST, reason="the dial is for another key")
        if request.port != Port.TRANSPORT:
            text = f"nobody listens on port {request.port}"
            return judged._replace(code=Code.NO_LISTENER, reason=text)
        code = self.seen.take(request, self._clock.now(), server)
        if code is Code.REPLAYED:
            return judged._replace(code=code, reason="this dial was seen before")
        return judged._replace(code=code, reason="too many dials" if code else "")
