"""Who is attached: one session a key, the newest, bounded in all and for each address.

Why only its owner removes a session: upstream's servers removed the entry of a key when any of its
sessions ended, and so threw the fresh one out with the old (#3035). Everything here is synchronous:
nobody waits for the network while the table is between two states (#3136).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from relay_dmsg.core.messages import Code
from skycore.contracts.streams import Stream
from skycore.model.keys import PubKey

__all__ = ["Session", "Sessions"]


class Session:
    """An attached client and its control stream."""

    __slots__ = ("group", "key", "since", "stream")

    def __init__(self, key: PubKey, group: str, stream: Stream, since: float) -> None:
        self.key = key
        self.group = group
        """Whose limit it counts on; empty where the address has no name."""
        self.stream = stream
        self.since = since


class Sessions:
    """The table."""

    def __init__(self, sessions_max: int, per_group_max: int) -> None:
        self._max, self._per_group_max = sessions_max, per_group_max
        self._by_key: dict[bytes, Session] = {}
        self._of_group: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Session]:
        """Return the sessions as they are now."""
        return iter(list(self._by_key.values()))

    def find(self, key: bytes) -> Session | None:
        """Return a key's session."""
        return self._by_key.get(key)

    def why_not(self, key: bytes, group: str) -> tuple[Code, str] | None:
        """Return why a key cannot attach now; None where it can. Its old session makes room."""
        old = self._by_key.get(key)
        if old is None and len(self._by_key) >= self._max:
            return Code.BUSY, f"{self._max} sessions are open"
        same = old is not None and old.group == group
        if group and self._of_group[group] - same >= self._per_group_max:
            return Code.LIMIT, f"{self._per_group_max} sessions from one address are open"
        return None

    def add(self, session: Session) -> Session | None:
        """Give a key its new session; return the one whose place it took."""
        old = self._by_key.get(session.key)
        if old is not None:
            self.remove(old)
        self._by_key[session.key] = session
        self._of_group[session.group] += 1
        return old

    def remove(self, session: Session) -> bool:
        """Take a session out, if it is still the key's own; tell whether it was."""
        if self._by_key.get(session.key) is not session:
            return False
        del self._by_key[session.key]
        self._of_group[session.group] -= 1
        if not self._of_group[session.group]:
            del self._of_group[session.group]
        return True
