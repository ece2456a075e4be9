"""The event bus: typed, bounded, lossy by declaration.

Why lossy: an event tells that something happened, to tests, metrics and status; nothing may
depend on each one arriving. A subscriber that does not read loses the oldest and is told how many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import anyio

__all__ = ["Events", "Subscription"]

E = TypeVar("E")
EVENTS_HELD_MAX = 1_024


class Subscription(Generic[E]):
    """Events of one type, oldest first; `lost` counts those that did not fit."""

    def __init__(self, limit: int) -> None:
        self._held: deque[E] = deque(maxlen=limit)
        self._some = anyio.Event()
        self.lost = 0

    def put(self, event: E) -> None:
        """Hold an event; the oldest makes room."""
        if len(self._held) == self._held.maxlen:
            self.lost += 1
        self._held.append(event)
        self._some.set()

    def __aiter__(self) -> AsyncIterator[E]:
        return self

    async def __anext__(self) -> E:
        while not self._held:
            self._some = anyio.Event()
            await self._some.wait()
        return self._held.popleft()


class Events:
    """Publish values; subscribe to their types."""

    def __init__(self) -> None:
        self._subscribers: dict[type, list[Subscription[object]]] = {}

    def publish(self, event: object) -> None:
        """Hand an event to whoever subscribed to exactly its type. Never waits."""
        for subscription in self._subscribers.get(type(event), ()):
            subscription.put(event)

    @contextmanager
    def subscribe(self, kind: type[E], limit: int = EVENTS_HELD_MAX) -> Iterator[Subscription[E]]:
        """Receive events of a type while the context lasts."""
        subscription: Subscription[E] = Subscription(limit)
        listeners = self._subscribers.setdefault(kind, [])
        listeners.append(subscription)  # type: ignore[arg-type]
        try:
            yield subscription
        finally:
            listeners.remove(subscription)  # type: ignore[arg-type]
