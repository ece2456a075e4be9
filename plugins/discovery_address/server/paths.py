"""Paths: the routes as /openapi.json tells them."""

from __future__ import annotations

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


_BOUND = {
    200: "bound for five minutes; the answer is what was bound",
    400: "malformed, or the address that it came from is not public, or not the signer's",
}

PATHS: Final[Mapping[str, Mapping[str, Any]]] = {
    "/bind/stcpr": {
        "post": _operation("Say where the signer takes connections.", _BOUND, signed=True),
        "delete": _operation("Take it back.", {200: "done"}, signed=True),
    },
    "/resolve/{kind}/{key}": {
        "get": _operation(
            "Return where a key takes connections of a type.",
            {200: "a bind", 400: "no type or no key", 404: "it is not bound"},
            signed=True,
        )
    },
    "/transports": {"get": _operation("Return the bound keys by type.", {200: "keys"})},
    "/entries": {"get": _operation("Return all binds by key.", {200: "address entries"})},
    "/deregister/{kind}": {
        "delete": _operation(
            "Forget binds of keys; monitors only.",
            {200: "done", 400: "malformed", 403: "the signer is no monitor"},
            signed=True,
        )
    },
    "/security/nonces/{key}": {
        "get": _operation("Return a key's next nonce.", {200: "it", 400: "no key"})
    },
    "/health": {"get": _operation("Tell how the service is.", {200: "it"})},
}
