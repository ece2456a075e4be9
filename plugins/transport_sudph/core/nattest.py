"""Which kind of NAT stands in front of this node, told with one resolver that has two ports.

First: does an answer come in from a port that was never sent to? Then nothing filters by port. This
must be tried before anything is sent there, for sending opens the way. Second: does the other port
see this node under the same port? If not, the mapping depends on whom one talks to: symmetric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from skycore.contracts.runtime import Endpoint
from skycore.model.sudph import (
    NAT_CONE,
    NAT_NONE,
    NAT_PORT_RESTRICTED,
    NAT_SYMMETRIC,
    NAT_UNKNOWN,
    Ask,
    Cookie,
)

__all__ = ["NatTest"]

TRY_S: Final = 0.5
TRIES: Final = 4
NEVER: Final = float("inf")


class NatTest:
    """One run of the test after another; `kind` is the last result."""

    def __init__(self, draw: Callable[[int], bytes]) -> None:
        self._draw = draw
        self.kind = NAT_UNKNOWN
        self.other_port = 0
        """The resolver's second port; 0: it has none, and nothing can be told."""
        self.next_at = NEVER
        self.is_done = False
        self._seen: Endpoint = ("", 0)
        self._own: Sequence[Endpoint] = ()
        self._stage = 0
        self._tries = 0
        self._nonce = b""
        self._passes = False

    def begin(self, seen: Endpoint, own: Sequence[Endpoint], now: float) -> None:
        """Start over: the resolver sees us there. `own` are this machine's addresses."""
        self._seen, self._own = seen, own
        self.is_done = False
        self._passes = False
        if seen in own:
            self._end(NAT_NONE)
        elif not self.other_port:
            self._end(NAT_UNKNOWN)
        else:
            self._enter(1, now)

    def _enter(self, stage: int, now: float) -> None:
        self._stage, self._tries = stage, 0
        self._nonce = self._draw(8)
        self.next_at = now

    def _end(self, kind: int) -> None:
        self.kind, self.is_done = kind, True
        self._stage = 0
        self.next_at = NEVER

    def tick(self, now: float) -> list[tuple[Ask, bool]]:
        """Return questions to send: (question, whether to the second port)."""
        if not self._stage or now < self.next_at:
            return []
        if self._tries >= TRIES:
            if self._stage == 2:
                self._end(NAT_UNKNOWN)
                return []
            self._enter(2, now)
        self._tries += 1
        self.next_at = now + TRY_S
        return [(Ask(self._nonce, self._stage == 1), self._stage == 2)]

    def take(self, message: Cookie, sender: Endpoint, resolver: Endpoint, now: float) -> bool:
        """Take an answer to one of the questions; False where it is another's."""
        if not self._stage or message.nonce != self._nonce:
            return False
        if sender != (resolver[0], self.other_port):
            return True  # the first port answered for the second: tells nothing
        if self._stage == 1:
            self._passes = True
            self._enter(2, now)
        elif message.seen.endpoint != self._seen:
            self._end(NAT_SYMMETRIC)
        else:
            self._end(NAT_CONE if self._passes else NAT_PORT_RESTRICTED)
        return True
