"""Signed HTTP requests: what exactly is signed.

Why more than the body: a signature over body and nonce alone, as upstream has it, is good for any
other method, path or server that asks for the same nonce (L21). Source of the headers: Skywire's
httpauth (docs/protocols/discovery.md).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from skycore.errors import LocalProtocolError
from skycore.model.limits import REQUEST_HOST_MAX, REQUEST_TARGET_MAX

__all__ = ["HEADER_KEY", "HEADER_NONCE", "HEADER_SIGNATURE", "NONCE_MAX", "signed", "signed_old"]

TAG: Final = b"skycore/http/1\0"
HEADER_KEY: Final = "sw-public"
HEADER_NONCE: Final = "sw-nonce"
HEADER_SIGNATURE: Final = "sw-sig"
NONCE_MAX: Final = 2**53
"""Small enough for every JSON reader."""


def signed(
    network_id: bytes, method: str, host: str, target: bytes, nonce: int, body: bytes
) -> bytes:
    """Return the bytes that a caller signs.

    `host` is the Host header as sent, `target` path and query as they stand in the request line.
    `tag ‖ network id ‖ u8 len ‖ method ‖ u16 len ‖ host ‖ u16 len ‖ target ‖ u64 nonce ‖
    SHA256(body)`. Raises `LocalProtocolError` for what fits no request.
    """
    verb, name = method.upper().encode(), host.lower().encode()
    if len(verb) > 255 or len(name) > REQUEST_HOST_MAX or len(target) > REQUEST_TARGET_MAX:
        raise LocalProtocolError("a request's method, host or path is too long to be signed")
    if not 0 <= nonce <= NONCE_MAX:
        raise LocalProtocolError(f"a nonce lies between 0 and {NONCE_MAX}")
    return b"".join(
        (
            TAG,
            network_id,
            bytes((len(verb),)),
            verb,
            len(name).to_bytes(2, "big"),
            name,
            len(target).to_bytes(2, "big"),
            target,
            nonce.to_bytes(8, "big"),
            sha256(body).digest(),
        )
    )


def signed_old(body: bytes, nonce: int) -> bytes:
    """Return what upstream's clients sign: believed only where an operator says so."""
    return body + str(nonce).encode()
