"""Paths: the routes as /openapi.json tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from skycore.discovery.paths import described, operation

__all__ = ["PATHS"]


_ENTRY = {200: "an entry", 400: "no id", 404: "nobody lists it"}
_ENTRIES = {200: "entries", 400: "no key", 404: "it lists none"}
_WHOLE = {200: "the list", 304: "as it was", 404: "nothing is listed"}
_LISTED = {
    201: "listed for five minutes",
    400: "malformed, or an id that does not fit its edges and type",
    403: "the signer is no edge of an entry: nothing was stored",
    413: "too many entries",
}

PATHS: Final[Mapping[str, Mapping[str, Any]]] = described(
    {
        "/transports/": {"post": operation("List transports (v2).", _LISTED, signed=True)},
        "/v3/transports/": {"post": operation("List transports.", _LISTED, signed=True)},
        "/transports/id:{id}": {
            "get": operation("Return a transport.", _ENTRY),
            "delete": operation(
                "Take a transport off the signer's list.",
                {200: "done", 400: "the signer is no edge", 404: "nobody lists it"},
                signed=True,
            ),
        },
        "/transports/edge:{key}": {"get": operation("Return what a key lists.", _ENTRIES)},
        "/v3/transports/edge:{key}": {"get": operation("Return what a key lists.", _ENTRIES)},
        "/transports/edges": {
            "post": operation(
                "Return what several keys list, each transport once.",
                {200: "entries", 400: "malformed", 413: "too many keys"},
            )
        },
        "/all-transports": {"get": operation("Return all transports.", _WHOLE)},
        "/all-transports/stats": {"get": operation("Count them by type.", _WHOLE)},
        "/all-transports/per-key-stats": {"get": operation("Count them by key and type.", _WHOLE)},
        "/transports/stats/{key}": {"get": operation("Count what a key lists.", _ENTRIES)},
        "/transports/delete-batch": {
            "post": operation(
                "Take transports off the signer's list.",
                {200: "how many", 400: "malformed", 413: "too many"},
                signed=True,
            )
        },
        "/transports/deregister": {
            "delete": operation(
                "Take transports off all lists; monitors only.",
                {200: "done", 400: "malformed", 403: "the signer is no monitor"},
                signed=True,
            )
        },
        "/v4/update": {"get": operation("Count the signer as seen.", {200: "done"}, signed=True)},
        "/uptimes": {"get": operation("Return how much keys were seen.", {200: "rows"})},
        "/statuses": {"post": operation("Nothing any more.", {410: "always"})},
    }
)
