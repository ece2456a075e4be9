"""Access: who may do what. Default deny."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum, IntEnum
from typing import Protocol

from skycore.model.keys import PubKey

__all__ = ["Access", "AccessPolicy", "Decision", "Level"]


class Level(IntEnum):
    """What a method needs, and what a caller has. Higher includes lower."""

    READ = 1
    OPERATE = 2
    ADMIN = 3


class Decision(Enum):
    """A policy's word on one question."""

    ALLOW = "allow"
    DENY = "deny"
    ABSTAIN = "abstain"


class AccessPolicy(Protocol):
    """One opinion. Any DENY wins, else any ALLOW, else the answer is no."""

    def decide(self, peer: PubKey, level: Level) -> Decision:
        """Say whether this authenticated key may act at this level."""
        ...

    def on_change(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Be told when an answer may have changed, so that open streams are judged again."""
        ...


class Access(Protocol):
    """All policies folded into one answer."""

    def allows(self, peer: PubKey, level: Level) -> bool:
        """Tell whether the key may act at this level."""
        ...

    def on_change(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Be told when an answer may have changed."""
        ...
