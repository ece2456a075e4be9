"""DMSG discovery entries: their JSON, and the signature that a key puts under its own.

Why a signature of the entry besides that of the item or request that carries it: an entry goes
through discovery servers, Redis and the DHT, and whoever reads it can tell that its key said
exactly this (L16). What is signed is the JSON in Skywire's order of fields, behind a tag and the
network id. `serverType` is not signed: a discovery server says it of others, in its listings. A
deletion has a tag of its own, so that no entry is a deletion to whoever copied it, and no deletion
an entry. Source of the fields: Skywire's dmsg discovery (docs/protocols/discovery.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from skycore.errors import DecodeError, InvalidKeyError, InvalidSignatureError
from skycore.model.entries import DmsgEntry, DmsgServer
from skycore.model.keys import PubKey, parse_public
from skycore.model.network import NetworkConstants, tagged

__all__ = ["VERSION", "decode", "encode", "is_signed", "sign", "signed_bytes", "verify"]

VERSION: Final = "0.0.1"
"""What an entry's `version` says."""
TAG: Final = "skycore/dmsg-entry/1"
DELETION_TAG: Final = "skycore/dmsg-entry-delete/1"
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(DmsgEntry)
_EXTRA_ADDRESSES: Final = ("address_v6", "address_udp", "address_udp_v6", "address_ws")


def encode(entry: DmsgEntry, *, server_type: str | None = None) -> bytes:
    """Return an entry's one JSON text, as servers store and serve it.

    `server_type` stands in the place of the entry's own: a server's word in a listing.
    """
    return _encoder.encode(_fields(entry, entry.signature, server_type))


def decode(body: bytes) -> DmsgEntry:
    """Read an entry. Raises `DecodeError`, whatever these bytes are."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as bad:
        raise DecodeError(f"not a DMSG entry: {bad}"[:300]) from None


def signed_bytes(network: NetworkConstants, entry: DmsgEntry, *, deletes: bool = False) -> bytes:
    """Return what the entry's key signs: `tag ‖ 0 ‖ network id ‖ JSON without the signature`."""
    head = tagged(DELETION_TAG if deletes else TAG, network)
    return head + _encoder.encode(_fields(entry, "", ""))


def sign(
    network: NetworkConstants,
    entry: DmsgEntry,
    signer: Callable[[bytes], bytes],
    *,
    deletes: bool = False,
) -> DmsgEntry:
    """Return the entry with its signature; `signer` is `Identity.sign` of the key in `static`."""
    signature = signer(signed_bytes(network, entry, deletes=deletes))
    return msgspec.structs.replace(entry, signature=signature.hex())


def verify(network: NetworkConstants, entry: DmsgEntry, *, deletes: bool = False) -> PubKey:
    """Return the key that signed the entry: the one in `static`.

    Raises `InvalidKeyError` where that is no key of the network's suite, `InvalidSignatureError`.
    """
    public = parse_public(network.suite, entry.static)
    try:
        signature = bytes.fromhex(entry.signature)
    except ValueError:
        signature = b""
    canonical = signature.hex() == entry.signature  # one signature has one text
    said = signed_bytes(network, entry, deletes=deletes)
    if not canonical or not network.suite.verify(public, said, signature):
        raise InvalidSignatureError(
            f"the signature of the DMSG entry of {entry.static[:8]}… does not verify",
            hint="is it of another network, or was it changed on its way?",
        )
    return public


def is_signed(network: NetworkConstants, entry: DmsgEntry) -> bool:
    """Tell whether an entry is signed by its key in this network."""
    try:
        verify(network, entry)
    except (InvalidKeyError, InvalidSignatureError):
        return False
    return True


def _fields(entry: DmsgEntry, signature: str, server_type: str | None) -> dict[str, Any]:
    """Return the fields in Skywire's order; its optional ones are left out where they are empty."""
    told: dict[str, Any] = {
        "version": entry.version,
        "sequence": entry.sequence,
        "timestamp": entry.timestamp,
        "static": entry.static,
    }
    if entry.client is not None:
        told["client"] = {"delegated_servers": entry.client.delegated_servers}
    if entry.client_type:
        told["client_type"] = entry.client_type
    if entry.server is not None:
        kind = entry.server.server_type if server_type is None else server_type
        told["server"] = _server_fields(entry.server, kind)
    if signature:
        told["signature"] = signature
    if entry.protocol:
        told["protocol"] = entry.protocol
    return told


def _server_fields(server: DmsgServer, kind: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "address": server.address,
        "availableSessions": server.available_sessions,
    }
    if kind:
        told["serverType"] = kind
    if server.dht_bootstrap:
        told["dht_bootstrap"] = True
    for name in _EXTRA_ADDRESSES:
        value = getattr(server, name)
        if value:
            told[name] = value
    return told
