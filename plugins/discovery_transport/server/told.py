"""Told: what callers say of transports, read, checked and put in the one form that is kept.

Why strict: an id says which two keys and which type it belongs to, so an entry whose id does not
fit says nothing, and whoever is no edge of a transport has no say in it (L21). Why latency is not
kept: it changes by itself, so no list would ever be the same twice (L9).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from skycore.contracts.discovery import Record
from skycore.contracts.registry import Listed, Listing
from skycore.discovery.answers import read_json
from skycore.errors import NamespaceError, RequestRefusedError
from skycore.model.entries import Key, Name, Text, TransportEntry
from skycore.model.packets import transport_id

__all__ = [
    "SignedTold",
    "Told",
    "body_of",
    "entries_in",
    "entries_of",
    "entry_in",
    "ids_in",
    "is_key",
    "listed",
    "read_entries",
    "read_signed",
    "read_words",
]

HEX = re.compile("(?:[0-9a-f]{2})+")
WORDS_MAX: Final = 65_536


class Told(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A transport as a client tells it. What else it tells is left alone.

    It has the fields of a `TransportEntry` that are kept, so its encoding is that of one.
    """

    t_id: uuid.UUID
    edges: tuple[Key, Key]
    type: Name
    label: Text = ""


class SignedTold(msgspec.Struct, frozen=True):
    """The older form: the entry in an envelope. Its signatures are echoed and nothing else.

    Who registers signs the request; the other edge says for itself what it has.
    """

    entry: Told
    signatures: tuple[Text, ...] | None = None
    registered: int = 0


_entries = msgspec.json.Decoder(list[Told] | None)
_signed = msgspec.json.Decoder(list[SignedTold] | None)
_words = msgspec.json.Decoder(Annotated[list[Text], Meta(max_length=WORDS_MAX)] | None)
_kept = msgspec.json.Decoder(TransportEntry)
_encoder = msgspec.json.Encoder()


def read_entries(body: bytes) -> Sequence[Told]:
    """Return the entries of a body. Raises `RequestRefusedError`."""
    return read_json(_entries, body) or ()


def read_signed(body: bytes) -> Sequence[SignedTold]:
    """Return the entries of a body in envelopes. Raises `RequestRefusedError`."""
    return read_json(_signed, body) or ()


def read_words(body: bytes) -> Sequence[str]:
    """Return a body that is a list of texts: ids, keys. Raises `RequestRefusedError`."""
    return read_json(_words, body) or ()


def ids_in(words: Sequence[str]) -> Sequence[bytes]:
    """Return the ids among texts, each once, in order; what is none is left out."""
    found: dict[bytes, None] = {}
    for word in words:
        try:
            found[uuid.UUID(word).bytes] = None
        except ValueError:
            continue
    return tuple(found)


def is_key(text: str) -> bool:
    """Tell whether a text may be a key, of whatever suite."""
    return len(text) <= 256 and HEX.fullmatch(text) is not None


def listed(
    told: Sequence[Told], public: bytes, known: Mapping[bytes, bytes] | None = None
) -> tuple[Listed, ...]:
    """Return what a caller's entries are kept as, each transport once, the last word of it.

    `known` is what the caller lists already, bodies by id: what is said again was checked once, and
    that is nearly all that is ever said. Raises `RequestRefusedError`: 400 for an id that does not
    fit, 403 for a foreign transport; then nothing of the request counts.
    """
    caller, known = public.hex(), known or {}
    found: dict[bytes, Listed] = {}
    for entry in told:
        key, body = entry.t_id.bytes, _encoder.encode(entry)
        if known.get(key) != body:
            body = _checked(entry, caller)
        found[key] = Listed(key, body)
    return tuple(found.values())


def _checked(entry: Told, caller: str) -> bytes:
    one, other = entry.edges
    if not is_key(one) or not is_key(other):
        raise RequestRefusedError(f"{entry.t_id}: its edges are no keys", code=400)
    if caller not in (one, other):
        raise RequestRefusedError(
            f"{entry.t_id}: the key that registers is none of its edges", code=403
        )
    low, high = sorted((bytes.fromhex(one), bytes.fromhex(other)))
    if transport_id(low, high, entry.type) != entry.t_id:
        raise RequestRefusedError(
            f"{entry.t_id}: this is not the id of a transport of its type between its edges",
            code=400,
        )
    return body_of(entry.t_id, (low, high), entry.type, entry.label)


def body_of(t_id: uuid.UUID, edges: tuple[bytes, bytes], kind: str, label: str) -> bytes:
    """Return an entry as it is kept and served."""
    return _encoder.encode(Told(t_id, (edges[0].hex(), edges[1].hex()), kind, label))


def entry_in(body: bytes) -> TransportEntry | None:
    """Return a kept entry; None for what no server of ours wrote: others may share a registry."""
    try:
        return _kept.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def entries_of(listing: Listing) -> Sequence[TransportEntry]:
    """Return what is published of a listing: its entries, without anything that moves."""
    return tuple(found for entry in listing.entries if (found := entry_in(entry.body)))


def entries_in(record: Record) -> Sequence[Listed]:
    """Return what a subject's own record in the DHT says, as it is kept. Raises `NamespaceError`.

    The same rules hold: an entry whose id does not fit, or of which the subject is no edge, makes
    the record one that is not taken.
    """
    told = [Told(e.t_id, e.edges, e.type, e.label) for e in record.body or ()]
    try:
        return listed(told, record.subject)
    except RequestRefusedError as bad:
        raise NamespaceError(str(bad)) from bad
