"""What the resolver does with datagrams: cookies, bindings, heartbeats, and calls to open a NAT.

Why in this order: an address that has shown nothing costs one hash and gets an answer that is no
larger than its question, whoever it really is. A cookie that came back proves the address, and only
then is a signature looked at; a signature proves the key, and only then is anything remembered.
Nobody else may ask where a key is, or have its NAT opened (U1, U11, U20). Pure: time and random
bytes come in, datagrams and bindings go out. Layout and rules: docs/protocols/sudph.md.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from discovery_address.server.udp_rates import Buckets
from discovery_address.server.udp_sessions import Session, Sessions
from skycore.contracts.runtime import Endpoint
from skycore.discovery.binds import is_public
from skycore.errors import DecodeError
from skycore.model.addresses import host_group
from skycore.model.limits import SUDPH_PUNCHES_MAX
from skycore.model.network import NetworkConstants
from skycore.model.sudph import (
    CONTROL_MAX,
    COOKIE_EPOCH_S,
    FOUND,
    NAT_UNKNOWN,
    NAT_WORDS,
    TOO_MANY,
    UNKNOWN,
    Alive,
    Ask,
    Beat,
    Bind,
    Bound,
    Cookie,
    DialBack,
    Found,
    Leave,
    Resolve,
    Where,
    bind_message,
    decode,
    encode,
    make_cookie,
    where,
)

__all__ = ["Claim", "Limits", "Outgoing", "UdpCore"]

HOSTS_MAX: Final = 4_096
"""Addresses whose rate is counted, and pairs whose calls are."""
ASKS_PER_S_MAX: Final = 5_000.0
"""Questions of addresses that have shown nothing, of all of them together."""
BINDS_PER_S_MAX: Final = 1_000.0
"""Signatures looked at in a second."""
SESSION_PER_S: Final = 20.0
SESSION_BURST: Final = 60.0
CALLS_PER_S: Final = SUDPH_PUNCHES_MAX / 60.0
LIFETIME_MAX_S: Final = 3_600


class Limits(NamedTuple):
    """What the settings say, in the words of this module."""

    sessions_max: int
    sessions_per_host_max: int
    questions_per_s: float
    """Datagrams of one address that has shown nothing."""
    lifetime_s: float
    any_address: bool
    """Whether addresses are bound that are not public."""


class Outgoing(NamedTuple):
    """A datagram to send: from the resolver's first port (0) or its second one (1)."""

    data: bytes
    to: Endpoint
    port: int = 0


class Claim(NamedTuple):
    """A proven binding that is to be written down before it is confirmed (`UdpCore.bound`)."""

    public: bytes
    address: Endpoint
    nonce: bytes
    nat: int
    local: tuple[Where, ...]


class UdpCore:
    """The resolver's side of docs/protocols/sudph.md."""

    def __init__(
        self,
        network: NetworkConstants,
        limits: Limits,
        draw: Callable[[int], bytes],
        elsewhere: Callable[[bytes], Endpoint | None],
    ) -> None:
        self._network, self._limits, self._draw = network, limits, draw
        self._elsewhere = elsewhere
        """Where a key is that has no session here: bound at another server of the same table."""
        self._secret = draw(32)
        self.sessions = Sessions(limits.sessions_max, limits.sessions_per_host_max)
        self.other_port = 0
        """The second port; 0: there is none."""
        self.counters: Counter[str] = Counter()
        """Datagrams by what became of them."""
        per_s = limits.questions_per_s
        self._asks: Buckets[str] = Buckets(per_s, 5 * per_s, HOSTS_MAX)
        self._binds: Buckets[str] = Buckets(per_s, 5 * per_s, HOSTS_MAX)
        self._all: Buckets[str] = Buckets(ASKS_PER_S_MAX, ASKS_PER_S_MAX, 1)
        self._all_binds: Buckets[str] = Buckets(BINDS_PER_S_MAX, BINDS_PER_S_MAX, 1)
        self._resolves: Buckets[bytes] = Buckets(SESSION_PER_S, SESSION_BURST, limits.sessions_max)
        self._calls: Buckets[tuple[bytes, bytes]] = Buckets(
            CALLS_PER_S, SUDPH_PUNCHES_MAX, HOSTS_MAX
        )

    # --- what comes in ---------------------------------------------------------------------------

    def take(
        self, data: bytes, sender: Endpoint, port: int, now: float, wall_s: int
    ) -> tuple[Sequence[Outgoing], Claim | Session | None]:
        """Take a datagram that came to the first port (0) or the second one (1).

        Returns what to send, and what to write down: a `Claim` that is to be bound, a `Session`
        that has left.
        """
        if len(data) > CONTROL_MAX or port > 1:
            return self._refuse("malformed")
        try:
            message = decode(data)
        except DecodeError:
            return self._refuse("malformed")
        if isinstance(message, Ask):
            return self._ask(message, sender, port, now, wall_s), None
        if port:
            return self._refuse("wrong_port")
        if isinstance(message, Bind):
            return (), self._bind(message, sender, now, wall_s)
        if isinstance(message, Beat):
            return self._beat(message, sender, now), None
        if isinstance(message, Resolve):
            return self._resolve(message, sender, now), None
        if isinstance(message, Leave):
            return (), self._leave(message, sender)
        return self._refuse("unexpected")

    def _refuse(self, why: str) -> tuple[Sequence[Outgoing], None]:
        self.counters[why] += 1
        return (), None

    def _may(self, sender: Endpoint, now: float) -> bool:
        """Count a datagram of an address that has shown nothing."""
        if self._all.take("", now) and self._asks.take(host_group(sender[0]), now):
            return True
        self.counters["too_many"] += 1
        return False

    def _ask(
        self, ask: Ask, sender: Endpoint, port: int, now: float, wall_s: int
    ) -> Sequence[Outgoing]:
        if not self._may(sender, now):
            return ()
        self.counters["asked"] += 1
        cookie = make_cookie(self._secret, sender, wall_s // COOKIE_EPOCH_S)
        answer = Cookie(ask.nonce, cookie, where(sender), self.other_port)
        via = 1 if ask.from_other_port and self.other_port else port
        return (Outgoing(encode(answer), sender, via),)

    # --- bindings --------------------------------------------------------------------------------

    def _bind(self, bind: Bind, sender: Endpoint, now: float, wall_s: int) -> Claim | None:
        why = self._wrong(bind, sender, now, wall_s)
        if why:
            self.counters[why] += 1
            return None
        nat = bind.nat if bind.nat < len(NAT_WORDS) else NAT_UNKNOWN
        near = _near(bind.local, sender)
        return Claim(bind.public, sender, bind.nonce, nat, near)

    def _wrong(self, bind: Bind, sender: Endpoint, now: float, wall_s: int) -> str:
        """Return what is wrong with a Bind, the cheapest test first; empty: nothing."""
        if not self._limits.any_address and not is_public(sender[0]):
            return "not_public"
        epoch = wall_s // COOKIE_EPOCH_S
        cookies = [make_cookie(self._secret, sender, epoch - ago) for ago in (0, 1)]
        if not any(hmac.compare_digest(bind.cookie, cookie) for cookie in cookies):
            return "bad_cookie"
        if not self.sessions.has_room(bind.public, sender):
            return "full"
        group = host_group(sender[0])
        if not (self._binds.take(group, now) and self._all_binds.take("", now)):
            return "too_many"
        text = bind_message(self._network.id, bind)
        if not self._network.suite.verify(bind.public, text, bind.signature):
            return "bad_signature"
        return ""

    def bound(self, claim: Claim, now: float) -> Outgoing | None:
        """Confirm a claim that was written down; None where its place was taken meanwhile.

        One that comes twice, or late, from where the key is already, keeps the session: its owner
        may have heard of it.
        """
        old = self.sessions.of_key(claim.public)
        if not self.sessions.has_room(claim.public, claim.address):
            self.counters["full"] += 1
            return None
        if old is not None and old.address == claim.address:
            old.nat, old.local = claim.nat, claim.local
            self.sessions.heard(old, now)
            token = old.token
        else:
            token = self._draw(16)
            self.sessions.put(
                Session(token, claim.public, claim.address, claim.nat, claim.local, now)
            )
            self.counters["rebound" if old is not None else "bound"] += 1
        lifetime = int(max(1, min(LIFETIME_MAX_S, self._limits.lifetime_s)))
        answer = Bound(claim.nonce, token, where(claim.address), lifetime)
        return Outgoing(encode(answer), claim.address)

    def _beat(self, beat: Beat, sender: Endpoint, now: float) -> Sequence[Outgoing]:
        session = self.sessions.at(beat.session, sender)
        if session is not None:
            self.sessions.heard(session, now)
            self.counters["beats"] += 1
        elif not self._may(sender, now):
            return ()
        else:
            self.counters["beats_unknown"] += 1
        answer = Alive(beat.count, session is not None, where(sender))
        return (Outgoing(encode(answer), sender),)

    def _leave(self, leave: Leave, sender: Endpoint) -> Session | None:
        session = self.sessions.at(leave.session, sender)
        if session is None:
            self.counters["unexpected"] += 1
            return None
        self.sessions.drop(session)
        self.counters["left"] += 1
        return session

    def expire(self, silent_since: float) -> list[Session]:
        """Forget who was not heard since a moment; return them."""
        gone = []
        for session in self.sessions.silent_since(silent_since):
            self.sessions.drop(session)
            gone.append(session)
        self.counters["expired"] += len(gone)
        return gone

    # --- finding, and opening NATs ---------------------------------------------------------------

    def _resolve(self, ask: Resolve, sender: Endpoint, now: float) -> Sequence[Outgoing]:
        own = self.sessions.at(ask.session, sender)
        if own is None:  # nobody knows who asks: no answer, and nobody's NAT is opened
            self.counters["resolve_foreign"] += 1
            return ()
        if not self._resolves.take(own.token, now):
            self.counters["too_many"] += 1
            return (Outgoing(encode(Found(ask.request, TOO_MANY)), sender),)
        target = self.sessions.of_key(ask.target)
        if target is None:
            return (Outgoing(encode(self._from_table(ask)), sender),)
        self.counters["resolved"] += 1
        near = _same_house(own, target)
        found = Found(
            ask.request, FOUND, where(target.address), target.nat, target.local if near else ()
        )
        answer = Outgoing(encode(found), sender)
        return (answer, *self._call(own, target, ask.request, now))

    def _from_table(self, ask: Resolve) -> Found:
        elsewhere = self._elsewhere(ask.target)
        self.counters["unknown" if elsewhere is None else "resolved_elsewhere"] += 1
        if elsewhere is None:
            return Found(ask.request, UNKNOWN)
        return Found(ask.request, FOUND, where(elsewhere))

    def called(self, target: bytes, dialler: bytes, now: float) -> Sequence[Outgoing]:
        """Call a key to open its NAT for another one, which asked by HTTP where it is."""
        own, other = self.sessions.of_key(dialler), self.sessions.of_key(target)
        if own is None or other is None:
            return ()
        return self._call(own, other, self._draw(8), now)

    def _call(
        self, dialler: Session, target: Session, request: bytes, now: float
    ) -> Sequence[Outgoing]:
        """Ask a target to send to a dialler's proven address; not often, nor to oneself."""
        if dialler is target:
            return ()
        if not self._calls.take((target.public, dialler.public), now):
            self.counters["calls_too_many"] += 1
            return ()
        self.counters["called"] += 1
        local = dialler.local if _same_house(dialler, target) else ()
        call = DialBack(
            target.token, request, dialler.public, where(dialler.address), dialler.nat, local
        )
        return (Outgoing(encode(call), target.address),)


def _same_house(one: Session, other: Session) -> bool:
    return one.address[0] == other.address[0]


def _near(claimed: Sequence[Where], sender: Endpoint) -> tuple[Where, ...]:
    """Return those of the claimed own addresses that can be behind the sender's router.

    Others would make neighbours send to whom the claimant likes.
    """
    own = ipaddress.ip_address(sender[0])
    kept = []
    for place in claimed:
        host = ipaddress.ip_address(place.address)
        odd = host.is_multicast or host.is_unspecified or host.is_loopback or host.is_global
        if host == own or not odd:
            kept.append(place)
    return tuple(kept)
