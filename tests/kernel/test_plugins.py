"""Plugins: found by name, imported only when named, refused when they break a rule."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from skycore import hookimpl, plugins
from skycore.errors import (
    HookError,
    PluginConflictError,
    PluginLoadError,
    PluginNotFoundError,
)
from skycore.plugins import Plugins, installed, is_first_party


class FakeEntry:
    """An entry point whose module is made in the test."""

    def __init__(self, name: str, load: Callable[[], object], value: str = "") -> None:
        self.name, self.value, self.load = name, value or f"{name}.plugin", load
        self.dist = None


def offer(monkeypatch: pytest.MonkeyPatch, *entries: FakeEntry) -> None:
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: list(entries))


def module(**members: object) -> ModuleType:
    made = ModuleType("made")
    for name, member in members.items():
        setattr(made, name, member)
    return made


def test_first_party_plugins_come_from_entry_points_like_any_other() -> None:
    found = installed()
    assert "dht_kademlia" in found
    assert is_first_party(found["dht_kademlia"])
    assert isinstance(found["dht_kademlia"], metadata.EntryPoint)


def test_only_what_is_named_is_imported() -> None:
    script = (
        "import sys\nfrom skycore.plugins import Plugins\nPlugins(['store_memory'])\n"
        "assert 'store_memory.plugin' in sys.modules\n"
        "assert not any(m.startswith('dht_kademlia') for m in sys.modules)\n"
        "assert 'store_memory.service' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(PluginNotFoundError) as bad:
        Plugins(["store_memry"])
    assert "store_memory" in bad.value.hint


def test_a_plugin_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode() -> object:
        raise ZeroDivisionError("boom")

    offer(monkeypatch, FakeEntry("bad_one", explode), FakeEntry("good_one", lambda: module()))
    Plugins(["good_one"])  # a broken neighbour that nobody names hurts nobody
    with pytest.raises(PluginLoadError, match=r"bad_one.*ZeroDivisionError: boom"):
        Plugins(["good_one", "bad_one"])


def test_an_async_hook_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @hookimpl
    async def skycore_stores() -> list[object]:
        return []

    offer(monkeypatch, FakeEntry("late", lambda: module(skycore_stores=skycore_stores)))
    with pytest.raises(HookError, match=r"late.*async"):
        Plugins(["late"])


def test_a_wrapper_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @hookimpl(wrapper=True)
    def skycore_stores() -> object:
        return (yield)

    offer(monkeypatch, FakeEntry("wrapping", lambda: module(skycore_stores=skycore_stores)))
    with pytest.raises(HookError, match="wraps"):
        Plugins(["wrapping"])


def test_a_misspelt_hook_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @hookimpl
    def skycore_storez() -> list[object]:
        return []

    offer(monkeypatch, FakeEntry("typo", lambda: module(skycore_storez=skycore_storez)))
    with pytest.raises(HookError, match="skycore_storez"):
        Plugins(["typo"])


def test_two_distributions_with_one_plugin_name_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = FakeEntry("same", lambda: module(), "a.plugin")
    offer(monkeypatch, one, FakeEntry("same", lambda: module(), "b.plugin"))
    with pytest.raises(PluginConflictError, match="same"):
        installed()


def test_a_third_party_plugin_is_found_and_does_nothing_until_named(tmp_path: Path) -> None:
    """A stranger's distribution on sys.path is listed, and imported only when it is enabled."""
    (tmp_path / "stranger.py").write_text(
        textwrap.dedent("""
        from skycore import hookimpl
        LOADED = True
        @hookimpl
        def skycore_namespaces():
            return []
        """)
    )
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[skycore.plugins]\nstranger = stranger\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from skycore.plugins import Plugins, installed, is_first_party\n"
        "assert not is_first_party(installed()['stranger'])\n"
        "Plugins(['store_memory']); assert 'stranger' not in sys.modules\n"
        "Plugins(['stranger']); assert 'stranger' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
