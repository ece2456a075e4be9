"""The timekeeper: hears what time peers say it is, and tells people when ours is wrong.

Why by links and not by Security: a link carries the Hello that was proven, who dialled, and the
moment of the handshake, whatever secured it. So a new Security plugin has nothing to do for it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import anyio

from skycore.contracts.runtime import ClockCorrected
from skycore.contracts.status import Health, Status, StatusSource
from skycore.contracts.transport import Transport, Transports
from skycore.events import Events
from skycore.guards.clock import PEERS_MIN, CorrectedClock, Votes, is_plausible
from skycore.tasks import every

__all__ = ["Timekeeper", "open_timekeeper"]

log = logging.getLogger(__name__)

TICK_S: Final = 5.0
JUMP_NS: Final = 10**9
"""A clock that is slewed gains less than 3 ms a tick."""
NEWS_NS: Final = 60 * 10**9
"""A correction that changes by less is not told again."""
_NS: Final = 10**9


@asynccontextmanager
async def open_timekeeper(
    clock: CorrectedClock, events: Events, transports: Transports | None
) -> AsyncIterator[StatusSource]:
    """Correct the node's clock for as long as the context lasts. A node without links has none."""
    keeper = Timekeeper(clock, events, transports)
    async with AsyncExitStack() as stack:
        if transports is not None:
            stack.enter_context(transports.on_change(keeper.changed))
            for transport in transports.all():  # dialled before we were up
                keeper.changed(transport, True)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(partial(every, TICK_S, keeper.tick, name="clock", at_once=False))
        yield keeper
        tasks.cancel_scope.cancel()


class Timekeeper:
    """What peers said, and what was told of it. `contracts.status.StatusSource`."""

    name = "clock"

    def __init__(
        self, clock: CorrectedClock, events: Events, transports: Transports | None
    ) -> None:
        self._clock = clock
        self._events = events
        self._transports = transports
        self._votes = Votes()
        self._checked_at = clock.now()
        self._parted_ns = self._apart_ns()
        self._told_ns = 0

    def changed(self, transport: Transport, up: bool) -> None:
        """Hear a new link's Hello; `Transports.on_change` calls it."""
        if not up:
            return
        self._notice_jump()
        self._votes.add(
            transport.remote,
            transport.remote_hello.wall_ns,
            transport.opened_at,
            dialled=transport.dialled,
        )
        self._judge()

    async def tick(self) -> None:
        """Forget old votes, and tell what has changed since."""
        self._notice_jump()
        self._votes.look_after(self._clock.now(), self._is_linked)
        self._judge()

    def _is_linked(self, key: bytes) -> bool:
        return self._transports is not None and self._transports.find(key) is not None

    def _apart_ns(self) -> int:
        own = self._clock.own
        return own.wall_ns() - round(own.now() * _NS)

    def _notice_jump(self) -> None:
        parted_ns = self._apart_ns()
        jump_ns, self._parted_ns = parted_ns - self._parted_ns, parted_ns
        if abs(jump_ns) > JUMP_NS:
            log.info("this machine's clock was set by_s=%+.0f", jump_ns / _NS)
            self._votes.jumped(self._checked_at)
        self._checked_at = self._clock.now()

    def _judge(self) -> None:
        self._clock.verdict = verdict = self._votes.verdict()
        correction_ns = self._clock.correction_ns
        is_news = abs(correction_ns - self._told_ns) > NEWS_NS
        if not is_news and bool(correction_ns) == bool(self._told_ns):
            return
        self._told_ns = correction_ns
        peers = verdict.peers if verdict else 0
        if correction_ns:
            log.warning("clock corrected by_s=%+.0f peers=%d", correction_ns / _NS, peers)
        else:
            log.info("clock no longer corrected peers=%d", peers)
        self._events.publish(ClockCorrected(correction_ns / _NS, peers))

    # --- for people ------------------------------------------------------------------------------

    async def status(self) -> Status:
        """Say whether this machine's clock can be believed."""
        clock, verdict = self._clock, self._clock.verdict
        gap_ns = clock.gap_ns
        is_corrected = bool(clock.correction_ns)
        fields = {
            "offset_s": round(gap_ns / _NS, 1),
            "peers_asked": verdict.peers if verdict else len(self._votes),
            "corrected": is_corrected,
        }
        if is_corrected and verdict is not None:
            way = "behind" if gap_ns > 0 else "ahead of"
            return Status(
                Health.DEGRADED,
                f"this node's clock is {_roughly(abs(gap_ns) // _NS)} {way} the median of "
                f"{verdict.peers} peers; judging by theirs",
                fields,
            )
        if not is_plausible(clock.wall_ns()):
            return Status(
                Health.DEGRADED,
                f"this node's clock is wrong, and it knows fewer than {PEERS_MIN} peers to set it "
                "right by",
                fields,
            )
        if verdict is None:
            return Status(Health.OK, f"fewer than {PEERS_MIN} peers to compare with", fields)
        return Status(Health.OK, f"agrees with the median of {verdict.peers} peers", fields)


def _roughly(seconds: int) -> str:
    """Return a duration for people: its largest unit, rounded down; at least two of it."""
    for unit, size_s in (("years", 31_557_600), ("days", 86_400), ("hours", 3_600)):
        if seconds >= 2 * size_s:
            return f"{seconds // size_s} {unit}"
    return f"{seconds // 60} minutes"
