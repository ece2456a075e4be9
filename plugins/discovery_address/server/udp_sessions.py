"""Which keys are bound by UDP now: from where, under which session, and when each was last heard.

Why a session besides the key: heartbeats must be cheap (no signature), and nobody but the node
knows its sixteen bytes. Bounded in all and for each address; who was heard longest ago comes first
in `sessions`, so that expiry looks at nobody else.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from skycore.contracts.runtime import Endpoint
from skycore.model.addresses import host_group
from skycore.model.sudph import Where

__all__ = ["Session", "Sessions"]


@dataclass
class Session:
    """One key's standing. Its address is proven: a cookie that was sent there came back."""

    token: bytes
    public: bytes
    address: Endpoint
    nat: int
    local: tuple[Where, ...]
    heard_at: float


class Sessions:
    """The table. A key has one session; one from another address replaces it."""

    def __init__(self, sessions_max: int, per_host_max: int) -> None:
        self._max, self._per_host_max = sessions_max, per_host_max
        self._by_token: OrderedDict[bytes, Session] = OrderedDict()
        self._by_key: dict[bytes, Session] = {}
        self._by_host: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many keys are bound."""
        return len(self._by_token)

    def of_key(self, public: bytes) -> Session | None:
        """Return a key's session."""
        return self._by_key.get(public)

    def at(self, token: bytes, address: Endpoint) -> Session | None:
        """Return the session of a token, if it comes from where that session is."""
        session = self._by_token.get(token)
        return session if session is not None and session.address == address else None

    def has_room(self, public: bytes, address: Endpoint) -> bool:
        """Tell whether a key may be bound there: what it has itself does not stand in its way."""
        own = self._by_key.get(public)
        group = host_group(address[0])
        there = self._by_host.get(group, 0)
        if own is not None:
            there -= host_group(own.address[0]) == group
        return there < self._per_host_max and len(self) - (own is not None) < self._max

    def put(self, session: Session) -> None:
        """Keep a session in the place of the key's old one."""
        old = self._by_key.get(session.public)
        if old is not None:
            self.drop(old)
        self._by_token[session.token] = self._by_key[session.public] = session
        self._by_host[host_group(session.address[0])] += 1

    def heard(self, session: Session, now: float) -> None:
        """Note that a session lives."""
        session.heard_at = now
        self._by_token.move_to_end(session.token)

    def drop(self, session: Session) -> None:
        """Forget a session, if it is still there."""
        if self._by_token.get(session.token) is not session:
            return
        del self._by_token[session.token]
        del self._by_key[session.public]
        group = host_group(session.address[0])
        self._by_host[group] -= 1
        if not self._by_host[group]:
            del self._by_host[group]

    def silent_since(self, then: float) -> Iterator[Session]:
        """Yield the sessions that were last heard before a moment; drop them while you look."""
        while self._by_token:
            session = next(iter(self._by_token.values()))
            if session.heard_at >= then:
                return
            yield session
