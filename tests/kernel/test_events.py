"""The event bus: typed, in order, bounded, and nobody ever waits to publish."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
from anyio.lowlevel import checkpoint

from skycore.events import Events
from skycore.testing.loop import simulate


@dataclass(frozen=True)
class Rained:
    mm: int


@dataclass(frozen=True)
class Shone:
    hours: int


class Poured(Rained):
    pass


async def take(subscription, count):
    return [await anext(subscription) for _ in range(count)]


async def test_a_subscriber_gets_its_type_alone_in_order():
    events = Events()
    with events.subscribe(Rained) as rain, events.subscribe(Shone) as shine:
        for event in (Rained(1), Shone(2), Rained(3), Poured(4)):
            events.publish(event)
        assert await take(rain, 2) == [Rained(1), Rained(3)]
        assert await take(shine, 1) == [Shone(2)]


async def test_the_oldest_make_room_and_are_counted():
    events = Events()
    with events.subscribe(Rained, limit=3) as rain:
        for mm in range(10):
            events.publish(Rained(mm))
        assert rain.lost == 7
        assert await take(rain, 3) == [Rained(7), Rained(8), Rained(9)]


async def test_after_the_context_nothing_is_held():
    events = Events()
    with events.subscribe(Rained) as rain:
        pass
    events.publish(Rained(1))
    assert not rain._held


def test_a_waiting_subscriber_wakes_and_a_cancelled_one_loses_nothing():
    async def main():
        events = Events()
        seen = []

        async def read(subscription):
            seen.append(await anext(subscription))
            seen.append(await anext(subscription))

        with events.subscribe(Rained) as rain:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, rain)
                await anyio.sleep(1)
                events.publish(Rained(1))
                await anyio.sleep(1)
                assert seen == [Rained(1)]
                tasks.cancel_scope.cancel()
            events.publish(Rained(2))
            await checkpoint()
            assert await take(rain, 1) == [Rained(2)]

    simulate(main)
