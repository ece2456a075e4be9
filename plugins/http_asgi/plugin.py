"""What this folder adds to a node, in two plugins: `http_server` and `http_client`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["http_client", "http_server"]


class _HttpServer:
    """One server for the routes of all plugins."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        """Where to listen, and what a stranger may ask for."""
        from http_asgi.settings import HttpServerSettings

        return HttpServerSettings

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        from http_asgi.service import open_http_server
        from skycore import Provider
        from skycore.contracts.http import HttpServer

        return [Provider(HttpServer, open_http_server)]

    @hookimpl
    def skycore_status(self) -> hooktypes.Status:
        """How many requests ended how."""
        from http_asgi.service import open_http_status

        return [open_http_status]


class _HttpClient:
    """The client that all parts share."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        """How long to wait, how much to read."""
        from http_asgi.settings import HttpClientSettings

        return HttpClientSettings

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        from http_asgi.client import open_http_client
        from skycore import Provider
        from skycore.contracts.http import HttpClient

        return [Provider(HttpClient, open_http_client)]


http_server, http_client = _HttpServer(), _HttpClient()
