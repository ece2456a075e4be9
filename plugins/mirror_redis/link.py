"""The way to Redis: a few connections, a time limit on every call, and a breaker.

Why a breaker: a Redis that hangs must cost each caller nothing but an error, or the whole node
waits with it (C32, M2). After one failure calls fail at once, and one task tries until it works.
Every call of this plugin may be sent twice without harm (ranks, O20), so a connection that was
found dead is replaced and the call repeated, once.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from redis.exceptions import RedisError, ResponseError

from mirror_redis.dialing import Command, Dialer, Line, Refused, read_secret
from mirror_redis.failures import UP, Failure, failure_of, named
from mirror_redis.places import parse_place
from mirror_redis.settings import RedisSettings, settled
from skycore.contracts.runtime import Clock
from skycore.errors import ConfigError, StoreError

__all__ = ["Link", "open_link"]

log = logging.getLogger(__name__)
LOOK_AGAIN_S = 30.0
"""How often a server that is up is looked at anew, for instance for how it evicts."""
_BROKEN = (RedisError, OSError, Refused)
L = TypeVar("L", bound="Link")


class Link:
    """Calls to one Redis, and how it is."""

    def __init__(
        self, dialer: Dialer, settings: RedisSettings, clock: Clock, section: str = ""
    ) -> None:
        self._dialer = dialer
        self._clock = clock
        self._idle: list[Line] = []
        self._places = anyio.Semaphore(settings.connections_max)
        self._failure: Failure | None = None
        self._detail = ""
        self._refusing: Failure | None = None
        self._warning: Failure | None = None
        self._since = clock.now()
        self._down = anyio.Event()
        self._is_closed = False
        self.settings = settings
        """Of the connection, and of all calls."""
        self.section = section
        """Whose settings these are, where it is another plugin's section; else empty."""
        self.prefix = settings.prefix
        self.where = str(dialer.place)
        self.db = dialer.place.db
        self.replid = b""
        """`master_replid` of the server that was reached last."""
        self.info: dict[str, str] = {}
        self.counters: Counter[str] = Counter()

    # --- how it is ------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """`up`, or the name of what is wrong: see failures.py."""
        wrong = self._wrong
        return wrong.state if wrong else UP

    @property
    def _wrong(self) -> Failure | None:
        return self._failure or self._refusing or self._warning

    @property
    def is_usable(self) -> bool:
        """Whether calls are tried at all."""
        return self._failure is None

    @property
    def trouble(self) -> StoreError | None:
        """What is wrong, as an error for people."""
        wrong = self._wrong
        return (
            wrong.error(self.where, "" if wrong is self._warning else self._detail)
            if wrong
            else None
        )

    @property
    def round_trips(self) -> int:
        """How often something was sent and answered, or should have been: a batch counts once."""
        return self.counters["round_trips"]

    @property
    def since_s(self) -> float:
        """Seconds in this state."""
        return self._clock.now() - self._since

    def _now_is(self, failure: Failure | None, detail: str) -> None:
        before = self.state
        if failure is None:
            self._failure = None
        elif failure.is_everything:
            self._failure = failure
            self._down.set()
        else:
            self._refusing = failure
        self._detail = detail if failure else self._detail
        self._tell(before)

    def _tell(self, before: str) -> None:
        if self.state == before:
            return
        self._since = self._clock.now()
        if self.state == UP:
            log.info("redis is up at=%s", self.where)
        else:
            log.warning("redis is not usable at=%s state=%s error=%r", self.where, self.state,
                        str(self.trouble))  # fmt: skip

    def warn(self, state: str) -> None:
        """Say that something is wrong though calls work; or, with nothing, that it is over."""
        before, self._warning = self.state, named[state] if state else None
        self._tell(before)

    def writes_work(self) -> None:
        """Take note that a write was accepted."""
        if self._refusing is not None:
            before, self._refusing = self.state, None
            self._tell(before)

    # --- calling --------------------------------------------------------------------------------

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one round trip; return their replies, error replies as exceptions.

        Raises a named `StoreError` where Redis cannot be used; then it fails at once until it can.
        """
        self._check()
        async with self._places:
            self._check()  # it may have failed while we waited for a place
            try:
                return await self._try(commands)
            except _BROKEN as bad:
                raise self._fail(bad) from bad

    def _check(self) -> None:
        if self._failure is not None:
            self.counters["failed_at_once"] += 1
            raise self._failure.error(self.where, self._detail)

    def _fail(self, bad: Exception) -> StoreError:
        failure = bad.failure if isinstance(bad, Refused) else failure_of(bad)
        if failure.state == "refused":  # not an answer of Redis: whatever it is, the way is broken
            failure = named["down"]
        self.counters[failure.state] += 1
        self._now_is(failure, str(bad))
        return failure.error(self.where, str(bad))

    async def _try(self, commands: Sequence[Command]) -> list[Any]:
        if self._idle:
            line = self._idle.pop()
            try:
                return await self._on(line, commands)
            except (RedisError, OSError) as bad:
                if failure_of(bad).state != "down" or isinstance(bad, TimeoutError):
                    raise
                self.counters["reconnects"] += 1
                await self.hang_up()  # one was closed: the others are of the same age
        line = await self._dialer.dial()
        await self._welcome(line)
        return await self._on(line, commands)

    async def _welcome(self, line: Line) -> None:
        self.counters["connections"] += 1
        self.info = line.info
        if line.replid != self.replid:
            self.replid = line.replid
            await self.hang_up()

    async def _on(self, line: Line, commands: Sequence[Command]) -> list[Any]:
        self.counters["round_trips"] += 1
        is_good = False
        try:
            replies = await line.exchange(commands)
            is_good = True
        finally:
            if not is_good or self._is_closed or line.replid != self.replid:
                await line.close()
        for reply in replies:
            if isinstance(reply, ResponseError):
                self._look_at(reply)
        if not self._is_closed and line.replid == self.replid:
            self._idle.append(line)
        return replies

    def _look_at(self, reply: ResponseError) -> None:
        """Take note of an error reply that says how Redis is."""
        failure = failure_of(reply)
        if failure.state != "refused":
            self.counters[failure.state] += 1
            self._now_is(failure, str(reply))

    async def hang_up(self) -> None:
        """Close every connection that is not in use."""
        lines, self._idle = self._idle, []
        for line in lines:
            await line.close()

    async def listen(self, channel: bytes) -> Line:
        """Return a connection of its own, subscribed to a channel; close it after use."""
        self._check()
        try:
            line = await self._dialer.dial()
            await line.exchange([(b"SUBSCRIBE", channel)])
            return line
        except _BROKEN as bad:
            raise self._fail(bad) from bad

    # --- coming back ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Try once. Raises what waiting would not cure; else `keep` goes on trying."""
        try:
            await self.call([(b"PING",)])
        except StoreError:
            if self._failure is not None and self._failure.is_final:
                raise

    async def keep(self) -> None:
        """Try again for as long as it takes, whenever Redis is not usable. Runs until cancelled."""
        while True:
            if self._failure is None:
                self._down = anyio.Event()
                with anyio.move_on_after(LOOK_AGAIN_S):  # its settings may change under way
                    await self._down.wait()
            if self._failure is not None:
                await anyio.sleep(self.settings.retry_s)
                await self.hang_up()
            async with self._places:
                await self._dial_again()

    async def _dial_again(self) -> None:
        try:
            line = await self._dialer.dial()
            await self._welcome(line)
        except _BROKEN as bad:
            self._fail(bad)
        else:
            self._idle.append(line)
            self._now_is(None, "")

    async def close(self) -> None:
        """Hang up for good."""
        self._is_closed = True
        await self.hang_up()


def _passwords(settings: RedisSettings, url_password: str) -> tuple[str, str]:
    try:
        own = read_secret(settings.password_file) or url_password
        sentinel = read_secret(settings.sentinel_password_file)
    except OSError as bad:
        raise ConfigError(f"a password file cannot be read: {bad.strerror}") from bad
    if settings.password_env and not settings.password_file:
        own = os.environ.get(settings.password_env, "") or own
    return own, sentinel


@asynccontextmanager
async def open_link(
    own: RedisSettings, clock: Clock, kind: type[L], **others: RedisSettings | None
) -> AsyncIterator[L]:
    """Hold the way to Redis open. Raises what only a person can change; else it comes by itself.

    `others` are this node's other sections for Redis: see `settings.settled`.
    """
    settings, section = settled(own, others)
    place = parse_place(settings.url)
    password, sentinel_password = _passwords(settings, place.password)
    dialer = Dialer(
        place,
        password=password,
        sentinel_password=sentinel_password,
        tls_ca_file=settings.tls_ca_file,
        timeout_s=settings.timeout_s,
        evicting_allowed=settings.evicting_allowed,
    )
    link = kind(dialer, settings, clock, section)
    try:
        await link.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.keep)
            yield link
            tasks.cancel_scope.cancel()
    finally:
        await link.close()
