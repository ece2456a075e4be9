"""What this folder adds to a node: `discovery_service` and `discovery_service_server`."""

from __future__ import annotations

from discovery_service.client.plugin import discovery_service
from discovery_service.server.plugin import discovery_service_server

__all__ = ["discovery_service", "discovery_service_server"]
