"""What SUDPH says of itself: the NAT found, where this node is seen, how the resolver is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from skycore.contracts.runtime import Clock
from skycore.contracts.status import Health, Status, StatusSource
from skycore.contracts.transport import TransportType
from skycore.model.addresses import join_host_port
from skycore.model.sudph import NAT_SYMMETRIC, NAT_WORDS
from transport_sudph.finding import LOOK_S
from transport_sudph.service import Sudph

__all__ = ["open_status"]


class _Status:
    name = "sudph"

    def __init__(self, sudph: Sudph, clock: Clock) -> None:
        self._sudph = sudph
        self._clock = clock

    async def status(self) -> Status:
        """Return how this node can be met."""
        sudph, binding = self._sudph, self._sudph.meeting.binding
        is_bound, seen = sudph.meeting.is_bound, binding.seen if binding else None
        resolver = join_host_port(*binding.resolver) if binding else sudph.finder.name
        fields: dict[str, Any] = {
            "listen": join_host_port(*sudph.endpoint.local),
            "nat": NAT_WORDS[binding.nat] if binding else NAT_WORDS[0],
            "mapped": join_host_port(*seen) if seen else "",
            "resolver": resolver,
            "bound": is_bound,
            "bindings": binding.rebound if binding else 0,
            "connections": len(sudph.endpoint),
            "counters": dict(sorted(sudph.endpoint.counters.items())),
        }
        if binding is None:
            trouble = sudph.finder.trouble
            if trouble and sudph.finder.name:
                return Status(Health.DEGRADED, f"no resolver: {trouble}", fields)
            return Status(Health.OK, "dials known addresses only: no resolver", fields)
        if not is_bound:
            waited_s = self._clock.now() - sudph.meeting.unbound_at
            summary = "not bound: the resolver does not answer" if waited_s > LOOK_S else "binding"
            return Status(Health.DEGRADED, f"{summary} ({resolver})", fields)
        nat = f"NAT {fields['nat']}"
        if binding.nat == NAT_SYMMETRIC:
            nat += ": meets who is not behind a port-restricted or symmetric one"
        return Status(Health.OK, f"bound at {resolver}, seen at {fields['mapped']}, {nat}", fields)


@asynccontextmanager
async def open_status(
    types: tuple[TransportType, ...], clock: Clock
) -> AsyncIterator[StatusSource]:
    """Say whether this node can be met, and how."""
    (sudph,) = (one for one in types if isinstance(one, Sudph))
    yield _Status(sudph, clock)
