"""What this folder adds to a node: `dmsg_client` and `dmsg_server`."""

from __future__ import annotations

from relay_dmsg.client.plugin import dmsg_client
from relay_dmsg.server.plugin import dmsg_server

__all__ = ["dmsg_client", "dmsg_server"]
