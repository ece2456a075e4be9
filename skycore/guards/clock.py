"""The network's time: this machine's clock, put right by what the Hellos of its peers say.

Why: items are judged by the clock, so a device that boots in 1970 could neither publish nor read
(C3, C13; wire section 5). Over 5 min off the median of three peers, their time is taken.

Why a vote is kept as the peer's time at our monotonic zero: then it does not depend on our wall
clock at all, and when that jumps (NTP, a person, a dead battery) the corrected time stays right
at the very next reading, without anybody noticing the jump first.

Why those that we dialled count first: whoever dials us is somebody that we did not choose, and
costs nothing but keys. Inbound peers vote only while fewer than three of ours are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from skycore.contracts.runtime import Clock

__all__ = [
    "OFF_MAX_S",
    "PEERS_MIN",
    "CorrectedClock",
    "Verdict",
    "Votes",
    "is_plausible",
]

OFF_MAX_S: Final = 300
"""How far off the median our clock is still believed."""
PEERS_MIN: Final = 3
"""Distinct keys that it takes to doubt our own clock."""
VOTES_MAX: Final = 32
"""Keys remembered of those that we dialled, and as many of those that dialled us."""
VOTE_AGE_S: Final = 6 * 3_600.0
"""A vote is forgotten when its peer was not linked to us for so long: it may be set right since."""
PLAUSIBLE_FROM_S: Final = 1_704_067_200
"""2024-01-01, before this software: no clock that says less can be right, ours or a peer's."""
PLAUSIBLE_TO_S: Final = 7_258_118_400
"""2200-01-01: a seq, nanoseconds below 2^63, ends in 2262."""

_NS: Final = 10**9


def is_plausible(wall_ns: int) -> bool:
    """Tell whether it can be so late or so early."""
    return PLAUSIBLE_FROM_S * _NS <= wall_ns < PLAUSIBLE_TO_S * _NS


class Verdict(NamedTuple):
    """What the peers say together: the two middle votes (the same one, of an odd number)."""

    low_ns: int
    """Unix nanoseconds at our monotonic zero."""
    high_ns: int
    peers: int
    """How many were counted."""


class CorrectedClock:
    """Time as the network has it. `contracts.runtime.Clock`; `now()` is the machine's own."""

    def __init__(self, own: Clock) -> None:
        self.own = own
        self.verdict: Verdict | None = None
        """Whom to believe; None: nobody but ourselves."""

    def now(self) -> float:
        """Monotonic seconds."""
        return self.own.now()

    def wall_ns(self) -> int:
        """Unix nanoseconds, corrected."""
        wall_ns = self.own.wall_ns()
        return wall_ns + _correction(self._gap_ns(wall_ns))

    def wall_s(self) -> int:
        """Unix seconds, corrected."""
        return self.wall_ns() // _NS

    @property
    def gap_ns(self) -> int:
        """How far the median lies ahead of our own clock, believed or not."""
        return self._gap_ns(self.own.wall_ns())

    @property
    def correction_ns(self) -> int:
        """What is added to our own clock now."""
        return _correction(self.gap_ns)

    def _gap_ns(self, wall_ns: int) -> int:
        """Return the way to the nearer of the two middle votes, 0 between them.

        So our own clock decides where the peers are evenly divided.
        """
        if self.verdict is None:
            return 0
        low_ns, high_ns, _ = self.verdict
        zero_ns = wall_ns - round(self.own.now() * _NS)
        return min(max(zero_ns, low_ns), high_ns) - zero_ns


def _correction(gap_ns: int) -> int:
    return gap_ns if abs(gap_ns) > OFF_MAX_S * _NS else 0


class _Vote(NamedTuple):
    zero_ns: int
    """The peer's time at our monotonic zero."""
    said_at: float
    linked_at: float
    """When the peer was last seen linked to us. Both in monotonic seconds."""


class Votes:
    """The newest word of each peer about the time. Pure, and bounded: twice VOTES_MAX keys."""

    def __init__(self) -> None:
        self._ours: dict[bytes, _Vote] = {}  # oldest word first, both
        self._others: dict[bytes, _Vote] = {}
        self._jumped_at = float("-inf")

    def __len__(self) -> int:
        return len(self._ours) + len(self._others)

    def add(self, key: bytes, wall_ns: int, at: float, *, dialled: bool) -> None:
        """Note what a peer's clock said at a moment of ours (monotonic seconds).

        What cannot be true is no vote. A key that we once dialled stays one of ours.
        """
        if not is_plausible(wall_ns):
            return
        is_ours = dialled or key in self._ours
        known = self._ours.get(key) or self._others.get(key)
        if known is not None and known.said_at > at:
            return
        self._ours.pop(key, None)
        self._others.pop(key, None)
        votes = self._ours if is_ours else self._others
        votes[key] = _Vote(wall_ns - round(at * _NS), at, at)
        if len(votes) > VOTES_MAX:
            del votes[min(votes, key=lambda one: votes[one].said_at)]

    def jumped(self, since: float) -> None:
        """Learn that wall and monotonic clock parted after this moment.

        One of the two is wrong now. If it is the monotonic one (a paused virtual machine), all
        older votes are; so three newer ones of our own choice are heard alone.
        """
        self._jumped_at = since

    def look_after(self, now: float, is_linked: Callable[[bytes], bool]) -> None:
        """Forget who was not linked for VOTE_AGE_S. Call it every few seconds.

        Who is linked stays: on a link that holds for days there is no second Hello, and a node
        must not fall back into 1970 for that.
        """
        for votes in (self._ours, self._others):
            for key, vote in list(votes.items()):
                if is_linked(key):
                    votes[key] = vote._replace(linked_at=now)
                elif now - vote.linked_at > VOTE_AGE_S:
                    del votes[key]

    def verdict(self) -> Verdict | None:
        """Return what the peers say; None while too few are known."""
        recent = {k: v for k, v in self._ours.items() if v.said_at > self._jumped_at}
        for pool in (recent, self._ours, self._ours | self._others):
            if len(pool) >= PEERS_MIN:
                return _median(pool)
        return None


def _median(pool: Mapping[bytes, _Vote]) -> Verdict:
    zeros = sorted(vote.zero_ns for vote in pool.values())
    return Verdict(zeros[(len(zeros) - 1) // 2], zeros[len(zeros) // 2], len(zeros))
