"""What stands around a server's desk: the DHT behind it, HTTP before it, and how both are.

Why beside the desk: it answers from memory whatever the DHT does, and is tested without it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar

from skycore.contracts.discovery import EntrySource
from skycore.contracts.http import AsgiApp, RouteOptions
from skycore.contracts.status import Status
from skycore.discovery.answers import problem_in
from skycore.discovery.desk import ServerDesk
from skycore.discovery.feeding import Feeding, MakeBody, Outlet, open_feeding
from skycore.discovery.serving import judged
from skycore.discovery.taking import MakeEntries, Taking, open_taking

__all__ = ["BODY_BYTES_MAX", "Exchange", "ServerRoutes", "ServerStatus", "exchanging"]

BODY_BYTES_MAX: Final = 1024 * 1024
E = TypeVar("E", bound="Exchange")


class Exchange:
    """What passes between a server's table and the DHT; None where a setting forbids it.

    A service derives one of its own: what wiring knows it by.
    """

    def __init__(self, feeding: Feeding | None, taking: Taking | None) -> None:
        self.feeding = feeding
        self.taking = taking

    def status_fields(self) -> dict[str, Any]:
        """Return how both ways are."""
        fields: dict[str, Any] = {}
        for part in (self.feeding, self.taking):
            fields |= part.status_fields() if part else {}
        return fields


@asynccontextmanager
async def exchanging(
    kind: type[E],
    desk: ServerDesk,
    outlet: Outlet,
    sources: Iterable[EntrySource],
    make_body: MakeBody,
    make_entries: MakeEntries,
) -> AsyncIterator[E]:
    """Keep table and DHT in step, off every request's path. `sources` is `Live[EntrySource]`."""
    settings, directory, salt = desk.settings, desk.directory, desk.salt
    feeding, taking = None, None
    async with AsyncExitStack() as stack:
        if settings.feed:
            feed = open_feeding(
                directory, salt, make_body, outlet, name=desk.name, verify_s=settings.verify_s
            )
            feeding = await stack.enter_async_context(feed)
        if settings.take:
            take = open_taking(
                directory, salt, sources, make_entries, outlet.clock, outlet.entropy, name=desk.name
            )
            taking = await stack.enter_async_context(take)
        yield kind(feeding, taking)


class ServerRoutes:
    """`contracts.http.HttpRoutes` of a desk."""

    def __init__(
        self,
        desk: ServerDesk,
        paths: Mapping[str, Mapping[str, Any]],
        *,
        cors: bool = False,
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        self.name = desk.name
        self.prefix = desk.settings.prefix
        self.paths = paths
        self.app: AsgiApp = desk.app
        self.options = RouteOptions(
            cors=cors,
            etags=True,
            body_bytes_max=body_bytes_max,
            unlimited=("/health", "/security/nonces"),
            problem=problem_in(desk.shape),
        )


class ServerStatus:
    """What is listed, how requests ended, and whether the DHT says the same."""

    def __init__(
        self,
        desk: ServerDesk,
        exchange: Exchange,
        more: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.name = desk.table.replace("-", "_")
        self._desk = desk
        self._exchange = exchange
        self._more = more

    async def status(self) -> Status:
        """Return how the server is. Asks nobody."""
        desk, directory = self._desk, self._desk.directory
        words, listed = desk.listed()
        fields: dict[str, Any] = {
            "subjects": len(directory),
            **listed,
            "requests": dict(sorted(desk.counters.items())),
            "table_age_s": round(directory.age_s, 1) if directory.is_loaded else None,
            **self._more(),
            **self._exchange.status_fields(),
        }
        told = f"{words} of {len(directory)} keys"
        health, summary = judged(directory, told, fields.get("feed_trouble", ""))
        return Status(health, summary, fields)
