"""Rules of entries: who may write what, after what, and how long it lives. Pure.

Why a deletion leaves something behind: entries are public and sequence numbers compare with what is
held. Were nothing held after a deletion, anybody could hand in the entry that he had copied before
it. So the deletion itself is held, unseen, for longer than any copied entry is young enough to be
accepted; a monitor's deregistration likewise. After an entry's own end its timestamp is too old.
Messages and codes: Skywire's dmsg discovery, whose clients compare the words.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from discovery_dmsg.settings import DmsgServerSettings
from skycore.contracts.registry import Listed, Listing, RegistryWrite
from skycore.discovery.binds import Reach, reach_of
from skycore.errors import (
    ConfigError,
    DecodeError,
    InvalidKeyError,
    InvalidSignatureError,
    RequestRefusedError,
)
from skycore.model import dmsg_entry
from skycore.model.addresses import split_host_port
from skycore.model.entries import DmsgEntry
from skycore.model.keys import PubKey
from skycore.model.network import NetworkConstants

__all__ = [
    "NO_SERVERS",
    "SERVER",
    "UNKNOWN",
    "WRONG_SEQUENCE",
    "Held",
    "check_after",
    "check_deletion",
    "check_entry",
    "check_signed",
    "deletion",
    "held_in",
    "key_of",
    "lifetime_s",
    "registration",
    "wrong",
]

SERVER: Final = b"server"
"""Servers share one key, by which the directory finds them: they are few. The other keys are the
subject's own, for such an index costs with each subject as much as it has subjects already."""
_CLIENT: Final = b"client "
_GONE: Final = b"gone "
CLIENT_AHEAD_S: Final = 300
"""How far ahead a client's timestamp may lie; upstream does not check those at all."""
UNKNOWN: Final = "entry of public key is not found"
NO_SERVERS: Final = "no delegated dmsg servers available for remote"
UNAUTHORIZED: Final = "invalid signature"
WRONG_SEQUENCE: Final = "sequence field of new entry is not sequence of old entry + 1"
WRONG_TIME: Final = "advertised entry timestamp is not greater than previous"
OUTDATED: Final = "advertised entry has outdated timestamp"
NO_VERSION: Final = "entry has no version"
NO_SIGNATURE: Final = "entry has no signature"
NEITHER: Final = "entry has neither client or server field"
NO_ADDRESS: Final = "server address cannot be empty"
LOOPBACK: Final = "advertising localhost listening address is not allowed in production mode"


class Held(NamedTuple):
    """What a directory holds of a key: its entry, or (not `is_live`) the end of one."""

    entry: DmsgEntry
    body: bytes
    is_live: bool
    """Whether it is an entry that is served."""


def wrong(cause: str) -> RequestRefusedError:
    """Return the refusal (422) of an entry that breaks a rule, in upstream's words."""
    return RequestRefusedError(f"entry validation error: {cause}", code=422)


def held_in(listing: Listing) -> Held | None:
    """Return what a listing holds; of several (a registry's batch half seen) the newest."""
    found: Held | None = None
    for listed in listing.entries:
        try:
            entry = dmsg_entry.decode(listed.body)
        except DecodeError:  # written by another version: as if it were not there
            continue
        if found is None or entry.sequence > found.entry.sequence:
            found = Held(entry, listed.body, not listed.key.startswith(_GONE))
    return found


def check_signed(network: NetworkConstants, entry: DmsgEntry, *, deletes: bool = False) -> PubKey:
    """Return whose entry it is. Raises `RequestRefusedError`: 422 unsigned, 401 not by its key."""
    if not entry.signature:
        raise wrong(NO_SIGNATURE)
    try:
        return dmsg_entry.verify(network, entry, deletes=deletes)
    except InvalidKeyError as bad:
        raise RequestRefusedError(f"{UNAUTHORIZED}: {bad}", code=401, hint=bad.hint) from None
    except InvalidSignatureError as bad:
        raise RequestRefusedError(UNAUTHORIZED, code=401, hint=bad.hint) from None


def check_entry(entry: DmsgEntry, now_ns: int, settings: DmsgServerSettings) -> None:
    """Check what an entry says. Raises `RequestRefusedError` (422)."""
    if not entry.version:
        raise wrong(NO_VERSION)
    if entry.client is None and entry.server is None:
        raise wrong(NEITHER)
    if entry.server is not None:
        _check_address(entry.server.address, settings)
    _check_time(entry, now_ns, settings)


def check_deletion(entry: DmsgEntry, now_ns: int, settings: DmsgServerSettings) -> None:
    """Check the time of a signed deletion, whatever else it says. Raises as `check_entry`."""
    _check_time(msgspec.structs.replace(entry, server=None), now_ns, settings)


def _check_address(address: str, settings: DmsgServerSettings) -> None:
    try:
        host, _ = split_host_port(address)
    except ConfigError:
        host = ""
    if not host:
        raise wrong(NO_ADDRESS)
    if reach_of(host) <= Reach.HERE and not settings.loopback:
        raise wrong(LOOPBACK)


def _check_time(entry: DmsgEntry, now_ns: int, settings: DmsgServerSettings) -> None:
    """Refuse what is too old to be news; of a client: old enough to have been listed and ended."""
    if entry.server is not None:
        behind_s, ahead_s = settings.clock_behind_s, settings.clock_ahead_s
    else:
        ahead_s = float(CLIENT_AHEAD_S)
        behind_s = max(settings.clock_behind_s, settings.client_lifetime_s - ahead_s)
    if not now_ns - behind_s * 1e9 <= entry.timestamp <= now_ns + ahead_s * 1e9:
        raise wrong(OUTDATED)


def check_after(held: Held | None, entry: DmsgEntry) -> None:
    """Refuse (422) what does not come after what is held; the registry has the last word."""
    if held is None:
        return
    if entry.sequence <= held.entry.sequence:
        raise wrong(WRONG_SEQUENCE)
    if entry.timestamp < held.entry.timestamp:
        raise wrong(WRONG_TIME)


def lifetime_s(entry: DmsgEntry, settings: DmsgServerSettings, *, is_short: bool = False) -> float:
    """Return how long an entry is listed."""
    if entry.server is not None:
        return settings.server_lifetime_s
    return settings.short_lifetime_s if is_short else settings.client_lifetime_s


def key_of(public: bytes, entry: DmsgEntry) -> bytes:
    """Return under which key an entry is listed."""
    return _CLIENT + public if entry.server is None else SERVER


def registration(
    public: bytes, entry: DmsgEntry, life_s: float, *, must_rise: bool = True
) -> RegistryWrite:
    """Return the write that lists an entry, and counts its key as seen."""
    key = key_of(public, entry)
    keys = (_CLIENT + public, SERVER, _GONE + public)
    return RegistryWrite(
        public,
        put=(Listed(key, dmsg_entry.encode(entry, server_type="")),),
        remove=tuple(k for k in keys if k != key),
        lifetime_s=life_s,
        stamp=entry.sequence,
        must_rise=must_rise,
        beat=True,
    )


def deletion(
    public: bytes, entry: DmsgEntry, settings: DmsgServerSettings, *, must_rise: bool = True
) -> RegistryWrite:
    """Return the write that ends a key's entry, and holds its end (see above).

    `entry` is the signed deletion, or what was held, for whoever ends another's entry.
    """
    young_s = settings.client_lifetime_s + CLIENT_AHEAD_S + settings.clock_behind_s
    return RegistryWrite(
        public,
        put=(Listed(_GONE + public, dmsg_entry.encode(entry, server_type="")),),
        remove=(_CLIENT + public, SERVER),
        lifetime_s=young_s,
        stamp=entry.sequence,
        must_rise=must_rise,
    )
