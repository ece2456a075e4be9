"""What this plugin adds to a node."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = ["skycore_rpc_methods", "skycore_settings"]


@hookimpl
def skycore_settings() -> Any:
    """How long parts may take to answer."""
    from visor_info.settings import VisorInfoSettings

    return VisorInfoSettings


@hookimpl
def skycore_rpc_methods() -> Any:
    """Overview, Health and Summary."""
    from visor_info.service import open_info

    return [open_info]
