"""Paths: the routes as /openapi.json tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from skycore.discovery.paths import described, operation

__all__ = ["PATHS"]

_WRITTEN = {200: "written", 400: "malformed", 401: "not signed by its key", 422: "a wrong sequence"}
_PUT = operation("List a signed entry, or a newer one.", _WRITTEN)
_LIST = {200: "the list", 404: "there are none"}

PATHS: Final[Mapping[str, Mapping[str, Any]]] = described(
    {
        "/dmsg-discovery/entry/{key}": {
            "get": operation(
                "Return the signed entry of a key.", {200: "it", 400: "no key", 404: "not listed"}
            ),
            "post": _PUT,
        },
        "/dmsg-discovery/entry": {
            "post": _PUT,
            "delete": operation("Delete an entry; the body is a signed deletion.", _WRITTEN),
        },
        "/dmsg-discovery/entries": {"get": operation("Return the keys of all entries.", _LIST)},
        "/dmsg-discovery/visorEntries": {"get": operation("Return the keys of visors.", _LIST)},
        "/dmsg-discovery/entries/batch": {
            "post": operation(
                "Return the entries of given keys.", {200: "by key", 400: "malformed"}
            )
        },
        "/dmsg-discovery/available_servers": {
            "get": operation("Return the servers that are not full.", _LIST)
        },
        "/dmsg-discovery/all_servers": {"get": operation("Return all servers.", _LIST)},
        "/dmsg-discovery/servers/clients": {
            "get": operation("Return the clients of each server.", _LIST)
        },
        "/dmsg-discovery/server/{key}/clients": {
            "get": operation("Return the clients of a server.", {200: "keys", 400: "no key"})
        },
        "/dmsg-discovery/deregister": {
            "delete": operation(
                "End entries of keys; monitors only.",
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
