"""The relay: takes streams that clients open to it, attaches them, and forwards their dials.

Why nothing here waits for anybody else: every stream has a task of its own, bounded for each key,
and no table is held across an await. Why every refusal is told: upstream's relays closed the stream
and said nothing, so a dialler waited out its limit and nobody knew why. What a request does wrong
costs that one stream, never a session.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress

import anyio
from anyio.abc import TaskGroup

from relay_dmsg.core.dials import is_signed, judge
from relay_dmsg.core.messages import (
    VERSION,
    Answer,
    Attach,
    Attached,
    Code,
    Dial,
    Message,
    Refused,
    Request,
)
from relay_dmsg.core.rates import Buckets
from relay_dmsg.framing import read_message, send_message
from relay_dmsg.numbers import KIND, TO_CLIENT
from relay_dmsg.server.places import Places
from relay_dmsg.server.sessions import Session, Sessions
from relay_dmsg.settings import DmsgServerSettings
from relay_dmsg.splice import Splice
from skycore.contracts.runtime import Clock, Identity
from skycore.contracts.streams import Stream, StreamListener, Streams
from skycore.contracts.transport import Transports
from skycore.errors import DecodeError, RemoteProtocolError, SkycoreError, StreamError
from skycore.model.addresses import host_group
from skycore.model.keys import PubKey, short
from skycore.model.limits import DMSG_REASON_MAX

__all__ = ["Relay"]

log = logging.getLogger(__name__)
GOODBYE_S = 1.0
KEYS_MAX = 16_384
REQUESTS_NODE_MAX = 4_096
GOODBYES_MAX = 64
GOODBYES_NODE_MAX = 1_024
"""Refusals that wait to be read: of a key, and of all. Beyond that the stream just ends."""


class _NoError(SkycoreError):
    """A request is refused, with the code and the reason that the client is told."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.refusal = code


class Relay:
    """A DMSG server."""

    def __init__(
        self,
        settings: DmsgServerSettings,
        identity: Identity,
        streams: Streams,
        transports: Transports,
        clock: Clock,
        tasks: TaskGroup,
        serves_dht: Callable[[], bool] = lambda: False,
    ) -> None:
        self.sessions = Sessions(settings.sessions_max, settings.sessions_per_host_max)
        self.counters: Counter[str] = Counter()
        """What happened since the start; refusals by the name of their code."""
        self.told = ""
        """Where others are told that this relay is."""
        self.splices: dict[Splice, None] = {}
        self.places = Places(settings.streams_max, settings.streams_node_max)
        self.requests = Places(settings.requests_max, REQUESTS_NODE_MAX)
        self._goodbyes = Places(GOODBYES_MAX, GOODBYES_NODE_MAX)
        self._settings = settings
        self._network = identity.network
        self._own = identity.public
        self._streams = streams
        self._transports = transports
        self._clock = clock
        self._tasks = tasks
        self._serves_dht = serves_dht
        self._stopping = False
        per_s = settings.dials_per_minute / 60.0
        self._dials = Buckets(per_s, max(1.0, settings.dials_per_minute / 4), KEYS_MAX)
        self._bytes = Buckets(settings.bytes_per_s, settings.bytes_per_s, KEYS_MAX)

    async def accept(self, listener: StreamListener) -> None:
        """Take streams for as long as the listener gives any."""
        while True:
            try:
                stream = await listener.accept()
            except StreamError:
                return
            self._tasks.start_soon(self._take, stream)

    async def reap(self) -> None:
        """End the splices on which nothing moves."""
        oldest = self._clock.now() - self._settings.idle_s
        for splice in list(self.splices):
            if splice.moved_at <= oldest:
                self.counters["reaped"] += 1
                splice.end(f"nothing moved for {self._settings.idle_s:g} s")

    async def stop(self) -> None:
        """Tell every client that this relay stops, so that none has to find it out.

        And whoever asks from now on: nobody attaches again to what is about to go.
        """
        self._stopping = True
        async with anyio.create_task_group() as tasks:
            for session in self.sessions:
                tasks.start_soon(self._dismiss, session, Code.STOPPING, "this server stops")

    # --- one stream ------------------------------------------------------------------------------

    async def _take(self, stream: Stream) -> None:
        with ExitStack() as held:
            try:
                self._enter(held, stream.remote)
                await self._serve(stream, held)
            except _NoError as no:
                held.close()
                await self._say_no(stream, no.refusal, str(no))
            except RemoteProtocolError as bad:
                held.close()
                await self._say_no(stream, Code.BAD_REQUEST, str(bad))
            except StreamError:
                self.counters["streams_lost"] += 1
            except Exception:  # never more than this stream
                log.exception("serving failed pk=%s", short(stream.remote))
            finally:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()

    def _enter(self, held: ExitStack, key: PubKey) -> None:
        """Take a place for a request. Raises `_NoError`."""
        if self._stopping:
            raise _NoError(Code.STOPPING, "this server stops")
        self._take_place(self.requests, held, key, "too many requests are under way")

    def _take_place(self, places: Places, held: ExitStack, key: PubKey, problem: str) -> None:
        """Raises `_NoError`: LIMIT for a bound of this key or address, BUSY for one of all."""
        group = self._group(key)
        whose = places.why_not(key, group)
        if whose:
            raise _NoError(Code.BUSY if whose == "in all" else Code.LIMIT, f"{problem} {whose}")
        places.enter(held, key, group)

    def _group(self, key: PubKey) -> str:
        link = self._transports.find(key)
        return host_group(link.host) if link is not None else ""

    def _count_dial(self, key: PubKey) -> None:
        """Raises `_NoError` for a key that asks too often."""
        now = self._clock.now()
        if not self._dials.of(key, now).try_take(now):
            raise _NoError(Code.LIMIT, "too many requests of this key in a minute")

    async def _serve(self, stream: Stream, held: ExitStack) -> None:
        message: Message | None = None
        with anyio.move_on_after(self._settings.request_timeout_s):
            message = await read_message(stream)
        if isinstance(message, Dial):
            await self._forward(stream, message, held)
        elif isinstance(message, Attach):
            held.close()
            self._count_dial(stream.remote)
            await self._attach(stream, message)
        elif message is None:
            raise _NoError(Code.BAD_REQUEST, "no request came in time")
        else:
            raise _NoError(Code.BAD_REQUEST, "this is no request")

    async def _say_no(
        self, stream: Stream, code: Code, reason: str, *, attaching: bool = False
    ) -> None:
        """Refuse, and give the other side a moment to read why before the stream goes."""
        self.counters["refused"] += 1
        self.counters[f"refused_{code.name.lower()}"] += 1
        log.debug("refused pk=%s code=%s reason=%r", short(stream.remote), code.name, reason)
        kind = Refused if attaching else Answer
        with ExitStack() as held, anyio.move_on_after(GOODBYE_S):
            if not self._goodbyes.enter(held, stream.remote, self._group(stream.remote)):
                return
            try:
                await send_message(stream, kind(int(code), reason[:DMSG_REASON_MAX]))
                await stream.send_eof()
                while await stream.receive():  # a reset would overtake what we said
                    pass
            except StreamError:
                pass

    # --- sessions --------------------------------------------------------------------------------

    async def _attach(self, stream: Stream, wish: Attach) -> None:
        key = stream.remote
        group = self._group(key)
        no = self.sessions.why_not(key, group)
        if self._is_relayed(key):
            no = Code.NOT_ALLOWED, "a session stands on a direct transport, not on a relayed one"
        if wish.version != VERSION:
            no = Code.BAD_REQUEST, f"version {wish.version}; this server speaks {VERSION}"
        if no is not None:
            await self._say_no(stream, *no, attaching=True)
            return
        session = Session(key, group, stream, self._clock.now())
        old = self.sessions.add(session)
        self.counters["attached"] += 1
        log.debug("session up pk=%s sessions=%d", short(key), len(self.sessions))
        if old is not None:
            text = "a newer session of this key took its place"
            self._tasks.start_soon(self._dismiss, old, Code.REPLACED, text)
        try:
            limits = self._settings.streams_max, self._settings.dials_per_minute
            await send_message(stream, Attached(VERSION, *limits, self._serves_dht()))
            await self._hold(stream)
        finally:
            if self.sessions.remove(session):
                log.debug("session down pk=%s sessions=%d", short(key), len(self.sessions))

    async def _hold(self, stream: Stream) -> None:
        """Read until the client lets go. What it says besides pulses is counted, nothing more."""
        while True:
            try:
                await read_message(stream)
            except DecodeError as bad:
                self.counters["bad_messages"] += 1
                if bad.reason == "size":
                    return
            except (RemoteProtocolError, StreamError):
                return

    async def _dismiss(self, session: Session, code: Code, reason: str) -> None:
        """Tell a session that it is one no more."""
        with anyio.move_on_after(GOODBYE_S), suppress(StreamError):
            await send_message(session.stream, Refused(int(code), reason))
        await session.stream.aclose()

    def _is_relayed(self, key: PubKey) -> bool:
        link = self._transports.find(key)
        return link is not None and link.type == KIND

    # --- dials -----------------------------------------------------------------------------------

    async def _forward(self, stream: Stream, dial: Dial, held: ExitStack) -> None:
        """Hand a dial to its destination, tell what that said, and join the two streams."""
        self.counters["dials"] += 1
        request = self._check(stream, dial)
        with ExitStack() as rooms:
            for key in (request.src, request.dst):
                self._take_place(
                    self.places, rooms, PubKey(key), "too many relayed streams are open"
                )
            far, answer = await self._ask(request, dial)
            try:
                await send_message(stream, answer)
                if answer.code != Code.ACCEPTED:
                    self.counters["refused_there"] += 1
                    await stream.send_eof()
                    return
                held.close()
                self.counters["streams"] += 1
                await self._splice(stream, far, request)
            finally:
                with anyio.CancelScope(shield=True):
                    await far.aclose()

    def _check(self, stream: Stream, dial: Dial) -> Request:
        """Return what is wished. Raises `_NoError`, `DecodeError`."""
        self._count_dial(stream.remote)
        if self._is_relayed(stream.remote):
            raise _NoError(Code.NOT_ALLOWED, "a relay is asked directly, not through another one")
        judged = judge(self._network, dial, self._clock.wall_ns(), src=stream.remote)
        if judged.code != Code.ACCEPTED:
            raise _NoError(judged.code, judged.reason)
        if judged.request.dst == self._own:
            raise _NoError(Code.BAD_REQUEST, "this is the destination: use the transport itself")
        if self.sessions.find(judged.request.dst) is None:
            raise _NoError(Code.NOT_ATTACHED, "that key has no session here")
        if self._transports.find(judged.request.dst) is None:
            raise _NoError(Code.NO_ANSWER, "the destination's transport is silent, or just ended")
        return judged.request

    async def _ask(self, request: Request, dial: Dial) -> tuple[Stream, Answer]:
        """Open a stream to the destination, and return what it answered. Raises `_NoError`."""
        session = self.sessions.find(request.dst)
        if session is None:
            raise _NoError(Code.NOT_ATTACHED, "that key has no session here")
        far: Stream | None = None
        answer: Message | None = None
        problem = f"no answer within {self._settings.request_timeout_s:g} s"
        try:
            with anyio.move_on_after(self._settings.request_timeout_s):
                far = await self._streams.dial(session.key, TO_CLIENT)
                await send_message(far, dial)
                answer = await read_message(far)
        except SkycoreError as lost:
            problem = str(lost)
        finally:
            if far is not None and not isinstance(answer, Answer):
                with anyio.CancelScope(shield=True):
                    await far.aclose()  # nothing of a dial that failed stays behind
        if far is None or not isinstance(answer, Answer):
            raise _NoError(Code.NO_ANSWER, f"the destination did not answer: {problem}")
        if not self._is_its_own(session.key, dial, answer):
            with anyio.CancelScope(shield=True):
                await far.aclose()
            raise _NoError(Code.NO_ANSWER, "what came as the destination's answer is not its own")
        return far, answer

    def _is_its_own(self, key: PubKey, dial: Dial, answer: Answer) -> bool:
        """Tell whether the destination signed this: unsigned, it would stand for our own word."""
        try:
            return is_signed(self._network, key, dial, answer)
        except RemoteProtocolError:
            return False

    async def _splice(self, near: Stream, far: Stream, request: Request) -> None:
        now = self._clock.now()
        meters = self._bytes.of(request.src, now), self._bytes.of(request.dst, now)
        splice = Splice(near, far, self._clock, meters, self._count)
        self.splices[splice] = None
        try:
            await splice.run()
        finally:
            del self.splices[splice]
            log.debug(
                "stream ended src=%s dst=%s bytes=%d reason=%r",
                *(short(request.src), short(request.dst), splice.moved, splice.reason),
            )

    def _count(self, size: int) -> None:
        self.counters["bytes"] += size
