"""What this node lists: its own transports, but for those that nobody keeps."""

from __future__ import annotations

from discovery_transport.client.core.entries import own_entry
from skycore.contracts.runtime import Identity
from skycore.contracts.transport import Transport, Transports
from skycore.model.entries import TransportEntry

__all__ = ["OwnTransports"]

EPHEMERAL = "ephemeral"
KEPT_BY_PEER = "automatic"
"""How we label what the other side wants to keep and we do not mind."""


class OwnTransports:
    """The list as it was at the last look, and a number that grows with each change of it."""

    def __init__(self, transports: Transports | None, identity: Identity) -> None:
        self._transports, self._own = transports, identity.public.hex()
        self.entries: tuple[TransportEntry, ...] = ()
        self.version = 0

    def look(self) -> bool:
        """Read the list anew; tell whether it changed."""
        live = self._transports.all() if self._transports is not None else ()
        kept = (t for t in live if not t.closed)
        entries = [e for t in kept if (e := self._entry(t)) is not None]
        entries.sort(key=lambda entry: entry.t_id)
        if tuple(entries) == self.entries:
            return False
        self.entries, self.version = tuple(entries), self.version + 1
        return True

    def _entry(self, transport: Transport) -> TransportEntry | None:
        label = transport.label
        if label == EPHEMERAL:
            if not transport.peer_keeps:
                return None
            label = KEPT_BY_PEER
        remote = transport.remote.hex()
        return own_entry(self._own, remote, transport.id, transport.type, label)
