"""Paths: the routes as /openapi.json tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from skycore.discovery.paths import described, operation

__all__ = ["PATHS"]


_LISTED = {
    200: "listed for five minutes; the answer is what was listed",
    400: "malformed",
    403: "another key's service, a vpn or skysocks without version, a visor seen elsewhere",
    413: "too many services",
}

PATHS: Final[Mapping[str, Mapping[str, Any]]] = described(
    {
        "/api/services": {
            "get": operation(
                "Return services of a type (type=*: of all); version, country, quantity narrow it.",
                {200: "services", 400: "no type"},
            ),
            "post": operation(
                "List a service of the signer; a list: all that it offers.", _LISTED, signed=True
            ),
        },
        "/api/services/{address}": {
            "get": operation(
                "Return a key's service of a type (type=*: all of them, as a list).",
                {200: "it", 400: "no type or no key", 404: "it is not listed"},
            ),
            "delete": operation(
                "Take a service off the list.", {200: "done", 403: "another key's"}, signed=True
            ),
        },
        "/api/services/deregister/{kind}": {
            "delete": operation(
                "Take keys' services of a type off the list; monitors only.",
                {200: "done", 400: "malformed", 403: "the signer is no monitor"},
                signed=True,
            )
        },
        "/uptimes": {
            "get": operation("Return how much keys were seen.", {200: "rows"}),
            "post": operation(
                "Return how much some keys were seen.", {200: "rows", 400: "malformed"}
            ),
        },
    }
)
