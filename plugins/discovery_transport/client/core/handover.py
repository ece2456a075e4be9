"""When the DHT carries this node's transports, so that the HTTP service need not be told again.

Why full proof: registration was once skipped as soon as one DHT peer was known, and transports
vanished from the HTTP service although the DHT had them (L12). Here every link of the way is seen:
the record is read back from full nodes, and the service says that it holds exactly this record.
Pure: evidence and time in, verdict out. Times are monotonic seconds.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

__all__ = ["Evidence", "Limits", "Verdict", "judge"]

NEVER = float("-inf")


class Limits(msgspec.Struct, frozen=True):
    """How much proof, and how fresh."""

    holders_min: int = 2
    """Full nodes, this one not counted, that must hold the record."""
    read_age_max_s: float = 90.0
    """A cycle of 60 s, and half of the next."""
    rest_min_s: float = 60.0
    """The record must live this much longer: time to register over HTTP before it ends."""
    check_s: float = 480.0
    """How often the service is asked; less than it keeps what it can no longer read anew."""
    check_late_s: float = 90.0
    """How late the answer may come."""


class Evidence(msgspec.Struct, frozen=True):
    """What was seen, and when. Nothing seen is nothing proven."""

    version: int = 0
    """Of this node's own list; it grows with each change."""
    count: int = 0
    """How many transports are listed."""
    published_version: int = -1
    seq: int = 0
    """Of the published record; 0: there is none."""
    read_seq: int = 0
    read_at: float = NEVER
    holders: int = 0
    """Full nodes that were seen to hold it then."""
    ends_at: float = NEVER
    """When the record ends at the one of them where it ends first."""
    checked_version: int = -1
    """Of the list that the service was seen to list whole, out of this very record."""
    checked_at: float = NEVER
    check_trouble: str = ""
    """What the service's last answer lacked."""


class Verdict(NamedTuple):
    """What follows from the evidence."""

    is_handed_over: bool
    """The DHT carries: no registration is sent."""
    why: str
    """What is lacking; empty where nothing is."""
    check_due: bool
    """The DHT's side is proven, and the service's is to be seen (again)."""


def judge(seen: Evidence, limits: Limits, now: float) -> Verdict:
    """Return who carries now."""
    lacking = _lacks_in_dht(seen, limits, now)
    if lacking:
        return Verdict(False, lacking, check_due=False)
    is_old = now - seen.checked_at >= limits.check_s
    if seen.checked_version != seen.version:
        why = seen.check_trouble or "the service has not been seen to list every transport"
        return Verdict(False, why, check_due=True)
    if now - seen.checked_at > limits.check_s + limits.check_late_s:
        return Verdict(False, "the service was last asked too long ago", check_due=True)
    return Verdict(True, "", check_due=is_old)


def _lacks_in_dht(seen: Evidence, limits: Limits, now: float) -> str:
    if not seen.count:
        return "there is nothing to hand over"
    if not seen.seq or seen.published_version != seen.version:
        return "the list as it is now is not published"
    if seen.read_seq != seen.seq:
        return "the record has not been read back"
    if now - seen.read_at > limits.read_age_max_s:
        return "the record was last read back too long ago"
    if seen.holders < limits.holders_min:
        return f"{seen.holders} of {limits.holders_min} full nodes hold the record"
    if seen.ends_at - now < limits.rest_min_s:
        return "the record ends soon"
    return ""
