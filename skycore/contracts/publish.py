"""Publisher: the one way facts leave this node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from skycore.contracts.dht import PutReport
from skycore.model.items import Delegation

__all__ = ["Fact", "Published", "Publisher"]


class Fact(msgspec.Struct, frozen=True, gc=False):
    """Something to publish: the encoded value of a subject under a salt; None deletes.

    `v` is the whole value, up to 16 MiB: the publisher puts into blocks what an item cannot hold.
    """

    salt: bytes
    v: bytes | None
    subject: bytes | None = None
    """None: this node's own key. Another needs a delegation."""
    doubted: bool = False
    """It may not stand as it was published: whoever took it is asked again, though it is as it
    was, and it is signed anew where somebody does not hold it any more."""


class Published(msgspec.Struct, frozen=True, gc=False):
    """What became of a fact."""

    seq: int
    unchanged: bool
    """The content was published before: its lease was renewed at most, nothing was signed anew."""
    reports: tuple[PutReport, ...] = ()
    """One per mirror."""


class Publisher(Protocol):
    """Stamps, signs what changed, and hands it to every mirror. The only source of seq.

    Told "seq too low" about our own record it retries once with the current seq + 1. Raises
    `NotAuthorisedError` for a subject that is not ours and for which there is no delegation.
    """

    def mirrors_until(self, salt: bytes) -> int:
        """Return until when (Unix seconds) the network's authority lets this node publish under a
        salt for any subject, as far as is known now; 0: it does not."""
        ...

    async def publish(self, fact: Fact, *, cas: int | None = None) -> Published:
        """Publish one fact."""
        ...

    async def publish_many(
        self,
        facts: Sequence[Fact],
        *,
        delegations: Sequence[Delegation] = (),
        progress: Callable[[int], None] | None = None,
    ) -> Sequence[Published]:
        """Publish a batch; `delegations` are used besides the configured ones."""
        ...
