"""Placing one item at k nodes: whom to send to, when enough have it, and the truth at the end.

Why a machine: a put must not take as long as its slowest replica (C44: five dead nodes of twenty
used to cost ten seconds each), must replace those that fail by the next closest, and must report
what each node said, not what was hoped (C15). Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dht_kademlia.core.messages import ErrorCode
from dht_kademlia.core.routing_table import K
from skycore.contracts.dht import Replica
from skycore.model.addresses import Contact

__all__ = ["GRACE_S", "Placement"]

GRACE_S: Final = 0.25
"""How long the rest is waited for once a majority has the item."""
ACCEPTED_MAX: Final = 2
"""Codes up to here mean that the node now holds exactly what was sent."""


class Placement:
    """One item on its way to its k closest nodes."""

    def __init__(self, contacts: Sequence[Contact], *, now: float, limit_s: float, k: int = K):
        self._spare = list(contacts[k:])
        self._to_ask = list(contacts[:k])
        self._wanted = len(self._to_ask)
        self._asked: dict[bytes, Replica | None] = {}
        self._deadline = now + limit_s
        self._accepted = 0
        self._grace: float | None = None

    def next(self) -> list[Contact]:
        """Return whom to send it to now."""
        chosen, self._to_ask = self._to_ask, []
        for contact in chosen:
            self._asked[contact.public] = None
        return chosen

    def answered(self, replica: Replica, now: float) -> None:
        """Take what a node said."""
        self._asked[replica.peer] = replica
        if replica.code <= ACCEPTED_MAX:
            self._accepted += 1
            if self._grace is None and self._accepted >= self._wanted // 2 + 1:
                self._grace = now + GRACE_S

    def failed(self, public: bytes, text: str) -> None:
        """Note a node that gave no answer; the next closest takes its place."""
        self._asked[public] = Replica(public, ErrorCode.NO_ANSWER, 0, text)
        if self._spare:
            self._to_ask.append(self._spare.pop(0))

    def wake_s(self) -> float:
        """Return when it is over at the latest."""
        return self._deadline if self._grace is None else min(self._grace, self._deadline)

    def done(self, now: float) -> bool:
        """Tell whether everybody answered, or enough did and the rest had its time."""
        if now >= self.wake_s():
            return True
        return not self._to_ask and all(r is not None for r in self._asked.values())

    def replicas(self) -> tuple[Replica, ...]:
        """Return what each node said, in the order asked."""
        return tuple(
            replica or Replica(public, ErrorCode.NO_ANSWER, 0, "no answer yet")
            for public, replica in self._asked.items()
        )
