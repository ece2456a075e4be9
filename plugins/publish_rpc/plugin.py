"""What this plugin adds to a node."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = ["skycore_rpc_methods"]


@hookimpl
def skycore_rpc_methods() -> Any:
    """publish.facts and publish.mirrored."""
    from publish_rpc.service import open_publish_rpc

    return [open_publish_rpc]
