"""Shelf: the listed services by type, as anybody may see them, kept by what changed.

Why not made for each request: a list is asked for far more often than it changes (L25). A change
costs the services of its key, and a whole list is put together once for each state of the table.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from discovery_service.entries import ALIASES, ANY_TYPE, public
from discovery_service.server.told import entry_in
from skycore.contracts.registry import Listing
from skycore.discovery.directory import Directory
from skycore.model.entries import ServiceEntry

__all__ = ["Row", "Shelf"]

_encoder = msgspec.json.Encoder()


class Row(NamedTuple):
    """A service, and how it is told."""

    entry: ServiceEntry
    body: bytes


class Shelf:
    """The services of a directory, in step with it whenever it is asked."""

    def __init__(self, directory: Directory, dice: random.Random) -> None:
        self._directory = directory
        self._dice = dice
        self._rows: dict[bytes, tuple[Listing, tuple[Row, ...]]] = {}
        self._by_type: dict[str, list[Row]] = {}
        self._whole: dict[str, bytes] = {}
        self._version = -1

    def of(self, subject: bytes, kind: str) -> Sequence[Row]:
        """Return what a key offers of a type."""
        self._look()
        return [row for row in self._rows_of(subject) if _is(row, kind)]

    def whole(self, kind: str) -> bytes:
        """Return all services of a type as JSON, in order of their keys."""
        self._look()
        body = self._whole.get(kind)
        if body is None:
            body = _array(self._of_type(kind))
            if kind == ANY_TYPE or _real(kind) in self._by_type:
                self._whole[kind] = body  # bounded: types that are there, and one name for all
        return body

    def some(self, kind: str, version: str, country: str, quantity: int | None) -> bytes:
        """Return services that fit as JSON; `quantity` of them by chance."""
        self._look()
        rows = [
            row
            for row in self._of_type(kind)
            if (not version or row.entry.version == version)
            and (not country or (row.entry.geo is not None and row.entry.geo.country == country))
        ]
        if quantity is not None and quantity < len(rows):
            rows = self._dice.sample(rows, quantity)
        return _array(rows)

    def counts(self) -> dict[str, int]:
        """Return how many services there are by type."""
        self._look()
        return {kind: len(rows) for kind, rows in sorted(self._by_type.items())}

    def _of_type(self, kind: str) -> list[Row]:
        if kind != ANY_TYPE:
            return self._by_type.get(_real(kind), [])
        return [row for name in sorted(self._by_type) for row in self._by_type[name]]

    def _rows_of(self, subject: bytes) -> tuple[Row, ...]:
        return self._rows[subject][1] if subject in self._rows else ()

    def _look(self) -> None:
        """Take over what changed."""
        if self._version == self._directory.version:
            return
        self._version = self._directory.version
        rows: dict[bytes, tuple[Listing, tuple[Row, ...]]] = {}
        by_type: dict[str, list[Row]] = {}
        for listing in sorted(self._directory, key=lambda one: one.subject):
            held = self._rows.get(listing.subject)
            if held is None or held[0] is not listing:
                held = listing, tuple(_rows(listing))
            rows[listing.subject] = held
            for row in held[1]:
                by_type.setdefault(row.entry.type, []).append(row)
        self._rows, self._by_type, self._whole = rows, by_type, {}


def _rows(listing: Listing) -> Iterator[Row]:
    for entry in listing.entries:
        shown = public(entry_in(entry.body))
        yield Row(shown, _encoder.encode(shown))


def _real(kind: str) -> str:
    return ALIASES.get(kind, kind)


def _is(row: Row, kind: str) -> bool:
    return kind == ANY_TYPE or row.entry.type == _real(kind)


def _array(rows: Sequence[Row]) -> bytes:
    return b"[" + b",".join(row.body for row in rows) + b"]"
