"""The two Hellos: what each end says about itself, and the signature that makes it true.

Why signed, when Noise proves the static keys already: the exchange key is made from the identity,
and two identities (A and -A of Ed25519) share one. The signature covers the handshake, the
role and every other field of the Hello, so none can be moved, mirrored, stripped or replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from skycore.contracts.runtime import Identity
from skycore.contracts.security import Hello
from skycore.errors import (
    HandshakeAuthError,
    HandshakeKeyError,
    HandshakeMalformedError,
    InvalidKeyError,
    SelfConnectError,
)
from skycore.model.addresses import Address
from skycore.model.keys import KeySuite
from skycore.model.limits import (
    ADDRESS_KIND_MAX,
    ENDPOINT_MAX,
    FEATURE_NAME_MAX,
    FEATURES_MAX,
    HELLO_ADDRESSES_MAX,
    HELLO_MAX,
    INSTANCE_ID_BYTES,
)

__all__ = [
    "INITIATOR",
    "PROTOCOL_VERSION",
    "RESPONDER",
    "check_hello",
    "exchange_key",
    "make_hello",
    "read_hello",
]

PROTOCOL_VERSION: Final = 1
INITIATOR: Final = b"\x00"
RESPONDER: Final = b"\x01"
_TAG: Final = b"skycore/noise/1\0"
_SIGNATURE_AT: Final = Hello.__struct_fields__.index("signature")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Hello).decode
_decode_fields = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def _signed_bytes(role: bytes, handshake_hash: bytes, fields: Sequence[msgspec.Raw]) -> bytes:
    """Return what a Hello's signature covers.

    The fields are taken as they came, those that we do not know included: a later version can add
    some at the end and we still verify it.
    """
    others = b"".join(bytes(f) for at, f in enumerate(fields) if at != _SIGNATURE_AT)
    return _TAG + role + handshake_hash + hashlib.sha256(others).digest()


def make_hello(
    identity: Identity,
    role: bytes,
    handshake_hash: bytes,
    *,
    wall_ns: int,
    features: tuple[str, ...] = (),
    listening: Sequence[Address] = (),
) -> bytes:
    """Return our Hello, signed and encoded. Addresses that do not fit are left out, last first."""
    fitting = [
        a for a in listening if len(a.kind) <= ADDRESS_KIND_MAX and len(a.endpoint) <= ENDPOINT_MAX
    ]
    told = tuple(fitting[:HELLO_ADDRESSES_MAX])
    room = HELLO_MAX - identity.network.suite.signature_bytes - 2
    while True:
        hello = Hello(
            PROTOCOL_VERSION,
            features,
            identity.public,
            wall_ns,
            identity.instance_id,
            told,
        )
        bare = _encode(hello)
        if len(bare) <= room or not told:
            break
        told = told[:-1]
    fields = _decode_fields(bare)
    signature = identity.sign(_signed_bytes(role, handshake_hash, fields))
    fields[_SIGNATURE_AT] = msgspec.Raw(_encode(signature))
    return _encode(fields)


def read_hello(data: bytes, suite: KeySuite) -> Hello:
    """Decode a Hello and check its bounds. Raises `HandshakeMalformedError`."""
    if len(data) > HELLO_MAX:
        raise HandshakeMalformedError(f"a Hello of {len(data)} bytes; {HELLO_MAX} are allowed")
    try:
        hello = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as bad:
        raise HandshakeMalformedError(f"not a Hello: {bad}") from bad
    problem = _shape_problem(hello, suite)
    if problem:
        raise HandshakeMalformedError(f"the remote's Hello has {problem}")
    return hello


def _shape_problem(hello: Hello, suite: KeySuite) -> str:
    names, addresses = hello.features, hello.listening
    rules = (
        (hello.version >= 1, "no version"),
        (len(names) <= FEATURES_MAX, "too many features"),
        (all(len(name) <= FEATURE_NAME_MAX for name in names), "a feature name too long"),
        (len(hello.identity) == suite.public_bytes, f"an identity that is no {suite.name} key"),
        (0 <= hello.wall_ns < 2**63, "an impossible time"),
        (len(hello.instance_id) == INSTANCE_ID_BYTES, "an instance id of the wrong length"),
        (len(addresses) <= HELLO_ADDRESSES_MAX, "too many addresses"),
        (
            all(
                len(a.kind) <= ADDRESS_KIND_MAX and len(a.endpoint) <= ENDPOINT_MAX
                for a in addresses
            ),
            "an address too long",
        ),
        (len(hello.signature) == suite.signature_bytes, "a signature of the wrong length"),
    )
    return next((problem for good, problem in rules if not good), "")


def check_hello(
    data: bytes, hello: Hello, identity: Identity, role: bytes, handshake_hash: bytes
) -> None:
    """Check that the remote, in `role`, signed these very bytes for this very handshake.

    Raises `SelfConnectError` for our own key, `HandshakeAuthError` otherwise.
    """
    if hello.identity == identity.public:
        raise SelfConnectError(hint="an address of this node is listed under another key")
    signed = _signed_bytes(role, handshake_hash, _decode_fields(data))
    if not identity.network.suite.verify(hello.identity, signed, hello.signature):
        raise HandshakeAuthError("the Hello's signature is not its identity's over this handshake")


def exchange_key(suite: KeySuite, identity: bytes) -> bytes:
    """Return the exchange key that belongs to an identity. Raises `HandshakeKeyError`."""
    try:
        return suite.dh_public(identity)
    except InvalidKeyError as bad:
        raise HandshakeKeyError(f"the remote's identity cannot be used: {bad}") from bad
