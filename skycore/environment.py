"""Settings from the environment: SKYNODE_SECTION__KEY, read by pydantic-settings.

Why apart: pydantic-settings costs two megabytes and a tenth of a start, and is loaded only where
the environment says something.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings.exceptions import SettingsError

from skycore.errors import ConfigError

__all__ = ["read_environment"]


class _Environment(EnvSettingsSource):
    """pydantic-settings' reader over a mapping of ours."""

    def __init__(self, model: type[BaseModel], environment: Mapping[str, str], prefix: str) -> None:
        self._given = {k.lower(): v for k, v in environment.items()}
        super().__init__(
            cast(type[BaseSettings], model),
            case_sensitive=False,
            env_prefix=prefix,
            env_nested_delimiter="__",
        )

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._given


def read_environment(
    model: type[BaseModel], environment: Mapping[str, str], prefix: str
) -> Mapping[str, Any]:
    """Return what variables PREFIX + SECTION__KEY say of a model's fields, not yet validated.

    Raises `ConfigError` for a text that cannot be what its field takes.
    """
    try:
        return _Environment(model, environment, prefix)()
    except SettingsError as bad:
        raise ConfigError(
            f"the environment does not fit: {bad}",
            hint=f"lists are written as JSON: {prefix}SECTION__KEY='[\"a\"]'",
        ) from bad
