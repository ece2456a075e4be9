"""How often the binding's loop turns: as often as something is due, whatever clocks round."""

from __future__ import annotations

import anyio
import pytest

from skycore.testing import SimClock, sim_backend
from transport_sudph.core.binding import Binding


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=1e9)


@pytest.fixture
def ticks(monkeypatch):
    """Count the turns of the loop, and those in which nothing was due."""
    counts = {"all": 0, "idle": 0}
    tick = Binding.tick

    def counted(self, now):
        before = self.next_at
        out = tick(self, now)
        counts["all"] += 1
        counts["idle"] += not out and self.next_at == before
        return out

    monkeypatch.setattr(Binding, "tick", counted)
    return counts


class Early(SimClock):
    """Timers of real loops may fire by their clock's resolution too early."""

    early_s = 1e-9

    def now(self):
        return super().now() - self.early_s


@pytest.mark.parametrize("starts_at_s", [0.0, 1 / 3, 86_400.1, 3e7 + 0.7])
@pytest.mark.parametrize("clock", [SimClock, Early])
async def test_the_binding_turns_only_when_something_is_due(ground, ticks, clock, starts_at_s):
    world = ground()
    await anyio.sleep(starts_at_s)
    world.clock = clock()
    async with world.resolving(), world.node("alice", "10.0.0.1", resolver=True) as alice:
        await world.bind(alice)
        await anyio.sleep(3_600)
        renewals = 3_600 / 90
        assert 360 <= ticks["all"] <= 360 + 3 * renewals + 10
        assert ticks["idle"] <= renewals + 3  # a new binding has another time for what comes next


async def test_a_resolver_that_is_silent_is_asked_ever_more_rarely(ground, ticks):
    world = ground()
    world.resolver.silent = True
    async with world.resolving(), world.node("alice", "10.0.0.1", resolver=True):
        await anyio.sleep(3_600)
        assert 100 <= ticks["all"] <= 180
        assert ticks["idle"] <= 1
