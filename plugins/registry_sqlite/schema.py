"""Tables and indexes.

Why one row for all that a subject lists: it is read, judged and written as a whole, and so a hub of
916 entries costs a few statements, not thousands. Why lives in a table of their own: 99 of 100
registrations change nothing else, and then no body is written again.
"""

from __future__ import annotations

from typing import Final

from skycore.sqlite import Schema

__all__ = ["SCHEMA"]

_CREATE: Final = (
    "CREATE TABLE meta (id INTEGER PRIMARY KEY, registry_id BLOB NOT NULL, is_clean INTEGER)",
    # position: of the last change; first: nothing is missing from there on; floor: lowest nonce
    "CREATE TABLE places (name TEXT PRIMARY KEY, position INTEGER, first INTEGER, floor INTEGER)",
    # bodies: MessagePack [[key, body], …] by key; gone_ms: since when it lists nothing
    "CREATE TABLE listings (id INTEGER PRIMARY KEY, place TEXT NOT NULL, subject BLOB NOT NULL,"
    " position INTEGER NOT NULL, gone_ms INTEGER, bytes INTEGER NOT NULL, bodies BLOB NOT NULL)",
    "CREATE UNIQUE INDEX listings_subject ON listings (place, subject)",
    "CREATE INDEX listings_log ON listings (place, position)",
    "CREATE INDEX listings_gone ON listings (place, gone_ms) WHERE gone_ms IS NOT NULL",
    # lives: MessagePack [[until_ms, stamp], …] in the same order; ends: the earliest of them
    "CREATE TABLE lives (id INTEGER PRIMARY KEY, place TEXT NOT NULL, ends INTEGER,"
    " lives BLOB NOT NULL)",
    "CREATE INDEX lives_ends ON lives (place, ends)",
    # a used nonce moves to the end: the lowest ids are those not used for longest
    "CREATE TABLE nonces (id INTEGER PRIMARY KEY, place TEXT NOT NULL, subject BLOB NOT NULL,"
    " next INTEGER NOT NULL)",
    "CREATE UNIQUE INDEX nonces_subject ON nonces (place, subject)",
    "CREATE TABLE beats (place TEXT, day TEXT, subject BLOB, slots BLOB NOT NULL, last_s INTEGER,"
    " PRIMARY KEY (place, day, subject)) WITHOUT ROWID",
)

SCHEMA: Final = Schema(
    what="registry",
    holds="listings",
    setting="registry_sqlite.path",
    mark="listings",
    version=1,
    create=_CREATE,
    newer_hint="update this program, or move the file away: what is listed is repeated",
)
