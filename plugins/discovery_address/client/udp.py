"""Where the resolver takes bindings by UDP: its own word, in `/health`.

Why looked at with care: whoever speaks for the resolver, or on the way to it, could send this
node's datagrams anywhere. Its word never leads to this machine itself, unless it is here, too.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from skycore.discovery.binds import Reach, reach_of
from skycore.discovery.signed import SignedClient, accepted
from skycore.errors import ConfigError, DiscoveryError
from skycore.model.addresses import join_host_port, split_host_port

__all__ = ["UdpOfResolver"]

HEALTH_BYTES_MAX = 65_536


class _Health(msgspec.Struct, frozen=True):
    """What is read of it; what else it tells is left alone."""

    udp_address: Annotated[str, Meta(max_length=300)] = ""


class UdpOfResolver:
    """`contracts.services.AddressResolver`."""

    def __init__(self, client: SignedClient | None) -> None:
        self._client = client

    async def udp_address(self) -> str:
        """Ask the resolver. An address that is nobody's stands for the host of its URL."""
        client = self._client
        if client is None:
            return ""
        health: _Health = accepted(
            await client.get("/health", body_bytes_max=HEALTH_BYTES_MAX)
        ).json(_Health)
        if not health.udp_address:
            return ""
        try:
            host, port = split_host_port(health.udp_address)
        except ConfigError as bad:
            raise DiscoveryError(f"the address resolver has no sound udp_address: {bad}") from bad
        if not port:
            return ""
        own = urlsplit(client.url).hostname or ""
        reach = reach_of(host) if host else Reach.NEVER
        if reach is Reach.NEVER or (reach is Reach.HERE and reach_of(own) is not Reach.HERE):
            host = own
        return join_host_port(host, port)
