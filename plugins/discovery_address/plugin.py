"""What this folder adds to a node: `discovery_address` and `discovery_address_server`."""

from __future__ import annotations

from discovery_address.client.plugin import discovery_address
from discovery_address.server.plugin import discovery_address_server

__all__ = ["discovery_address", "discovery_address_server"]
