"""Paths: the routes as /openapi.json tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from skycore.discovery.paths import described, operation

__all__ = ["PATHS"]


_BOUND = {
    200: "bound for five minutes; the answer is what was bound",
    400: "malformed, or the address that it came from is not public, or not the signer's",
}

PATHS: Final[Mapping[str, Mapping[str, Any]]] = described(
    {
        "/bind/stcpr": {
            "post": operation("Say where the signer takes connections.", _BOUND, signed=True),
            "delete": operation("Take it back.", {200: "done"}, signed=True),
        },
        "/resolve/{kind}/{key}": {
            "get": operation(
                "Return where a key takes connections of a type.",
                {200: "a bind", 400: "no type or no key", 404: "it is not bound"},
                signed=True,
            )
        },
        "/transports": {"get": operation("Return the bound keys by type.", {200: "keys"})},
        "/entries": {"get": operation("Return all binds by key.", {200: "address entries"})},
        "/deregister/{kind}": {
            "delete": operation(
                "Forget binds of keys; monitors only.",
                {200: "done", 400: "malformed", 403: "the signer is no monitor"},
                signed=True,
            )
        },
    }
)
