"""Status: what a part says of itself, for `visor info` and Health."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Protocol

import msgspec

__all__ = ["Health", "Status", "StatusSource"]


class Health(Enum):
    """How a part is."""

    OK = "ok"
    DEGRADED = "degraded"
    """Works in part, or is still on its way; says why."""
    DOWN = "down"


class Status(msgspec.Struct, frozen=True):
    """A part's own words, true at the time of asking."""

    health: Health
    summary: str
    fields: Mapping[str, Any] = {}
    """Plain JSON data; keys are stable, units and `max` stand last in their names."""


class StatusSource(Protocol):
    """Whoever has something to say."""

    name: str

    async def status(self) -> Status:
        """Return the truth now. Must not wait for a peer."""
        ...
