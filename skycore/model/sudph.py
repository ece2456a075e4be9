"""Datagrams between a node and an address resolver, and those that open a NAT.

Why here: both ends need them, and plugins do not import each other. Layout and rules are in
docs/protocols/sudph.md. Every message is `type u8 ‖ "SK1" ‖ u16 length ‖ MessagePack ‖ zeros`;
types are below 0x40, which no QUIC datagram begins with, so both share one socket. A question is
padded so that its answer is never larger: an address that is not its sender's gains nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import Annotated, Any, Final

import msgspec

from skycore.errors import DecodeError

__all__ = [
    "CONTROL_MAX",
    "COOKIE_EPOCH_S",
    "FOUND",
    "NAT_CONE",
    "NAT_NONE",
    "NAT_PORT_RESTRICTED",
    "NAT_SYMMETRIC",
    "NAT_UNKNOWN",
    "NAT_WORDS",
    "TOO_MANY",
    "UNKNOWN",
    "Alive",
    "Ask",
    "Beat",
    "Bind",
    "Bound",
    "Cookie",
    "DialBack",
    "Found",
    "Leave",
    "Message",
    "Punch",
    "Resolve",
    "Where",
    "bind_message",
    "decode",
    "encode",
    "make_cookie",
    "where",
]

Endpoint = tuple[str, int]
CONTROL_MAX: Final = 512
"""Bytes of a control datagram, padding included."""
COOKIE_EPOCH_S: Final = 60
"""A cookie is good in the minute it was made and in the next one."""
MAGIC: Final = b"SK1"
HEAD: Final = 6
BIND_TAG: Final = b"skycore/sudph-bind/1\0"
LOCAL_MAX: Final = 4

FOUND, UNKNOWN, TOO_MANY = 0, 1, 2
NAT_UNKNOWN, NAT_NONE, NAT_CONE, NAT_PORT_RESTRICTED, NAT_SYMMETRIC = range(5)
NAT_WORDS: Final = ("unknown", "none", "cone", "port-restricted", "symmetric")

Bytes8 = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=64)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=72)]
Packed = Annotated[bytes, msgspec.Meta(min_length=4, max_length=16)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Word = Annotated[int, msgspec.Meta(ge=0, le=255)]


class Where(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An address and a port, 4 or 16 bytes and a number."""

    address: Packed
    port: Port

    @property
    def endpoint(self) -> Endpoint:
        """The same as text and number. Raises `DecodeError` for 5 to 15 bytes."""
        try:
            return str(ipaddress.ip_address(self.address)), self.port
        except ValueError as bad:
            raise DecodeError("an address has 4 or 16 bytes") from bad


Places = Annotated[tuple[Where, ...], msgspec.Meta(max_length=LOCAL_MAX)]


def where(endpoint: Endpoint) -> Where:
    """Pack an endpoint. Raises `ValueError` where its host is no literal address."""
    return Where(ipaddress.ip_address(endpoint[0]).packed, endpoint[1])


class Ask(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Node: what do you see me as?"""

    nonce: Bytes8
    from_other_port: bool = False
    """Whether to answer from the resolver's second port: passes unless a NAT filters by port."""


class Cookie(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Resolver: this, and a cookie that shows you receive what is sent there."""

    nonce: Bytes8
    cookie: Bytes16
    seen: Where
    other_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    """The resolver's second port, to compare what it sees; 0: it has none."""


class Bind(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Node: this key is reached here. Signed: see `bind_message`."""

    public: Key
    cookie: Bytes16
    nonce: Bytes8
    nat: Word
    local: Places
    signature: Signature


class Bound(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Resolver: noted. `session` is known to nobody else."""

    nonce: Bytes8
    session: Bytes16
    seen: Where
    lifetime_s: Annotated[int, msgspec.Meta(ge=1, le=3_600)]


class Beat(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Node: still here. Keeps the NAT's mapping, too."""

    session: Bytes16
    count: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class Alive(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Resolver: heard. `known` false: bind again, I know no such session from that address."""

    count: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    known: bool
    seen: Where


class Resolve(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Node: where is this key, and tell it to open its NAT for me."""

    session: Bytes16
    request: Bytes8
    target: Key


class Found(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Resolver: there. `local` is told only to who has the same public address."""

    request: Bytes8
    status: Word
    seen: Where | None = None
    nat: Word = NAT_UNKNOWN
    local: Places = ()


class DialBack(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Resolver: somebody wants to reach you from there; open your NAT. Carries your session."""

    session: Bytes16
    request: Bytes8
    dialler: Key
    seen: Where
    nat: Word = NAT_UNKNOWN
    local: Places = ()


class Leave(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Node: forget me."""

    session: Bytes16


class Punch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Node to node: opens a NAT on its way, and tells a dialler where to dial if it arrives."""

    request: Bytes8


Message = Ask | Cookie | Bind | Bound | Beat | Alive | Resolve | Found | DialBack | Leave | Punch

TYPES: Final[tuple[tuple[type[Any], int], ...]] = (
    (Ask, 80),
    (Cookie, 0),
    (Bind, 240),
    (Bound, 0),
    (Beat, 80),
    (Alive, 0),
    (Resolve, 224),
    (Found, 0),
    (DialBack, 0),
    (Leave, 0),
    (Punch, 0),
)
"""By type number from 1; the size that a message is padded to."""

_NUMBERS: Final = {kind: number for number, (kind, _) in enumerate(TYPES, 1)}
_DECODERS: Final = [msgspec.msgpack.Decoder(kind) for kind, _ in TYPES]
_encode: Final = msgspec.msgpack.Encoder().encode


def encode(message: Message) -> bytes:
    """Return the datagram."""
    number = _NUMBERS[type(message)]
    body = _encode(message)
    datagram = bytes((number,)) + MAGIC + len(body).to_bytes(2, "big") + body
    return datagram.ljust(TYPES[number - 1][1], b"\0")


def decode(datagram: bytes) -> Message:
    """Read a datagram. Raises `DecodeError`."""
    size = int.from_bytes(datagram[4:HEAD], "big")
    if not HEAD < len(datagram) <= CONTROL_MAX or datagram[1:4] != MAGIC:
        raise DecodeError("no control datagram", reason="envelope")
    if not 1 <= datagram[0] <= len(TYPES):
        raise DecodeError(f"no control datagram has type {datagram[0]}", reason="type")
    body, padding = datagram[HEAD : HEAD + size], datagram[HEAD + size :]
    if len(body) < size or padding.strip(b"\0"):
        raise DecodeError("a control datagram is cut off, or padded with more than zeros")
    if len(datagram) < TYPES[datagram[0] - 1][1]:
        raise DecodeError("a question is shorter than its answer", reason="unpadded")
    try:
        message: Message = _DECODERS[datagram[0] - 1].decode(body)
    except (msgspec.DecodeError, RecursionError) as bad:
        raise DecodeError(f"a control datagram does not decode: {bad}") from bad
    for place in _places(message):
        _ = place.endpoint
    return message


def _places(message: Message) -> tuple[Where, ...]:
    seen: Where | None = getattr(message, "seen", None)
    local: tuple[Where, ...] = getattr(message, "local", ())
    return (*local, seen) if seen is not None else local


def bind_message(network_id: bytes, bind: Bind) -> bytes:
    """Return what a Bind's signature is over: everything in it but itself, for one network."""
    rest = _encode([bind.public, bind.cookie, bind.nonce, bind.nat, bind.local])
    return BIND_TAG + bytes((len(network_id),)) + network_id + rest


def make_cookie(secret: bytes, sender: Endpoint, epoch: int) -> bytes:
    """Return a resolver's cookie for an address in a minute (`wall_s // COOKIE_EPOCH_S`).

    Who shows it receives what is sent there, so a Bind from there is worth a signature check.
    Compare in constant time, with this epoch's and the last one's.
    """
    place = where(sender)
    text = epoch.to_bytes(8, "big") + place.port.to_bytes(2, "big") + place.address
    return hmac.digest(secret, text, hashlib.sha256)[:16]
