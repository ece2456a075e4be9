"""What a node says of itself: where it can be dialled, and what it offers.

Why contracts: whoever learns such a fact (a transport type that was told its address from outside,
a plugin that serves a VPN) is not who tells it to servers and to the DHT, and one record has one
writer (L14).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from skycore.model.entries import AddressBind, ServiceEntry

__all__ = ["AddressResolver", "OfferedServices", "OwnAddress"]


class OwnAddress(Protocol):
    """Where this node can be dialled from outside, by type of transport; provided by
    `discovery_address`, which says it in the DHT. Take it as `Live[OwnAddress]`.
    """

    def told(self, kind: str, bind: AddressBind | None) -> None:
        """Learn where this node takes connections of a type, as seen from outside; None: nowhere.

        Never waits. `kind` is one that an address record has a place for: "stcpr", "sudph".
        """
        ...

    def find(self, kind: str) -> AddressBind | None:
        """Return what was told last."""
        ...


class AddressResolver(Protocol):
    """The address resolver of this node's settings, for who meets peers through it; provided by
    `discovery_address`. Take it as `Live[AddressResolver]`.
    """

    async def udp_address(self) -> str:
        """Ask it, and return `host:port` of its UDP side; empty where it has none.

        The host may be a name. It is the server's own word: send no more there than to a stranger.
        Raises `DiscoveryError` or `HttpError` where it cannot be asked.
        """
        ...


class OfferedServices(Protocol):
    """What this node offers to others; provided by `discovery_service`, which lists it at its
    server and in the DHT. Take it as `Live[OfferedServices]`.
    """

    def offer(self, entry: ServiceEntry) -> AbstractContextManager[None]:
        """Offer a service while the context lasts. Never waits.

        Its address is this node's key and a port. Two offers of one type and address: the last one
        counts while it lasts. Raises `LocalProtocolError` for another's address.
        """
        ...
