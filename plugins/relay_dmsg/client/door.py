"""The transport type `dmsg`, as the transport manager sees it.

Why apart from the client: transports are made of types, streams of transports, and a relay's
sessions of streams. So the door is there first and empty, and the client moves in once what it
stands on is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
from anyio.abc import ByteStream

from relay_dmsg.numbers import KIND
from skycore.contracts.transport import Listener
from skycore.errors import DialError
from skycore.model.addresses import Address
from skycore.model.keys import PubKey, short

__all__ = ["Door", "Inside"]


class Inside(Protocol):
    """What the door needs of the client."""

    @property
    def can_ask(self) -> bool:
        """Whether there is a session through which somebody may be asked for."""
        ...

    def told(self) -> Sequence[Address]:
        """Return by which servers this node can be reached."""
        ...

    async def dial(self, remote: PubKey, addresses: Sequence[Address]) -> ByteStream:
        """Open a relayed stream. Raises `DialError`."""
        ...

    async def find(self, remote: PubKey) -> Sequence[Address]:
        """Look up by which servers a key can be reached."""
        ...


class Door:
    """`contracts.transport.RelayType`, and its own `Listener`."""

    name = KIND

    def __init__(self, inbound_max: int) -> None:
        self.inside: Inside | None = None
        self._inbound_max = inbound_max
        self._waiting: deque[ByteStream] = deque()
        self._promised = 0
        self._some = anyio.Event()
        self._listening = False

    # --- the type --------------------------------------------------------------------------------

    @property
    def can_ask(self) -> bool:
        """Whether a dial without an address makes sense."""
        return self.inside is not None and self.inside.can_ask

    async def dial(self, remote: PubKey, addresses: Sequence[Address]) -> ByteStream:
        """Open a relayed stream. Raises `DialError`."""
        if self.inside is None:
            raise DialError(f"no relay can be used yet to reach {short(remote)}")
        return await self.inside.dial(remote, addresses)

    async def find(self, remote: PubKey) -> Sequence[Address]:
        """Look up by which servers a key can be reached."""
        return await self.inside.find(remote) if self.inside is not None else ()

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Listener]:
        """Take relayed streams while the context lasts."""
        self._listening = True
        try:
            yield self
        finally:
            self._listening = False
            while self._waiting:
                await self._waiting.popleft().aclose()

    # --- the listener ----------------------------------------------------------------------------

    @property
    def addresses(self) -> Sequence[Address]:
        """By which servers this node can be reached, as of now."""
        return self.inside.told() if self.inside is not None else ()

    async def accept(self) -> ByteStream:
        """Return the next relayed stream."""
        while not self._waiting:
            self._some = anyio.Event()
            await self._some.wait()
        return self._waiting.popleft()

    # --- for the client --------------------------------------------------------------------------

    def promise(self) -> bool:
        """Keep a place for a stream that is about to be accepted; False where there is none."""
        if not self._listening or len(self._waiting) + self._promised >= self._inbound_max:
            return False
        self._promised += 1
        return True

    def keep(self, stream: ByteStream | None) -> bool:
        """Fill the promised place; None: it came to nothing. False: nobody takes it any more."""
        self._promised -= 1
        if stream is None or not self._listening:
            return False
        self._waiting.append(stream)
        self._some.set()
        return True
