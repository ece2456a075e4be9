"""What this folder adds to a node: `discovery_dmsg` and `discovery_dmsg_server`."""

from __future__ import annotations

from discovery_dmsg.client.plugin import discovery_dmsg
from discovery_dmsg.server.plugin import discovery_dmsg_server

__all__ = ["discovery_dmsg", "discovery_dmsg_server"]
