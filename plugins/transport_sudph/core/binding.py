"""A node's standing with an address resolver: ask, bind, beat, and bind again when anything moved.

Why a state machine without I/O: everything that goes wrong here goes wrong in time (a resolver that
restarts, a NAT that forgets, an answer that is late), and time is what tests must own. Feed it with
`take` and `tick`; both return datagrams to send; `next_at` says when the next tick is due.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Final

from skycore.contracts.runtime import Endpoint, Identity
from skycore.model.sudph import (
    NAT_UNKNOWN,
    Alive,
    Ask,
    Beat,
    Bind,
    Bound,
    Cookie,
    DialBack,
    Leave,
    Message,
    Where,
    bind_message,
    encode,
)
from transport_sudph.core.kinds import Datagram
from transport_sudph.core.nattest import NatTest

__all__ = ["Binding"]

BIND_EVERY_S: Final = 0.25
"""Least time between two Binds, each of which is signed: a resolver's mood costs no more."""
BEAT_S: Final = 10.0
BEATS_MISSED_MAX: Final = 3
REGISTER_S: Final = 90.0
RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 30.0


class Binding:
    """The binding of one node at one resolver."""

    def __init__(
        self,
        identity: Identity,
        resolver: Endpoint,
        local: Callable[[], Sequence[Where]],
        draw: Callable[[int], bytes],
    ) -> None:
        """`local`: asked for each Bind where neighbours reach this node; machines move about."""
        self._identity = identity
        self.resolver = resolver
        self._local = local
        self._draw = draw
        self.session: bytes | None = None
        """None while this node is not bound."""
        self.seen: Endpoint | None = None
        """Where the resolver sees this node."""
        self.test = NatTest(draw)
        self.next_at = 0.0
        self.rebound = 0
        """How often it was bound, the first time included."""
        self._nonce = b""
        self._is_asking = True
        self._attempt = 0
        self._beat_count = int.from_bytes(draw(4), "big") >> 1
        self._unanswered = 0
        self._register_at = self._beat_at = self._bind_at = 0.0
        self._told_nat = NAT_UNKNOWN

    @property
    def nat(self) -> int:
        """The kind of NAT that was found (`model.sudph.NAT_WORDS`)."""
        return self.test.kind

    # --- what time does --------------------------------------------------------------------------

    def tick(self, now: float) -> list[Datagram]:
        """Do what is due."""
        if now < self.next_at:
            return []
        if self._is_asking:
            return self._ask(now)
        if self._unanswered >= BEATS_MISSED_MAX:
            return self._lose(now)
        out: list[Datagram] = []
        if now >= self._beat_at:
            out.append(self._beat(now))
        out += [(encode(ask), self._to(other)) for ask, other in self.test.tick(now)]
        if now >= self._register_at or self._has_news:
            out += self._ask_again(now)
        self._plan(now)
        return out

    @property
    def _has_news(self) -> bool:
        return self.test.is_done and self.test.kind != self._told_nat

    def _to(self, other: bool) -> Endpoint:
        return (self.resolver[0], self.test.other_port) if other else self.resolver

    def _ask(self, now: float) -> list[Datagram]:
        """Ask for a cookie; again, ever more rarely, until there is an answer."""
        self._nonce = self._draw(8)
        wait = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0**self._attempt)
        self._attempt = min(self._attempt + 1, 16)
        self.next_at = now + wait * (0.8 + self._draw(1)[0] / 640)
        return [(encode(Ask(self._nonce)), self.resolver)]

    def _ask_again(self, now: float) -> list[Datagram]:
        """Register anew while the old binding holds."""
        self._nonce = self._draw(8)
        self._register_at = now + 5.0  # until the answer says otherwise
        return [(encode(Ask(self._nonce)), self.resolver)]

    def _beat(self, now: float) -> Datagram:
        self._beat_at = now + BEAT_S
        self._unanswered += 1
        self._beat_count = (self._beat_count + 1) & 0xFFFFFFFF
        return encode(Beat(self.session or bytes(16), self._beat_count)), self.resolver

    def _lose(self, now: float) -> list[Datagram]:
        self.session = self.seen = None
        self._is_asking, self._attempt = True, 0
        return self._ask(now)

    def _plan(self, now: float) -> None:
        self.next_at = min(self._beat_at, self._register_at, self.test.next_at)
        if self._has_news:
            self.next_at = min(self.next_at, now + 1.0)

    # --- what the resolver says ------------------------------------------------------------------

    def take(self, message: Message, sender: Endpoint, now: float) -> list[Datagram]:
        """Take a message; whatever was not asked for, or is not the resolver's, changes nothing."""
        if isinstance(message, Cookie):
            return self._take_cookie(message, sender, now)
        if sender != self.resolver:
            return []
        if isinstance(message, Bound) and message.nonce == self._nonce:
            self._take_bound(message, now)
        elif isinstance(message, Alive) and message.count == self._beat_count:
            return self._take_alive(message, now)
        return []

    def _take_cookie(self, message: Cookie, sender: Endpoint, now: float) -> list[Datagram]:
        if self.session is not None and self.test.take(message, sender, self.resolver, now):
            self._plan(now)
            return []
        if sender != self.resolver or message.nonce != self._nonce or now < self._bind_at:
            return []
        self._bind_at = now + BIND_EVERY_S
        self.test.other_port = message.other_port
        self._told_nat = self.test.kind
        bind = Bind(
            self._identity.public,
            message.cookie,
            self._nonce,
            self._told_nat,
            tuple(self._local()),
            bytes(64),
        )
        text = bind_message(self._identity.network.id, bind)
        signed = Bind(
            bind.public, bind.cookie, bind.nonce, bind.nat, bind.local, self._identity.sign(text)
        )
        return [(encode(signed), self.resolver)]

    def _take_bound(self, message: Bound, now: float) -> None:
        was = self.seen
        self.session, self.seen = message.session, message.seen.endpoint
        self._nonce = b""
        self._is_asking, self._attempt, self._unanswered = False, 0, 0
        self.rebound += 1
        self._register_at = now + min(REGISTER_S, 0.75 * message.lifetime_s)
        self._beat_at = now + BEAT_S
        if self.seen != was:
            own = [place.endpoint for place in self._local()]
            self.test.begin(self.seen, own, now)
        self._plan(now)

    def _take_alive(self, message: Alive, now: float) -> list[Datagram]:
        self._unanswered = 0
        if message.known and message.seen.endpoint == self.seen:
            return []
        return self._lose(now)  # the resolver was restarted, or the NAT gave us another address

    def is_ours(self, message: DialBack, sender: Endpoint) -> bool:
        """Whether a call to open our NAT is from the resolver that knows our session."""
        return (
            sender == self.resolver
            and self.session is not None
            and hmac.compare_digest(message.session, self.session)
        )

    def leave(self) -> list[Datagram]:
        """Say goodbye."""
        if self.session is None:
            return []
        session, self.session, self.seen = self.session, None, None
        return [(encode(Leave(session)), self.resolver)]
