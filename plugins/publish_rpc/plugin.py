"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_rpc_methods"]


@hookimpl
def skycore_rpc_methods() -> hooktypes.RpcMethods:
    """publish.facts and publish.mirrored."""
    from publish_rpc.service import open_publish_rpc

    return [open_publish_rpc]
