"""The one source of seq of a node, over restarts and wrong clocks.

Why in one place: two counters under one key are how a publisher beats itself (C13, C14). seq is the
larger of the time in nanoseconds and the last one + 1. What was given out survives a restart: a
mark ahead of it is written at most once a minute, and a restart begins after the mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from skycore.contracts.dht import PutReport
from skycore.contracts.runtime import Clock, Files
from skycore.contracts.store import Outcome
from skycore.errors import SeqTooFarError, SeqTooLowError
from skycore.model.limits import CLOCK_SKEW_MAX_S, SEQ_MAX

__all__ = ["SeqSource", "beaten_by", "is_too_far"]

FILE = "publisher.seq"
AHEAD_NS = 60 * 10**9
_SKEW_NS = CLOCK_SKEW_MAX_S * 10**9


class SeqSource:
    """Give out seqs: always higher, close to the clock."""

    def __init__(self, clock: Clock, files: Files) -> None:
        self._clock = clock
        self._files = files
        held = files.read(FILE) or b""
        self._mark = int.from_bytes(held, "big") if len(held) == 8 else 0
        self._last = min(self._mark, SEQ_MAX - 1)

    @property
    def horizon_ns(self) -> int:
        """The highest seq that another node could believe, as far as we know the time."""
        return max(self._clock.wall_ns(), self._last) + _SKEW_NS

    def take(self, above: int = 0) -> int:
        """Return the next seq, higher than `above` too: the record's own, or one we were told of.

        What lies beyond believing does not raise the others: one liar must not carry all our
        records into a future where everybody refuses them.
        """
        seq = max(self._clock.wall_ns(), self._last + 1)
        if above >= seq:
            if above + 1 > self.horizon_ns:
                return min(above + 1, SEQ_MAX)
            seq = above + 1
        self._last = seq
        if seq > self._mark:
            mark = min(seq + AHEAD_NS, SEQ_MAX)
            self._files.write(FILE, mark.to_bytes(8, "big"))
            self._mark = mark  # written, or the next one tries again
        return seq

    def is_ahead(self, seq: int) -> bool:
        """Tell whether a seq lies further ahead of our clock than others would take."""
        return seq > self._clock.wall_ns() + _SKEW_NS

    def come_back(self) -> None:
        """Forget seqs given out while our clock ran ahead: nobody took them."""
        if self.is_ahead(self._last):
            self._last = self._mark = self._clock.wall_ns()


def beaten_by(reports: Sequence[PutReport], seq: int, horizon_ns: int) -> int:
    """Return the seq that a newer version of our record has somewhere, or 0.

    Our own store is believed. Of what peers say, the highest that could be true; where all of it
    lies too far ahead and nobody took ours, our own clock may be behind: then the middle one.
    """
    is_stored = any(report.stored for report in reports)
    own = [r.outcome.seq for r in reports if r.outcome.code == SeqTooLowError.code]
    told = [p.seq for r in reports for p in r.replicas if p.code == SeqTooLowError.code]
    told = [one for one in told if seq <= one < SEQ_MAX]
    near = [one for one in told if one <= horizon_ns]
    far = [sorted(told)[(len(told) - 1) // 2]] if told and not near and not is_stored else []
    return max([one for one in own if seq <= one < SEQ_MAX] + near + far, default=0)


def is_too_far(reports: Iterable[PutReport]) -> bool:
    """Tell whether somebody refused our seq as too far ahead, and nobody took it."""
    codes: list[int] = []
    for report in reports:
        codes += [replica.code for replica in report.replicas] or [report.outcome.code]
    return SeqTooFarError.code in codes and min(codes) > Outcome.HELD
