"""The iterative lookup as a pure state machine: whom to ask next, what was found, when it is over.

Why a machine: the same code runs over encrypted streams and on a heap of timed events with a
thousand nodes. It never waits for all of its alpha questions: a slow peer (three times as long as
the last answer took, 0.1 to 0.5 s) gives up its slot, after PATIENCE_S its hope; a failed one has
left the shortlist (O18). Every value handed in was verified before it is compared (C5).

When a get is over early (the read quorum). READ_QUORUM nodes hold exactly the best verified value,
the nearest READ_QUORUM known have answered (else those just outside the k closest, who keep what
was once their share, would agree on old news), and no node gave an older value or junk. One that
disagrees makes the lookup ask all
of the k closest. Nodes that hold nothing neither agree nor disagree: newcomers are empty. So three
nodes nearest to the question that all missed the news (or replay an old item together) can hide it
from a quick read; a strict one (quorum k) asks all of the k closest always (D10).

Bounds, whatever peers answer (D23): ROUNDS_MAX steps away from the start, CALLS_MAX questions,
DEADLINE_S seconds, SHORTLIST_MAX candidates. Source: the Kademlia paper, section 2.3.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from itertools import islice
from typing import Final

from dht_kademlia.core.contacts import clean_contact, id_of
from dht_kademlia.core.routing_table import ALPHA, K
from skycore.model.addresses import Contact

__all__ = [
    "CALLS_MAX",
    "DEADLINE_S",
    "PATIENCE_S",
    "READ_QUORUM",
    "ROUNDS_MAX",
    "SLOW_S",
    "Candidate",
    "Lookup",
    "Outcome",
]

ROUNDS_MAX: Final = 20
CALLS_MAX: Final = 120
DEADLINE_S: Final = 10.0
SHORTLIST_MAX: Final = 6 * K
SLOW_S: Final = 0.5
SLOW_MIN_S: Final = 0.1
SLOW_FACTOR: Final = 3.0
PATIENCE_S: Final = 3.0
READ_QUORUM: Final = 3


class Outcome(Enum):
    """How a lookup ended."""

    FOUND = "found"
    MISS = "miss"
    """Everybody near was asked; there is nothing."""
    EXHAUSTED = "exhausted"
    """A bound was reached first."""
    ALONE = "alone"
    """Nobody answered at all."""


class _State(IntEnum):
    FRESH = 0
    ASKED = 1
    SLOW = 2
    ANSWERED = 3
    FAILED = 4


@dataclass(eq=False, slots=True)
class Candidate:
    """A node on the shortlist."""

    contact: Contact
    distance: int
    depth: int
    state: _State = _State.FRESH
    asked_s: float = 0.0

    def __lt__(self, other: Candidate) -> bool:
        return self.distance < other.distance


class Lookup:
    """One lookup. Ask `next`, report `answered` or `failed`, call `tick` as time passes."""

    def __init__(
        self,
        target: int,
        start: Iterable[Contact],
        *,
        own: bytes,
        now: float,
        settle: int = K,
        wants_value: bool = False,
        quorum: int = READ_QUORUM,
        best: bytes = b"",
        k: int = K,
        alpha: int = ALPHA,
        first: Sequence[Contact] = (),
        patient: bool = False,
    ) -> None:
        self.target = target
        self.best = best
        """Class ‖ rank of the best verified value known; empty for none."""
        self.calls = 0
        self.hops = 0
        """How many steps away from the start the farthest question went."""
        self.exhausted = False
        self._own = own
        self._k = k
        self._alpha = alpha
        self._settle = min(settle, k)
        self._wants_value = wants_value
        self._unwanted = _State.FAILED if patient else _State.SLOW
        """Slow nodes are passed over, or waited for until they fail."""
        self._quorum = quorum
        self._deadline = now + DEADLINE_S
        self._agreeing = 0
        self._disputed = False
        self._slow_s = SLOW_S
        self._open: list[Candidate] = []
        self._list: list[Candidate] = []
        self._by_key: dict[bytes, Candidate] = {}
        self._over = False
        for contact in (*start, *first):
            self._add(contact, 0)
        self._first = [contact.public for contact in first]
        """Asked with the first question and besides alpha, however far they are."""

    # --- driving ---------------------------------------------------------------------------------

    def next(self, now: float) -> list[Candidate]:
        """Return whom to ask now; they count as asked from here on."""
        if self.done(now):
            return []
        free = self._free_slots()
        chosen: list[Candidate] = []
        for candidate in self._needed(self._window()):
            if len(chosen) >= free:
                break
            if candidate.state is _State.FRESH and candidate.depth <= ROUNDS_MAX:
                if self.calls >= CALLS_MAX:
                    self.exhausted = True
                    break
                self._ask(candidate, now)
                chosen.append(candidate)
        if self._first:
            chosen += self._ask_first(now)
        return chosen

    def _ask(self, candidate: Candidate, now: float) -> None:
        candidate.state, candidate.asked_s = _State.ASKED, now
        self.calls += 1
        self._open.append(candidate)
        self.hops = max(self.hops, candidate.depth)

    def _ask_first(self, now: float) -> list[Candidate]:
        names, self._first = self._first, []
        found = [self._by_key[name] for name in names if name in self._by_key]
        fresh = [candidate for candidate in found if candidate.state is _State.FRESH]
        for candidate in fresh:
            self._ask(candidate, now)
        return fresh

    def _free_slots(self) -> int:
        waiting = sum(c.state is _State.ASKED for c in self._open)
        free = self._alpha - waiting
        if self._wants_value and self.best and not self._disputed:
            nearest = sum(c.state is _State.FRESH for c in self._nearest())
            free = min(free, max(self._quorum - self._agreeing - waiting, nearest))
        return free

    def _nearest(self) -> list[Candidate]:
        """Return the candidates without whose word a get is not over early."""
        window = (c for c in self._window() if c.state is not _State.SLOW)
        return list(islice(window, self._quorum))

    def tick(self, now: float) -> None:
        """Let time pass: slow ones free their slots, hopeless ones are given up."""
        for candidate in list(self._open):
            waited = now - candidate.asked_s
            if waited >= PATIENCE_S:
                candidate.state = _State.FAILED
                self._open.remove(candidate)
            elif waited >= self._slow_s:
                candidate.state = _State.SLOW

    def wake_s(self) -> float:
        """Return when `tick` has something to do next."""
        waits = [
            c.asked_s + (self._slow_s if c.state is _State.ASKED else PATIENCE_S)
            for c in self._open
        ]
        return min([self._deadline, *waits])

    def answered(
        self,
        public: bytes,
        contacts: Sequence[Contact],
        *,
        now: float,
        rank: bytes = b"",
        junk: bool = False,
        teller_is_global: bool = False,
    ) -> None:
        """Take an answer. `rank`: class ‖ rank of its best verified value; `junk`: it lied."""
        candidate = self._by_key.get(public)
        if candidate is None:
            return
        self._close(candidate, _State.ANSWERED)
        usual_s = SLOW_FACTOR * (now - candidate.asked_s)
        self._slow_s = min(SLOW_S, max(SLOW_MIN_S, usual_s))
        if junk:
            self._disputed = True
        if rank:
            self._compare(rank)
        for contact in contacts:
            if contact.public in self._by_key or contact.public == self._own:
                continue
            cleaned = clean_contact(contact, len(self._own), teller_is_global=teller_is_global)
            if cleaned is not None:
                self._add(cleaned, candidate.depth + 1)

    def _compare(self, rank: bytes) -> None:
        if rank == self.best:
            self._agreeing += 1
            return
        if self.best:
            self._disputed = True
        if rank > self.best:
            self.best, self._agreeing = rank, 1

    def failed(self, public: bytes) -> None:
        """Note that there was no answer: the node leaves the shortlist."""
        candidate = self._by_key.get(public)
        if candidate is not None and candidate.state is not _State.ANSWERED:
            self._close(candidate, _State.FAILED)

    def _close(self, candidate: Candidate, state: _State) -> None:
        if candidate in self._open:
            self._open.remove(candidate)
        candidate.state = state

    # --- the shortlist ---------------------------------------------------------------------------

    def _add(self, contact: Contact, depth: int) -> None:
        if contact.public in self._by_key or contact.public == self._own:
            return
        candidate = Candidate(contact, id_of(contact.public) ^ self.target, depth)
        if len(self._list) >= SHORTLIST_MAX:
            last = self._list[-1]
            if last.distance <= candidate.distance:
                return
            self._list.pop()
            if last.state is _State.FRESH:  # one that was asked stays known: it is not asked again
                del self._by_key[last.contact.public]
        self._by_key[contact.public] = candidate
        insort(self._list, candidate)

    def _window(self) -> list[Candidate]:
        """Return the k closest that are not known to be dead."""
        found: list[Candidate] = []
        for candidate in self._list:
            if candidate.state is not _State.FAILED:
                found.append(candidate)
                if len(found) == self._k:
                    break
        return found

    def _needed(self, window: list[Candidate]) -> list[Candidate]:
        """Return those of the k closest without whose word the lookup is not over."""
        if self._wants_value:
            return window
        # a place to put: whoever is slow is no good place anyway, unless all must agree on it
        return [c for c in window if c.state is not self._unwanted][: self._settle]

    # --- the end ---------------------------------------------------------------------------------

    def done(self, now: float) -> bool:
        """Tell whether the lookup is over."""
        if not self._over:
            self._over = self._ended(now)
        return self._over

    def _ended(self, now: float) -> bool:
        if now >= self._deadline:
            self.exhausted = True
            return True
        agreed = self._wants_value and self._agreeing >= self._quorum and not self._disputed
        if agreed and all(c.state is _State.ANSWERED for c in self._nearest()):
            return True
        window = self._window()
        if all(c.state is _State.ANSWERED for c in self._needed(window)):
            return True
        askable = any(c.state is _State.FRESH and c.depth <= ROUNDS_MAX for c in window)
        if askable and self.calls < CALLS_MAX:
            return False
        if not self._open:
            self.exhausted = self.exhausted or any(c.state is _State.FRESH for c in window)
            return True
        return False

    @property
    def outcome(self) -> Outcome:
        """How it ended, as far as values go."""
        if self.best:
            return Outcome.FOUND
        if self.exhausted:
            return Outcome.EXHAUSTED
        if not any(c.state is _State.ANSWERED for c in self._list):
            return Outcome.ALONE
        return Outcome.MISS

    def closest(self, spare: int = 0) -> list[Contact]:
        """Return the k closest that were not found dead or slow, and up to `spare` more."""
        alive = [c for c in self._list if c.state not in (_State.FAILED, self._unwanted)]
        return [c.contact for c in alive[: self._k + spare]]

    def dead(self) -> list[bytes]:
        """Return who did not answer."""
        return [c.contact.public for c in self._list if c.state is _State.FAILED]
