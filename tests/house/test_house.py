"""The rules of the house that a linter does not know."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from inspect import ismodule
from pathlib import Path
from typing import Any

import pytest

import skycore
from skycore import hookspecs, hooktypes
from skycore.contracts.settings import PluginSettings
from skycore.hookspecs import NodeSpec, slots
from skycore.node import KERNEL_SECTIONS
from skycore.plugins import Plugins, installed, is_first_party

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENTRY_POINTS = PYPROJECT["project"]["entry-points"]["skycore.plugins"]
FOLDERS = sorted(p for p in (ROOT / "plugins").iterdir() if (p / "__init__.py").exists())
SOURCES = sorted(
    p
    for top in ("skycore", "plugins")
    for p in (ROOT / top).rglob("*.py")
    if "egg-info" not in str(p)
)
KERNEL = ("errors", "hookspecs", "plugins", "settings", "wiring", "node", "identity", "events",
          "tasks", "frames", "logs")  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_a_plugin_folder_is_complete(folder: Path) -> None:
    for name in ("README.md", "plugin.py", "py.typed"):
        assert (folder / name).exists(), f"{folder.name} has no {name}"
    assert any((ROOT / "tests" / "plugins" / folder.name).rglob("test_*.py")), "no tests"
    assert any(v.startswith(f"{folder.name}.") for v in ENTRY_POINTS.values()), "no entry point"
    linter = PYPROJECT["tool"]["importlinter"]
    assert folder.name in linter["root_packages"]
    assert re.search(rf"\b{folder.name}\b", linter["contracts"][0]["layers"][0])
    assert folder.name in PYPROJECT["tool"]["mypy"]["packages"]
    assert f"{folder.name}*" in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]


def test_what_is_installed_is_what_pyproject_says() -> None:
    ours = {n: e.value for n, e in installed().items() if is_first_party(e)}
    assert ours == ENTRY_POINTS, "run `pip install -e .` again: entry points changed"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_fit(path: Path) -> None:
    text = path.read_text()
    limit = 60 if path.name == "plugin.py" and "plugins" in path.parts else 400
    assert text.count("\n") <= limit, f"{path.name} is longer than {limit} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 60, f"{path.name}:{node.lineno} {node.name} has {lines} lines"


def _code_lines(text: str) -> int:
    """Count lines that hold code: no blanks, comments or docstrings."""
    tree = ast.parse(text)
    prose: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.update(range(node.lineno, (node.end_lineno or 0) + 1))
    rows = enumerate(text.splitlines(), 1)
    return sum(
        1 for n, row in rows if row.strip() and not row.strip().startswith("#") and n not in prose
    )


def test_the_kernel_stays_small() -> None:
    total = sum(_code_lines((ROOT / "skycore" / f"{name}.py").read_text()) for name in KERNEL)
    assert total <= 1_600


def _public_modules() -> Iterator[str]:
    for top in ["skycore", *(f.name for f in FOLDERS)]:
        package = importlib.import_module(top)
        yield top
        for module in pkgutil.walk_packages(package.__path__, f"{top}."):
            yield module.name


def test_every_public_module_has_an_exact_all() -> None:
    for name in _public_modules():
        if importlib.util.find_spec(name).origin.endswith("__init__.py"):  # type: ignore[union-attr]
            continue
        module = importlib.import_module(name)
        listed = getattr(module, "__all__", None)
        assert listed is not None, f"{name} has no __all__"
        for word in listed:
            assert hasattr(module, word), f"{name}.__all__ lists {word}, which is not there"


def test_what_a_module_takes_from_another_stands_in_its_all() -> None:
    modules = {name: importlib.import_module(name) for name in _public_modules()}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            listed = getattr(modules.get(getattr(node, "module", "")), "__all__", None)
            if isinstance(node, ast.ImportFrom) and listed is not None:
                for name in node.names:
                    known = name.name in listed or f"{node.module}.{name.name}" in modules
                    assert known, f"{path.name}: {node.module}.__all__ lacks {name.name}"


def test_every_hook_has_a_plugin_a_suite_and_docs() -> None:
    names = [n for n, e in installed().items() if is_first_party(e)]
    plugins = Plugins(names)
    page = (ROOT / "docs" / "hooks.md").read_text()
    suites = (ROOT / "skycore" / "testing" / "contracts").glob("*.py")
    suite_text = "\n".join(p.read_text() for p in suites)
    for hook, function in vars(NodeSpec).items():
        if not hook.startswith("skycore_"):
            continue
        assert any(True for _ in plugins.answers(hook)), f"no plugin uses {hook}"
        assert f"`{hook}`" in page
        for suite in re.findall(r"`(\w+Contract)`", function.__doc__ or ""):
            assert f"class {suite}" in suite_text, f"{hook} names a suite that is not there"
    assert set(slots()) <= {h for h in vars(NodeSpec) if h.startswith("skycore_")}


def test_every_hook_of_a_plugin_says_what_it_returns() -> None:
    """So that mypy compares it with its spec."""
    for hook, function in vars(NodeSpec).items():
        if hook.startswith("skycore_"):
            named = getattr(hooktypes, _type_of(hook))
            contracts = {t.__name__: t for m in vars(hooktypes).values() for t in _types_in(m)}
            spec = function.__annotations__["return"]
            assert named == eval(spec, {**vars(hookspecs), "Any": Any, **contracts}), hook  # noqa: S307
    for path in (ROOT / "plugins").rglob("*plugin.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("skycore_"):
                says = ast.unparse(node.returns) if node.returns else "nothing"
                assert says == f"hooktypes.{_type_of(node.name)}", f"{path}: {node.name}"


def _type_of(hook: str) -> str:
    return "".join(word.title() for word in hook.split("_")[1:])


def _types_in(module: object) -> list[type]:
    return [t for t in vars(module).values() if isinstance(t, type)] if ismodule(module) else []


def _settings_models() -> Iterator[tuple[str, type[PluginSettings]]]:
    yield from KERNEL_SECTIONS.items()
    for name, entry in installed().items():
        if is_first_party(entry):
            yield from Plugins([name]).answers("skycore_settings")


def test_every_setting_is_described() -> None:
    for section, model in _settings_models():
        assert model.model_config.get("frozen"), section
        for key, field in model.model_fields.items():
            assert field.description, f"{section}.{key} has no description"


@pytest.mark.parametrize("page", ["numbers.md", "hooks.md", "configuration.md"])
def test_reference_pages_are_up_to_date(page: str) -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert (ROOT / "docs" / page).read_text() == generate.PAGES[page](), (
        "run: python docs/generate.py"
    )


def test_links_in_the_docs_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/README.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_no_machine_path_and_no_secret_lies_about() -> None:
    forbidden = re.compile(r"(?<![\w.])/(?:wor" r"k|roo" r"t)/\w")
    for path in [*SOURCES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("**/*.md"), ROOT / "Makefile"]:
        if ".venv" not in path.parts:
            assert not forbidden.search(path.read_text()), path


def test_the_public_names_of_skycore() -> None:
    for name in skycore.__all__:
        assert getattr(skycore, name) is not None
    with pytest.raises(AttributeError):
        _ = skycore.nothing_of_that_name
