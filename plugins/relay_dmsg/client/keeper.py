"""Sessions: this node stays attached to some servers, and finds others where one is lost.

Why a session is held by one task from its dial to its end: no second dial of a server can be under
way beside it (upstream #4834), and what ends it is seen by who tries again. Why nothing happens
while all is well: no timer redials or rotates, so a quiet node makes no noise (#3810, #4670).
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping

import anyio
from anyio.abc import TaskGroup

from relay_dmsg.client.finding import Finder
from relay_dmsg.core.messages import (
    VERSION,
    Answer,
    Attach,
    Attached,
    Code,
    Message,
    Pulse,
    Refused,
)
from relay_dmsg.core.servers import Server, Servers
from relay_dmsg.framing import read_message, send_message
from relay_dmsg.numbers import KIND, TO_SERVER
from relay_dmsg.settings import DmsgClientSettings
from skycore.contracts.runtime import Clock
from skycore.contracts.streams import Stream, Streams
from skycore.contracts.transport import DIRECT, Transport, Transports
from skycore.errors import DialError, RemoteProtocolError, SkycoreError
from skycore.model.addresses import Contact
from skycore.model.keys import PubKey, short
from skycore.tasks import backoff_s

__all__ = ["Keeper", "Session"]

log = logging.getLogger(__name__)
PULSE_S = 25.0
"""A transport without a label is closed after 60 s of silence: a session is not silent so long."""
PROVEN_S = 60.0
"""A session that lived so long was worth its dial: its server is tried again at once."""
CALM = 10
"""How much longer a found server that does not answer is left in peace while another one holds."""
HURRY_S = 2.0
"""When a session that was worth its dial is lost, every known server may be tried so soon."""
STAGGER_S = 0.25
"""While sessions lack: how long those asked may be silent before one more is asked beside them."""
ATTEMPTS_MAX = 16
"""Attempts at a time, whoever lists however many servers that answer nobody."""
SEEK_FIRST_S, SEEK_LACKING_S, SEEK_SOME_S = 2.0, 20.0, 300.0
"""How soon servers are looked for again: first, without any session, with fewer than wanted."""


class Session:
    """This node's place at a server."""

    __slots__ = ("endpoint", "limits", "server", "since")

    def __init__(self, server: Server, limits: Attached, since: float) -> None:
        self.server = server
        self.endpoint = server.endpoint
        """Where it was reached: what others are told, whatever records say meanwhile."""
        self.limits = limits
        self.since = since


class Attempt:
    """A server is being asked."""

    __slots__ = ("is_configured", "is_spare", "scope")

    def __init__(self, *, is_configured: bool) -> None:
        self.is_configured = is_configured
        self.scope = anyio.CancelScope()
        self.is_spare = False
        """Others were faster: that it was not waited for is no failure of its."""


class Keeper:
    """Attaches, holds and replaces."""

    def __init__(
        self,
        settings: DmsgClientSettings,
        own: PubKey,
        servers: Servers,
        finder: Finder,
        streams: Streams,
        transports: Transports,
        clock: Clock,
        dice: random.Random,
        tasks: TaskGroup,
        counters: Counter[str],
        on_change: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._own = own
        self._servers = servers
        self._finder = finder
        self._streams = streams
        self._transports = transports
        self._clock = clock
        self._dice = dice
        self._tasks = tasks
        self._counters = counters
        self._on_change = on_change
        self._sessions: dict[bytes, Session] = {}
        self._trying: dict[bytes, Attempt] = {}
        self._stagger_at = 0.0
        """When one more is asked beside those who are silent."""
        self._changed = anyio.Event()
        self._first = anyio.Event()
        self.trouble = ""
        """What became of the last attempt that failed: which server, where, and why."""
        self._seeks = 0
        self._seek_at = 0.0
        self._seeking = False

    @property
    def sessions(self) -> Mapping[bytes, Session]:
        """Return the sessions by server, the oldest first."""
        return self._sessions

    def is_server(self, key: bytes) -> bool:
        """Tell whether a key is a server that we are attached to, or about to be."""
        return key in self._sessions or key in self._trying

    async def run(self) -> None:
        """Keep as many sessions as are wanted, for ever."""
        while True:
            self._changed = anyio.Event()
            self._try_more()
            with anyio.move_on_after(self._pause_s()):
                await self._changed.wait()

    async def wait_first(self) -> None:
        """Wait for the first session of all, if one is being made. The caller sets the limit."""
        if self._trying and not self._first.is_set():
            await self._first.wait()

    def look_again(self) -> None:
        """Act on what may have changed."""
        self._changed.set()

    # --- what to do now --------------------------------------------------------------------------

    def _lacking(self) -> int:
        wanted = min(self._settings.sessions_min, self._settings.sessions_max)
        return wanted - len(self._sessions)

    def _missing(self, now: float) -> int:
        """Return how many servers to ask now, as far as they are known and ready.

        As many as lack; and one more each time that all of them were silent for a moment: a list of
        servers that never answer costs seconds, not five for each pair of them.
        """
        lacking, trying = self._lacking(), len(self._trying)
        if lacking > 0 and trying >= lacking and now >= self._stagger_at:
            return min(1, ATTEMPTS_MAX - trying)
        return lacking - trying

    def _busy(self) -> set[bytes]:
        return {*self._sessions, *self._trying, self._own}

    def _try_more(self) -> None:
        now = self._clock.now()
        busy = self._busy()
        room = self._settings.sessions_max - len(self._sessions)
        room -= sum(attempt.is_configured for attempt in self._trying.values())
        if self._settings.sessions_min:  # found ones, many and silent, stand in no one's way
            for server in self._servers.configured(now, busy)[: max(0, room)]:
                self._start(server)
        for server in self._servers.choose(self._missing(now), now, self._busy()):
            self._start(server)
        if self._lacking() > 0 and not self._seeking and now >= self._seek_at:
            self._seeking = True
            self._tasks.start_soon(self._seek)

    def _pause_s(self) -> float | None:
        """Return how long nothing need be done; None: until something changes."""
        moments = []
        lacking, trying = self._lacking(), len(self._trying)
        wants_any = lacking > 0 and trying < max(lacking, ATTEMPTS_MAX)
        wants_configured = len(self._sessions) < self._settings.sessions_max
        if wants_any or (self._settings.sessions_min and wants_configured):
            due = self._servers.next_at(self._busy(), configured_only=not wants_any)
            if due is not None:
                moments.append(max(due, self._stagger_at) if trying >= lacking > 0 else due)
        if lacking > 0 and not self._seeking:
            moments.append(self._seek_at)
        return max(0.05, min(moments) - self._clock.now()) if moments else None

    async def _seek(self) -> None:
        """Ask all sources for servers."""
        try:
            news = await self._finder.learn_servers()
            self._counters["seeks"] += 1
            log.debug("looked for servers news=%d known=%d", news, len(self._servers))
        finally:
            self._seeks += 1
            longest = SEEK_SOME_S if self._sessions else SEEK_LACKING_S
            wait_s = backoff_s(self._seeks, SEEK_FIRST_S, longest, self._dice)
            self._seek_at = self._clock.now() + wait_s
            self._seeking = False
            self._changed.set()

    # --- one server ------------------------------------------------------------------------------

    def _start(self, server: Server) -> None:
        attempt = self._trying[server.key] = Attempt(is_configured=server.is_configured)
        self._stagger_at = self._clock.now() + STAGGER_S
        self._tasks.start_soon(self._live, server, attempt)

    async def _live(self, server: Server, attempt: Attempt) -> None:
        """Attach to a server and hold the session until its end."""
        stream: Stream | None = None
        why = f"no answer within {self._settings.dial_timeout_s:g} s"
        began = self._clock.now()
        limit = attempt.scope
        limit.deadline = anyio.current_time() + self._settings.dial_timeout_s
        try:
            with limit:
                self._counters["attempts"] += 1
                link = await self.reach(server)
                stream = await self._streams.dial(server.key, TO_SERVER)
                limits = await self._attach(stream)
            if stream is not None and not limit.cancelled_caught and not attempt.is_spare:
                began = self._clock.now()
                self._up(Session(server, limits, began))
                why = "this node stops"  # if the hold is cancelled
                why = await self._hold(stream, link)
        except SkycoreError as bad:
            why = str(bad)
        finally:
            if stream is not None:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()
            if attempt.is_spare:
                self._trying.pop(server.key, None)
                self._changed.set()
            else:
                self._down(server, why, self._clock.now() - began)

    async def reach(self, server: Server) -> Transport:
        """Make sure of a direct transport to a server. Raises `DialError`."""
        if self._transports.find(server.key, DIRECT) is None:
            contact = Contact(server.key, (server.address,))
            self._transports.addresses.learn(contact)
        link = await self._transports.ensure(server.key, look_up=False)
        if link.type == KIND:  # somebody has relayed here: no session stands on that
            link = await self._transports.ensure(server.key, look_up=False, kind=DIRECT)
        return link

    async def _attach(self, stream: Stream) -> Attached:
        await send_message(stream, Attach(VERSION, "visor"))
        answer: Message = await read_message(stream)
        if isinstance(answer, Refused | Answer):
            raise DialError(_said(answer))
        if not isinstance(answer, Attached):
            raise RemoteProtocolError("the server's answer to an attachment is none")
        return answer

    async def _hold(self, stream: Stream, link: Transport) -> str:
        """Pulse and listen until the session ends; return why.

        A server that is silent is left, though its link may outlive an outage: nobody reaches us
        through it meanwhile (#2942).
        """
        why = ""

        async def notice() -> None:
            nonlocal why
            await link.wait_silent()
            why = why or link.closed or "the server answers no pings"
            tasks.cancel_scope.cancel()

        async def listen() -> None:
            nonlocal why
            try:
                while not why:
                    message = await read_message(stream)
                    if isinstance(message, Refused):
                        why = _said(message)
            except SkycoreError as end:
                why = str(end)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            tasks.start_soon(notice)
            while True:
                await anyio.sleep(PULSE_S)
                try:
                    await send_message(stream, Pulse())
                except SkycoreError as end:
                    why = why or str(end)
                    tasks.cancel_scope.cancel()
        return why

    def _up(self, session: Session) -> None:
        server = session.server
        del self._trying[server.key]
        self._sessions[server.key] = session
        self._first.set()
        self._servers.worked(server)
        self._seeks = 0
        self._let_go()
        self._counters["attached"] += 1
        log.info("attached to a server pk=%s at=%s", short(server.key), server.endpoint)
        self._on_change()
        self._changed.set()

    def _let_go(self) -> None:
        """Wait no longer for more than lacks, or than may be, of those of the configuration."""
        if self._lacking() > 0:
            return
        is_full = len(self._sessions) >= self._settings.sessions_max
        for attempt in self._trying.values():
            if is_full or not attempt.is_configured:
                attempt.is_spare = True
                attempt.scope.cancel()

    def _down(self, server: Server, why: str, lived_s: float) -> None:
        self._trying.pop(server.key, None)
        was_up = self._sessions.pop(server.key, None) is not None
        if was_up and lived_s >= PROVEN_S:
            server.failures = 0
        settings, failures = self._settings, server.failures + 1
        longest = settings.backoff_longest_s
        if self._sessions and not server.is_configured:
            longest *= CALM  # we are reached without it
        wait_s = backoff_s(failures, settings.backoff_first_s, longest, self._dice)
        news = was_up or server.trouble != why
        self._servers.failed(server, why, self._clock.now(), wait_s)
        self.trouble = f"{short(server.key)} at {server.endpoint}: {why}"
        log.log(
            logging.INFO if news else logging.DEBUG,
            "no session with a server pk=%s wait_s=%.1f reason=%r",
            *(short(server.key), wait_s, why),
        )
        if was_up:
            now = self._clock.now()
            self._seek_at = min(self._seek_at, now)
            if lived_s >= PROVEN_S:
                self._servers.hurry(now, HURRY_S)
            self._on_change()
        self._changed.set()


def _said(refused: Refused | Answer) -> str:
    try:
        name = Code(refused.code).name
    except ValueError:
        name = str(refused.code)
    reason = "".join(c if c.isprintable() else "?" for c in refused.reason)
    return f"the server refuses ({name}): {reason}"
