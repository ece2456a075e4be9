"""Paths: how a discovery server tells its routes in /openapi.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["described", "operation"]


def operation(summary: str, answers: Mapping[int, str], *, signed: bool = False) -> dict[str, Any]:
    """Return an operation by what it does and what its statuses mean."""
    told = dict(answers)
    if signed:
        told |= {401: "the request is not signed, or its nonce is not the next one"}
        told |= {429: "too many requests of this key"}
    return {
        "summary": summary,
        "responses": {str(code): {"description": what} for code, what in sorted(told.items())},
    }


def described(paths: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Return path items, and those that every service has, with the parameters of their paths.

    Each `{name}` is a text.
    """
    whole = {}
    for path, item in {**paths, **_EVERYWHERE}.items():
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", path)
        ]
        whole[path] = {"parameters": parameters, **item} if parameters else item
    return whole


_EVERYWHERE: Final = {
    "/security/nonces/{key}": {
        "get": operation("Return a key's next nonce.", {200: "it", 400: "no key"})
    },
    "/health": {"get": operation("Tell how the service is.", {200: "it"})},
}
