"""The base of every settings model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["PluginSettings"]


class PluginSettings(BaseModel):
    """A plugin's section of the configuration: frozen, typos refused, every field described.

    Units stand in the names (`retry_s`, `items_max`). A field without a description fails a test.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
