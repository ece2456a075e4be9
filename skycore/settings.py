"""Settings: profile < file < environment < --set, validated once, frozen.

Why two passes: only the `[node]` section says which plugins are active, and only active plugins
say what their sections may contain. A section of an installed but inactive plugin is ignored, so
one file serves three profiles; anything else unknown is refused with a suggestion.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from skycore.contracts.settings import PluginSettings
from skycore.errors import ConfigError
from skycore.plugins import suggestion

__all__ = [
    "ENV_PREFIX",
    "IdentitySettings",
    "Layers",
    "NetworkSettings",
    "NodeSettings",
    "merge",
    "parse_assignment",
    "profile_names",
    "read_file",
    "read_layers",
    "read_sections",
    "validate",
]

ENV_PREFIX = "SKYNODE_"
CONFIG_BYTES_MAX = 1024 * 1024


class NodeSettings(PluginSettings):
    """Which plugins make this node."""

    profile: str = "visor"
    """A profile in the box (fullnode, visor, mirror) or the path of a profile file."""
    plugins: tuple[str, ...] = ()
    """The profile's plugins; an operator's file uses enable and disable instead."""
    enable: tuple[str, ...] = ()
    """Plugins to add to the profile's."""
    disable: tuple[str, ...] = ()
    """Plugins to take away from the profile's."""

    def active(self) -> Sequence[str]:
        """Return the names that remain."""
        return [n for n in (*self.plugins, *self.enable) if n not in self.disable]


class NetworkSettings(PluginSettings):
    """The constants of the network that this node belongs to; all its nodes have the same."""

    suite: str = "ed25519"
    """The kind of keys."""
    name: str = "skycore"
    """The network's name: nodes of different networks never talk."""
    authority: str = ""
    """Public key (hex) that may delegate to mirrors; empty for none. See `skynode network new`."""


class IdentitySettings(PluginSettings):
    """Where the node's secret key is; never the key itself."""

    secret_key_file: str = "secret.key"
    """File with the secret key, mode 0600, relative to the data folder."""


@dataclass(frozen=True)
class Layers:
    """The raw configuration, merged, with what is needed to read the environment typed."""

    merged: Mapping[str, Any]
    environment: Mapping[str, str]
    assigned: Mapping[str, Any]
    summary: str = ""


def profile_names() -> Sequence[str]:
    """Return the profiles in the box."""
    box = resources.files("skycore") / "profiles"
    return sorted(f.name.removesuffix(".toml") for f in box.iterdir() if f.name.endswith(".toml"))


def _read_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as bad:
        raise ConfigError(f"{where} is not TOML: {bad}", hint="see docs/configuration.md") from bad


def read_file(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises `ConfigError`."""
    try:
        data = path.read_bytes()
    except OSError as bad:
        raise ConfigError(f"cannot read {path}: {bad.strerror}") from bad
    if len(data) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{path} is larger than {CONFIG_BYTES_MAX} bytes")
    try:
        return _read_toml(data.decode(), str(path))
    except UnicodeDecodeError as bad:
        raise ConfigError(f"{path} is not UTF-8 text") from bad


def _read_profile(profile: str) -> dict[str, Any]:
    if profile.endswith(".toml") or "/" in profile:
        return read_file(Path(profile))
    if profile not in profile_names():
        raise ConfigError(
            f"there is no profile {profile!r}",
            hint=suggestion(profile, profile_names())
            or f"profiles in the box: {', '.join(profile_names())}; or give a path ending in .toml",
        )
    text = (resources.files("skycore") / "profiles" / f"{profile}.toml").read_text()
    return _read_toml(text, f"profile {profile}")


def parse_assignment(text: str) -> dict[str, Any]:
    """Read `section.key=value` as of `--set`; the value is TOML, else it is text."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(f"--set {text!r} says nothing", hint="write --set section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    for key in reversed(keys):
        parsed = {key: parsed}
    return cast(dict[str, Any], parsed)


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Return `high` over `low`, table by table."""
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(cast(Mapping[str, Any], old), value) if both else value
    return merged


def read_layers(
    *,
    profile: str | None = None,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    assigned: Mapping[str, Any] | None = None,
) -> tuple[NodeSettings, Layers]:
    """Merge every source and return `[node]` validated, for the first pass.

    `profile` given here (a flag) wins over the file's. Raises `ConfigError`.
    """
    environment = {name.upper(): value for name, value in (environment or {}).items()}
    assigned = assigned or {}
    from_file = read_file(file) if file is not None else {}
    chosen = profile or _chosen_profile(from_file, environment, assigned)
    base = _read_profile(chosen)
    summary = str(base.pop("summary", ""))
    merged = merge(merge(base, from_file), {"node": {"profile": chosen}})
    layers = Layers(merged, environment, assigned, summary)
    node = _build({"node": NodeSettings}, layers, only=("node",))["node"]
    return cast(NodeSettings, node), layers


def read_sections(
    models: Mapping[str, type[PluginSettings]],
    *,
    profile: str | None = None,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    assigned: Mapping[str, Any] | None = None,
) -> Mapping[str, PluginSettings]:
    """Return a few kernel sections alone: what a command needs that starts no node."""
    _, layers = read_layers(profile=profile, file=file, environment=environment, assigned=assigned)
    return _build(models, layers, only=tuple(models))


def _chosen_profile(
    from_file: Mapping[str, Any], environment: Mapping[str, str], assigned: Mapping[str, Any]
) -> str:
    for source in (assigned, {"node": {"profile": environment.get(f"{ENV_PREFIX}NODE__PROFILE")}}):
        node = source.get("node", {})
        if isinstance(node, Mapping) and node.get("profile"):
            return str(node["profile"])
    node = from_file.get("node", {})
    return str(node.get("profile", "visor")) if isinstance(node, Mapping) else "visor"


def validate(
    models: Mapping[str, type[PluginSettings]], layers: Layers, ignored: Sequence[str]
) -> Mapping[str, PluginSettings]:
    """Return every section validated against its model, for the second pass.

    `ignored` are installed plugins that are not active: their sections are left unread. Raises
    `ConfigError` naming the first field that is wrong, with a suggestion.
    """
    given = {**layers.merged, **layers.assigned}
    for section in (*given, *_environment_sections(layers.environment)):
        if section not in models and section not in ignored:
            raise ConfigError(
                f"there is no section [{section}]",
                hint=suggestion(section, (*models, *ignored))
                or "`skynode config show --explain` lists every setting",
            )
    return _build(models, layers)


def _environment_sections(environment: Mapping[str, str]) -> Sequence[str]:
    names = (n.removeprefix(ENV_PREFIX) for n in environment if n.startswith(ENV_PREFIX))
    return [n.split("__", 1)[0].lower() for n in names if "__" in n]


def _build(
    models: Mapping[str, type[PluginSettings]], layers: Layers, only: Sequence[str] = ()
) -> Mapping[str, PluginSettings]:
    fields: dict[str, Any] = {n: (m, Field(default_factory=m)) for n, m in models.items()}
    composed = create_model("Configuration", __base__=_Composed, **fields)
    wanted = only or tuple(models)
    file = {k: v for k, v in layers.merged.items() if k in wanted}
    assigned = {k: v for k, v in layers.assigned.items() if k in wanted}
    from_environment: Mapping[str, Any] = {}
    if any(name.startswith(ENV_PREFIX) for name in layers.environment):
        from skycore.environment import read_environment  # 2 MiB that most nodes never need

        from_environment = read_environment(composed, layers.environment, ENV_PREFIX)
    try:
        whole = composed.model_validate(merge(merge(file, from_environment), assigned))
    except ValidationError as bad:
        raise _explained(bad, models) from bad
    return {name: getattr(whole, name) for name in models}


class _Composed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _explained(bad: ValidationError, models: Mapping[str, type[PluginSettings]]) -> ConfigError:
    first = bad.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        shown = f" (given: {first['input']!r:.80})" if first["type"] != "missing" else ""
        return ConfigError(
            f"{where}: {first['msg'].removeprefix('Value error, ')}{shown}",
            hint="`skynode config show --explain` tells what fits",
        )
    section = str(first["loc"][0])
    known = models[section].model_fields if section in models else {}
    return ConfigError(
        f"{where}: there is no such setting",
        hint=suggestion(str(first["loc"][-1]), known)
        or f"[{section}] has: {', '.join(known) or 'nothing'}",
    )
