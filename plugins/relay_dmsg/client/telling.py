"""Telling others by which servers this node can be reached: the record `dmsg`, and the discovery.

Why after a moment: at a start, and when a server is lost, sessions change several times within a
second, and what counts is where that ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import anyio

from skycore import Live
from skycore.contracts.dmsg import DmsgPresence
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact, Publisher
from skycore.errors import SkycoreError
from skycore.model import dmsg_entry
from skycore.model.entries import DmsgClient, DmsgEntry
from skycore.model.keys import PubKey

__all__ = ["Teller"]

log = logging.getLogger(__name__)
DMSG: Final = b"dmsg"
DEBOUNCE_S: Final = 1.0
RETRY_S: Final = 30.0
REPEAT_S: Final = 300.0
LEAVE_S: Final = 2.0
"""How long taking the record back may take when the node stops."""


class Teller:
    """Publishes the delegated servers of this node."""

    def __init__(
        self,
        own: PubKey,
        client_type: str,
        servers: Callable[[], Sequence[PubKey]],
        publisher: Publisher | None,
        namespaces: Namespaces,
        presences: Live[DmsgPresence],
    ) -> None:
        self._own = own
        self._client_type = client_type
        self._servers = servers
        self._publisher = publisher
        self._namespace = namespaces.find(DMSG)
        self._presences = presences
        self._changed = anyio.Event()
        self._told = False
        self._is_over = False
        self._turn = anyio.Lock()

    def change(self) -> None:
        """Note that the sessions changed."""
        self._changed.set()

    async def run(self) -> None:
        """Tell after each change, and again every REPEAT_S, until `leave`."""
        wait_s = REPEAT_S
        while not self._is_over:
            with anyio.move_on_after(wait_s):
                await self._changed.wait()
                await anyio.sleep(DEBOUNCE_S)
            self._changed = anyio.Event()
            try:
                async with self._turn:
                    await self._tell()
                wait_s = REPEAT_S
            except SkycoreError as bad:
                log.warning("cannot publish our DMSG servers error=%r", str(bad))
                wait_s = RETRY_S

    async def leave(self) -> None:
        """Take the record back: nobody looks for a visor that stopped until its lease ends.

        Bounded. Raises nothing. The entry at the discovery is taken back by whoever registered it.
        """
        self._is_over = True
        with anyio.move_on_after(LEAVE_S):
            async with self._turn:  # a record on its way would come after the end of it
                if not self._told or self._publisher is None or self._namespace is None:
                    return
                try:
                    await self._publisher.publish(Fact(DMSG, None))
                except SkycoreError as bad:
                    log.info("our DMSG record could not be taken back error=%r", str(bad))

    async def _tell(self) -> None:
        servers = sorted(self._servers())
        if self._is_over or (not servers and not self._told):
            return
        self._told = True
        for presence in self._presences:
            presence.set_servers(servers, client_type=self._client_type)
        if self._publisher is None or self._namespace is None:
            return
        client = DmsgClient(tuple(key.hex() for key in servers))
        entry = DmsgEntry(  # word for word what a presence registers: both are compared
            self._own.hex(), dmsg_entry.VERSION, client=client, client_type=self._client_type
        )
        await self._publisher.publish(Fact(DMSG, self._namespace.encode(entry)))
