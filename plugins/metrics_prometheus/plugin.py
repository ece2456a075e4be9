"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_http_routes", "skycore_settings"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """Who may read, and how fresh what he reads is."""
    from metrics_prometheus.settings import MetricsSettings

    return MetricsSettings


@hookimpl
def skycore_http_routes() -> hooktypes.HttpRoutes:
    """/metrics."""
    from metrics_prometheus.service import open_metrics

    return [open_metrics]
