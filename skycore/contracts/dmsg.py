"""DMSG presence: what this node is in DMSG discovery, kept true by whoever registers it.

Why a contract: the relay knows its sessions and addresses, and must not know how entries are
signed, numbered, refreshed or where they go. It says what is so; when a request is due is decided
in one place, and a fact that changes nothing costs none (upstream's fix #2302).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from skycore.model.entries import DmsgServer
from skycore.model.keys import PubKey

__all__ = ["DmsgPresence"]


class DmsgPresence(Protocol):
    """This node's own DMSG entry. Nothing is registered before somebody says something.

    None of the methods waits: entries leave in the background, all changes of a second together.
    """

    def set_servers(self, servers: Collection[PubKey], *, client_type: str = "visor") -> None:
        """Say by which DMSG servers this node can be reached now: it is a client.

        None at all is told, too. The order means nothing. At most 64 count, the first ones.
        """
        ...

    def set_server(self, facts: DmsgServer) -> None:
        """Say that this node is a DMSG server, and where. A change of any fact goes out at once.

        `server_type` is left out: a discovery server says it.
        """
        ...

    def clear(self) -> None:
        """Say that it is neither any more: the entry is deleted."""
        ...

    @property
    def registered(self) -> bool:
        """Whether the last thing said has arrived, and its refresh is not overdue."""
        ...
