"""Plugins: find them by entry point, import only those that are named, refuse broken rules.

Why by name only: an installed plugin does nothing until the profile or the operator names it. That
is a security property of a peer-to-peer node, and it keeps a broken stranger from hurting anybody.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import pluggy

from skycore.errors import (
    HookError,
    PluginConflictError,
    PluginLoadError,
    PluginNotFoundError,
)
from skycore.hookspecs import PROJECT, NodeSpec

__all__ = ["GROUP", "Plugins", "installed", "is_first_party", "suggestion"]

GROUP = "skycore.plugins"


def installed() -> Mapping[str, metadata.EntryPoint]:
    """Return every installed plugin by name. Imports none of them."""
    found: dict[str, metadata.EntryPoint] = {}
    for entry in metadata.entry_points(group=GROUP):
        other = found.get(entry.name)
        if other is not None and other.value != entry.value:
            raise PluginConflictError(
                f"two installed distributions offer a plugin {entry.name!r}: "
                f"{_distribution(other)} and {_distribution(entry)}",
                hint="uninstall one of them",
            )
        found[entry.name] = entry
    return dict(sorted(found.items()))


def is_first_party(entry: metadata.EntryPoint) -> bool:
    """Tell whether a plugin came with skycore itself."""
    return _distribution(entry) == "skycore"


def _distribution(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown distribution"


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ' did you mean …?' for a misspelt word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


class _Manager(pluggy.PluginManager):
    """pluggy with our two rules: hooks are plain functions, and nothing wraps a hook."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        options = super().parse_hookimpl_opts(plugin, name)
        if options is None:
            return None
        function = getattr(plugin, name)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise HookError(
                f"{name} is async; hooks are plain functions",
                hint="return an @asynccontextmanager factory from a plain function",
            )
        if options.get("wrapper") or options.get("hookwrapper"):
            raise HookError(f"{name} wraps a hook; hooks only declare")
        return options


class Plugins:
    """The plugins of one node, imported and registered."""

    def __init__(self, names: Sequence[str]) -> None:
        """Load by name. Raises `PluginError`s: not installed, does not import, breaks a rule."""
        self._manager = _Manager(PROJECT)
        self._manager.add_hookspecs(NodeSpec)
        available = installed()
        for name in dict.fromkeys(names):
            self._load(name, available)
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as bad:
            raise HookError(str(bad), hint="see skycore/hookspecs.py for every hook") from bad

    def _load(self, name: str, available: Mapping[str, metadata.EntryPoint]) -> None:
        entry = available.get(name)
        if entry is None:
            raise PluginNotFoundError(
                f"no installed plugin is called {name!r}",
                hint=suggestion(name, available) or "`skynode plugins` lists what is installed",
            )
        try:
            module = entry.load()
        except Exception as bad:
            raise PluginLoadError(
                f"plugin {name!r} could not be imported: {type(bad).__name__}: {bad}",
                hint=f"disable it ([node] disable = [{name!r}]) or repair {_distribution(entry)}",
            ) from bad
        try:
            self._manager.register(module, name=name)
        except pluggy.PluginValidationError as bad:
            raise HookError(f"plugin {name!r}: {bad}") from bad
        except HookError as bad:
            raise HookError(f"plugin {name!r}: {bad}", hint=bad.hint) from bad

    @property
    def names(self) -> Sequence[str]:
        """The active plugins, sorted."""
        return sorted(name for name, _ in self._manager.list_name_plugin())

    def answers(self, hook: str) -> Iterator[tuple[str, Any]]:
        """Call a hook of every plugin that has it; yield (plugin, answer), by plugin name.

        Answers are walked one by one, so that each keeps its plugin's name for messages.
        """
        caller = getattr(self._manager.hook, hook)
        for impl in sorted(caller.get_hookimpls(), key=lambda i: i.plugin_name):
            yield impl.plugin_name, impl.function()
