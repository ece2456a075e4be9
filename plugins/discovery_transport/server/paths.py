"""Paths: the routes as /openapi.json tells them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["PATHS"]


def _operation(summary: str, answers: Mapping[int, str], *, signed: bool = False) -> dict[str, Any]:
    told = dict(answers)
    if signed:
        told |= {401: "the request is not signed, or its nonce is not the next one"}
        told |= {429: "too many requests of this key"}
    return {
        "summary": summary,
        "responses": {str(code): {"description": what} for code, what in sorted(told.items())},
    }


def _described(paths: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Declare the parameters of paths."""
    described = {}
    for path, item in paths.items():
        names = re.findall(r"{(\w+)}", path)
        told = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
        described[path] = {"parameters": told, **item} if told else item
    return described


_ENTRY = {200: "an entry", 400: "no id", 404: "nobody lists it"}
_ENTRIES = {200: "entries", 400: "no key", 404: "it lists none"}
_WHOLE = {200: "the list", 304: "as it was", 404: "nothing is listed"}
_LISTED = {
    201: "listed for five minutes",
    400: "malformed, or an id that does not fit its edges and type",
    403: "the signer is no edge of an entry: nothing was stored",
    413: "too many entries",
}

_PATHS: Final[Mapping[str, Mapping[str, Any]]] = {
    "/transports/": {"post": _operation("List transports (v2).", _LISTED, signed=True)},
    "/v3/transports/": {"post": _operation("List transports.", _LISTED, signed=True)},
    "/transports/id:{id}": {
        "get": _operation("Return a transport.", _ENTRY),
        "delete": _operation(
            "Take a transport off the signer's list.",
            {200: "done", 400: "the signer is no edge", 404: "nobody lists it"},
            signed=True,
        ),
    },
    "/transports/edge:{key}": {"get": _operation("Return what a key lists.", _ENTRIES)},
    "/v3/transports/edge:{key}": {"get": _operation("Return what a key lists.", _ENTRIES)},
    "/transports/edges": {
        "post": _operation(
            "Return what several keys list, each transport once.",
            {200: "entries", 400: "malformed", 413: "too many keys"},
        )
    },
    "/all-transports": {"get": _operation("Return all transports.", _WHOLE)},
    "/all-transports/stats": {"get": _operation("Count them by type.", _WHOLE)},
    "/all-transports/per-key-stats": {"get": _operation("Count them by key and type.", _WHOLE)},
    "/transports/stats/{key}": {"get": _operation("Count what a key lists.", _ENTRIES)},
    "/transports/delete-batch": {
        "post": _operation(
            "Take transports off the signer's list.",
            {200: "how many", 400: "malformed", 413: "too many"},
            signed=True,
        )
    },
    "/transports/deregister": {
        "delete": _operation(
            "Take transports off all lists; monitors only.",
            {200: "done", 400: "malformed", 403: "the signer is no monitor"},
            signed=True,
        )
    },
    "/v4/update": {"get": _operation("Count the signer as seen.", {200: "done"}, signed=True)},
    "/uptimes": {"get": _operation("Return how much keys were seen.", {200: "rows"})},
    "/statuses": {"post": _operation("Nothing any more.", {410: "always"})},
    "/security/nonces/{key}": {
        "get": _operation("Return a key's next nonce.", {200: "it", 400: "no key"})
    },
    "/health": {"get": _operation("Tell how the service is.", {200: "it"})},
}

PATHS: Final = _described(_PATHS)
