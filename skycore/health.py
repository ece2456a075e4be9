"""Asking every part how it is: what `visor info`, /health and /metrics have in common."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import anyio

from skycore.contracts.status import Health, Status, StatusSource
from skycore.errors import SkycoreError

__all__ = ["ask_all", "worst"]

log = logging.getLogger(__name__)
WORST_FIRST = (Health.DOWN, Health.DEGRADED, Health.OK)


async def ask_all(
    sources: Iterable[StatusSource], timeout_s: float
) -> Sequence[tuple[str, Status]]:
    """Ask every part at once; return (name, status) by name. One that is silent is degraded."""
    asked = sorted(sources, key=lambda source: source.name)
    told: list[Status | None] = [None] * len(asked)

    async def ask(i: int, source: StatusSource) -> None:
        told[i] = await _ask(source, timeout_s)

    async with anyio.create_task_group() as tasks:
        for i, source in enumerate(asked):
            tasks.start_soon(ask, i, source)
    return [(s.name, t) for s, t in zip(asked, told, strict=True) if t is not None]


async def _ask(source: StatusSource, timeout_s: float) -> Status:
    with anyio.move_on_after(timeout_s):
        try:
            return await source.status()
        except SkycoreError as bad:
            return Status(Health.DOWN, str(bad))
        except Exception as bug:  # its bug must not hide how the other parts are
            log.exception("status failed part=%s", source.name)
            return Status(Health.DOWN, f"asking it failed: {type(bug).__name__}")
    return Status(Health.DEGRADED, f"did not answer within {timeout_s:g} s")


def worst(told: Iterable[tuple[str, Status]]) -> Health:
    """Return a node's health: that of its worst part."""
    found = {status.health for _, status in told}
    return next((health for health in WORST_FIRST if health in found), Health.OK)
