"""Comparing two stores by the fingerprints of ranges: splitting, reading replies, planning.

Why: two nodes that hold ten thousand items and differ in one find that one in four small questions
instead of sending all they hold (C31). A range that differs is asked about in sixteen parts, until
one side lists it. Why the deepest ranges are asked first: what is found is repaired before the
next thousands are looked into, so neither a large store nor a liar fills the memory. After Meyer,
"Range-Based Set Reconciliation" (2023). Rules and limits: docs/protocols/reconcile.md. Sans I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import pairwise
from typing import Final, NamedTuple

from dht_kademlia.core.messages import Held, Range, RangeReply, Ranges, Reconcile
from skycore.contracts.store import Fingerprint
from skycore.errors import RemoteProtocolError
from skycore.model.items import ItemClass, StoredItem
from skycore.model.limits import (
    ENTRY_BYTES,
    PAGE_BYTES_MAX,
    RANGE_PARTS,
    RANGES_MAX,
    RECONCILE_ROUNDS_MAX,
    SALT_MAX,
)

__all__ = [
    "EARNED",
    "EFFORT_FREE",
    "MESSAGES_MAX",
    "WHOLE",
    "Bounds",
    "Effort",
    "Listed",
    "Part",
    "Plan",
    "Span",
    "Verdict",
    "check_request",
    "check_served",
    "compare",
    "parts_of",
    "print_bytes",
    "read_reply",
]

Bounds = tuple[bytes, bytes]
"""The first and the last target of a range, both included."""

WHOLE: Final[Bounds] = (bytes(32), b"\xff" * 32)
EFFORT_FREE: Final = 16_384
"""How many ranges and slots are asked for before anything has to come of it."""
EARNED: Final = 16
"""What one repaired slot earns: eight ranges lead to it at most, and its item is asked for once."""
MESSAGES_MAX: Final = 4_096
"""Questions in one run. A million ranges: enough to compare ten million items with none."""
TARGET_BYTES: Final = 32
RANK_BYTES: Final = 40
ITEMS_MAX: Final = 2**63
_NOTHING: Final[Bounds] = (WHOLE[1], WHOLE[0])
_CLASSES: Final = frozenset(int(c) for c in ItemClass)


def parts_of(low: bytes, high: bytes) -> list[Bounds]:
    """Return the sixteen equal parts of a range, in order.

    A range of fewer than sixteen targets has parts that nothing is in: they end before they begin.
    """
    first = int.from_bytes(low, "big")
    size = int.from_bytes(high, "big") - first + 1
    edges = [first + size * part // RANGE_PARTS for part in range(RANGE_PARTS + 1)]
    return [
        (_target(begin), _target(end - 1)) if begin < end else _NOTHING
        for begin, end in pairwise(edges)
    ]


def _target(number: int) -> bytes:
    return number.to_bytes(TARGET_BYTES, "big")


def print_bytes(fingerprint: Fingerprint) -> bytes:
    """Return a fingerprint's sum as it crosses the wire: 32 bytes."""
    return fingerprint.value.to_bytes(32, "big")


# --- who answers ---------------------------------------------------------------------------------


def check_request(request: Reconcile) -> None:
    """Raise `RemoteProtocolError` for a question that no honest node asks.

    Ranges stand in order and do not overlap: so a whole message costs no more than one pass over
    the sums of a store, however many ranges it has.
    """
    if request.salt is not None and len(request.salt) > SALT_MAX:
        raise RemoteProtocolError(f"a salt has {SALT_MAX} bytes at most")
    before = b""
    for asked in request.ranges:
        _check_target(asked.low)
        _check_target(asked.high)
        _check_print(asked.items, asked.fingerprint)
        if asked.low > asked.high:
            raise RemoteProtocolError("a range ends before it begins")
        if asked.low <= before:
            raise RemoteProtocolError("ranges overlap, or are not in order")
        before = asked.high
    for target in (*request.wanted, *request.leases_of):
        _check_target(target)


def _check_target(target: bytes) -> None:
    if len(target) != TARGET_BYTES:
        raise RemoteProtocolError(f"a target has {TARGET_BYTES} bytes, this has {len(target)}")


def _check_print(items: int, fingerprint: bytes) -> None:
    if len(fingerprint) != 32:
        raise RemoteProtocolError(f"a fingerprint has 32 bytes, this has {len(fingerprint)}")
    if not 0 <= items < ITEMS_MAX or (not items and any(fingerprint)):
        raise RemoteProtocolError("counts do not add up: no items, and yet a fingerprint")


# --- who asks: reading replies -------------------------------------------------------------------


class Span(NamedTuple):
    """A range to ask about, and what is held in it here."""

    low: bytes
    high: bytes
    round: int
    here: Fingerprint

    def asked(self) -> Range:
        """Return the question."""
        return Range(self.low, self.high, self.here.items, print_bytes(self.here))


class Part(NamedTuple):
    """A 16th of a range that differs, and what the other side holds in it."""

    low: bytes
    high: bytes
    round: int
    there: Fingerprint


class Listed(NamedTuple):
    """A range of which all is known that the other side holds.

    `held` None: it holds more there than was to be learnt in RECONCILE_ROUNDS_MAX rounds.
    """

    low: bytes
    high: bytes
    held: tuple[Held, ...] | None


def read_reply(spans: Sequence[Span], reply: Ranges) -> tuple[list[Part], list[Listed]]:
    """Return what a reply says about the ranges asked for.

    Raises `RemoteProtocolError` for ranges that were not asked for or come twice, for lists that
    are not in order or leave their range, and for counts that do not add up.
    """
    parts: list[Part] = []
    listed: list[Listed] = []
    before = -1
    for said in reply.ranges:
        if not before < said.index < len(spans):
            raise RemoteProtocolError(f"range {said.index} was not asked for, or comes again")
        before = said.index
        span = spans[said.index]
        if said.parts:
            parts += _read_parts(span, said)
        else:
            _check_held(span, said.held)
            listed.append(Listed(span.low, span.high, said.held))
    return parts, listed


def _read_parts(span: Span, said: RangeReply) -> Iterator[Part]:
    if said.held or len(said.parts) != RANGE_PARTS:
        raise RemoteProtocolError(f"a range is listed, or split into {RANGE_PARTS} parts")
    for (low, high), (items, value) in zip(parts_of(span.low, span.high), said.parts, strict=True):
        _check_print(items, value)
        if low > high and items:
            raise RemoteProtocolError("counts do not add up: items where no target fits")
        there = Fingerprint(items, int.from_bytes(value, "big"))
        yield Part(low, high, span.round + 1, there)


def _check_held(span: Span, held: Sequence[Held]) -> None:
    before = (b"", 0)
    for slot in held:
        _check_target(slot.target)
        if not span.low <= slot.target <= span.high:
            raise RemoteProtocolError("a listed target lies outside the range asked for")
        if slot.item_class not in _CLASSES or len(slot.rank) != RANK_BYTES:
            raise RemoteProtocolError("a listed slot has no class or no rank")
        if (slot.target, slot.item_class) <= before:
            raise RemoteProtocolError("a listed slot comes again, or not in order")
        before = (slot.target, slot.item_class)


def check_served(asked: int, reply: Ranges) -> None:
    """Check how far a reply answers what was wanted. Raises `RemoteProtocolError`."""
    if not (1 if asked else 0) <= reply.served <= asked:
        raise RemoteProtocolError(
            f"reconciling makes no progress: {reply.served} of {asked} wanted targets served"
        )
    size = sum(len(item.v) + ENTRY_BYTES for item in reply.items)
    if len(reply.items) > len(_CLASSES) * reply.served or (
        size > PAGE_BYTES_MAX and reply.served > 1
    ):
        raise RemoteProtocolError(
            f"{len(reply.items)} items of {size} bytes for {reply.served} targets; "
            f"{PAGE_BYTES_MAX} bytes were asked for"
        )


# --- who asks: planning --------------------------------------------------------------------------


class Plan:
    """Which ranges are still to be asked about. Holds some 8 x 16 x RANGES_MAX of them at most."""

    def __init__(self, here: Fingerprint) -> None:
        self._open = [Span(*WHOLE, 1, here)]
        self.rounds = 0
        self.messages = 0

    def next(self) -> list[Span]:
        """Return the ranges of the next message, in order; none when all is compared.

        Raises `RemoteProtocolError` where there is no end to it.
        """
        if not self._open:
            return []
        self.messages += 1
        if self.messages > MESSAGES_MAX:
            raise RemoteProtocolError(f"comparing has no end after {MESSAGES_MAX} messages")
        spans = sorted(self._open[-RANGES_MAX:])
        del self._open[-RANGES_MAX:]
        self.rounds = max(self.rounds, *(span.round for span in spans), 0)
        return spans

    def take(self, parts: Sequence[Part], here: Sequence[Fingerprint]) -> list[Listed]:
        """Compare parts with our own prints of them; return those that need no more questions."""
        settled = []
        for part, own in zip(parts, here, strict=True):
            if own == part.there:
                continue
            if not part.there.items:
                settled.append(Listed(part.low, part.high, ()))
            elif part.round > RECONCILE_ROUNDS_MAX:
                settled.append(Listed(part.low, part.high, None))
            else:
                self._open.append(Span(part.low, part.high, part.round, own))
        return settled


class Effort:
    """Questions are paid for with repairs, so that whoever has nothing to give is left soon."""

    def __init__(self) -> None:
        self._left = EFFORT_FREE
        self._repaired = 0

    def spend(self, count: int) -> None:
        """Pay for ranges or slots asked for. Raises `RemoteProtocolError` when all is spent."""
        self._left -= count
        if self._left < 0:
            raise RemoteProtocolError(
                f"reconciling makes no progress: {self._repaired} slots repaired, "
                "and far more were said to differ"
            )

    def earn(self, repaired: int, vain: int = 0) -> None:
        """Count slots that were repaired, and questions that were vain by nobody's fault."""
        self._repaired += repaired
        self._left = self._left + EARNED * repaired + vain


# --- who asks: comparing slots -------------------------------------------------------------------


class Verdict(Enum):
    """What a slot needs."""

    PULL = "pull"
    """The item there is better, or there is none here."""
    PUSH = "push"
    """The item here is better, or there is none there."""
    PULL_LEASE = "pull lease"
    """The same item, which lives longer there."""
    PUSH_LEASE = "push lease"


def compare(
    here: Iterable[StoredItem], there: dict[tuple[bytes, int], Held]
) -> Iterator[tuple[StoredItem, Held | None, Verdict]]:
    """Yield our slots that differ, and take every slot of ours out of `there`.

    What is left in `there` at the end of all our pages of the range is not held here.
    """
    for own in here:
        other = there.pop((own.target, own.item_class), None)
        if other is None:
            yield own, None, Verdict.PUSH
        elif own.rank != other.rank:
            yield own, other, Verdict.PUSH if own.rank > other.rank else Verdict.PULL
        elif own.until != other.until:
            longer = own.until > other.until
            yield own, other, Verdict.PUSH_LEASE if longer else Verdict.PULL_LEASE
