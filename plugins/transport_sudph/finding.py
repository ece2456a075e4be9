"""What the rest of the node tells SUDPH, and is told by it: the resolver, and the address seen.

Why a loop and not one look: a resolver may be known by name, moves, restarts on another port, or is
not there yet when this node starts. While the binding stands nobody is asked anything.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from typing import Final

import anyio

from skycore.contracts.runtime import Clock, Endpoint, Lifecycle, Network
from skycore.contracts.services import AddressResolver, OwnAddress
from skycore.errors import SkycoreError
from skycore.model.addresses import join_host_port, split_host_port
from skycore.model.entries import AddressBind
from transport_sudph.core.punching import is_target
from transport_sudph.meeting import Meeting
from transport_sudph.settings import SudphSettings

__all__ = ["KIND", "LOOK_S", "ResolverFinder", "literal", "tell_own"]

log = logging.getLogger(__name__)

KIND: Final = "sudph"
LOOK_S: Final = 20.0
"""How long a resolver has to answer before it is looked for anew."""
FIRST_S: Final = 2.0
LONGEST_S: Final = 60.0
ASK_S: Final = 10.0
ROUNDING_S: Final = 1e-3
UNTELL_S: Final = 120.0
"""How long this node is still said to be where it was last seen: resolvers restart."""


def literal(text: str) -> Endpoint | None:
    """Return an address that needs no looking up."""
    host, port = split_host_port(text)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ("127.0.0.1", port) if host == "localhost" else None
    return host, port


class ResolverFinder:
    """Keeps a meeting bound at the resolver of the settings, else at the node's own."""

    def __init__(
        self,
        settings: SudphSettings,
        meeting: Meeting,
        clock: Clock,
        network: Network,
        resolvers: Iterable[AddressResolver],
        *,
        six: bool,
    ) -> None:
        """`six`: the socket can send to IPv6 addresses."""
        self._settings = settings
        self._meeting = meeting
        self._clock = clock
        self._network = network
        self._resolvers = resolvers
        self._six = six
        self.name = settings.resolver
        """Who is looked for; empty where there is nobody."""
        self.trouble = ""
        """Why it was not found, for people."""

    async def run(self, lifecycle: Lifecycle | None) -> None:
        """Look whenever this node is not bound; for ever, or until there is nobody to look for."""
        if lifecycle is not None and not self._settings.resolver:
            await lifecycle.wait_ready()
        if not self._settings.resolver and not any(True for _ in self._resolvers):
            return
        wait_s = FIRST_S
        while True:
            if self._meeting.is_bound:
                self.trouble, wait_s = "", FIRST_S
                await anyio.sleep(LOOK_S)
                continue
            if await self._look():
                wait_s = FIRST_S
                await anyio.sleep(LOOK_S)
            else:
                await anyio.sleep(wait_s)
                wait_s = min(LONGEST_S, 2 * wait_s)

    async def _look(self) -> bool:
        """Find the resolver and bind there; tell whether there is one."""
        try:
            with anyio.move_on_after(ASK_S) as limit:
                self.name = self._settings.resolver or await self._ask()
                to = await self._endpoint(self.name) if self.name else None
        except SkycoreError as bad:
            self.trouble = str(bad)
            return False
        if limit.cancelled_caught or to is None:
            late = "nobody answers in time" if limit.cancelled_caught else self.trouble
            self.trouble = late or "the address resolver takes no sudph bindings"
            return False
        self._meeting.use(to)
        return True

    async def _ask(self) -> str:
        for resolver in self._resolvers:
            return await resolver.udp_address()
        return ""

    async def _endpoint(self, text: str) -> Endpoint | None:
        """Return an address of a name: the next one, where the one in use does not answer."""
        host, port = split_host_port(text)
        found = [
            (address, port)
            for address in await self._network.resolve(host)
            if (self._six or ":" not in address) and is_target((address, port), near=True)
        ]
        if not found:
            self.trouble = f"{text} has no address that this socket can send to"
            return None
        binding = self._meeting.binding
        if binding is not None and binding.resolver in found:
            return found[(found.index(binding.resolver) + 1) % len(found)]
        return found[0]


async def tell_own(
    meeting: Meeting, owns: Iterable[OwnAddress], clock: Clock, lifecycle: Lifecycle | None
) -> None:
    """Tell what the resolver sees to whoever publishes it; for ever."""
    if lifecycle is not None:
        await lifecycle.wait_ready()
    while True:
        seen = meeting.binding.seen if meeting.binding is not None else None
        lasts_s = UNTELL_S - (clock.now() - meeting.unbound_at)
        if seen is not None or lasts_s <= 0:
            for own in owns:
                own.told(KIND, _bind_of(seen))
        news = meeting.news
        with anyio.move_on_after(lasts_s + ROUNDING_S if seen is None and lasts_s > 0 else None):
            await news.wait()


def _bind_of(seen: Endpoint | None) -> AddressBind | None:
    if seen is None or not is_target(seen, near=True):
        return None
    text, six = join_host_port(*seen), ":" in seen[0]
    return AddressBind(
        port=str(seen[1]), remote_addr="" if six else text, remote_addr_v6=text if six else ""
    )
