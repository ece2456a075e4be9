"""Write the reference pages that are made from the code: numbers, hooks, configuration.

Run `python docs/generate.py` after changing a hook, a setting or a number; a test compares.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

from skycore.hookspecs import NodeSpec, slots
from skycore.model import limits, numbers
from skycore.node import KERNEL_SECTIONS
from skycore.plugins import Plugins, installed, is_first_party

HERE = Path(__file__).parent


def numbers_page() -> str:
    """Return docs/numbers.md."""
    lines = [
        "# Numbers",
        "",
        "Made from `skycore/model/numbers.py` and `limits.py` by `docs/generate.py`.",
        "Packet types 0 to 127 keep Skywire's meaning; 128 to 255 belong to plugins.",
    ]
    for title, enum in (
        ("Packet types", numbers.PacketType),
        ("DHT methods", numbers.DhtMethod),
        ("Ports (for relays)", numbers.Port),
    ):
        lines += ["", f"## {title}", "", "| number | name |", "|---:|---|"]
        lines += [f"| {member.value} | {member.name} |" for member in enum]
    lines += ["", "## Salts", "", "| salt | version | form | who may sign, for how long |"]
    lines += ["|---|---:|---|---|"]
    names = [n for n, e in installed().items() if is_first_party(e)]
    for _, namespaces in Plugins(names).answers("skycore_namespaces"):
        for n in namespaces:
            lives = ", ".join(f"{c.name.lower()} {s} s" for c, s in n.lifetimes_s.items())
            lines.append(f"| `{n.salt.decode()}` | {n.version} | {n.form.value} | {lives} |")
    lines += ["", "## Bounds of the wire formats", "", "| name | value |", "|---|---:|"]
    lines += [f"| {name} | {getattr(limits, name):,} |" for name in limits.__all__]
    return "\n".join(lines) + "\n"


def hooks_page() -> str:
    """Return docs/hooks.md."""
    lines = [
        "# Hooks",
        "",
        "Made from `skycore/hookspecs.py` by `docs/generate.py`. A hook is a plain function that",
        "returns factories or values; it is called once, while a node is put together.",
    ]
    contracts = slots()
    for name, function in vars(NodeSpec).items():
        if not name.startswith("skycore_"):
            continue
        lines += ["", f"## `{name}`", ""]
        if name in contracts:
            contract = contracts[name]
            lines += [f"Contract: `{contract.__module__}.{contract.__name__}`", ""]
        lines += [inspect.getdoc(function) or ""]
    return "\n".join(lines) + "\n"


def configuration_page() -> str:
    """Return docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "Made from the settings models by `docs/generate.py`. Precedence, lowest first: model",
        "defaults, profile, config file (`--config`, else `node.toml` in `--data`), environment",
        "(`SKYNODE_SECTION__KEY`, lists as JSON), `--set section.key=value`.",
    ]
    models = dict(KERNEL_SECTIONS)
    for name, entry in installed().items():
        if is_first_party(entry):
            models.update(dict(Plugins([name]).answers("skycore_settings")))
    for section, model in models.items():
        lines += ["", f"## `[{section}]`", "", inspect.cleandoc(model.__doc__ or ""), ""]
        lines += ["| setting | default | what it is |", "|---|---|---|"]
        for key, field in model.model_fields.items():
            default = field.get_default(call_default_factory=True)
            about = " ".join((field.description or "").split()).replace("|", "\\|")
            lines.append(f"| `{key}` | `{json.dumps(default, default=str)}` | {about} |")
    return "\n".join(lines) + "\n"


PAGES = {
    "numbers.md": numbers_page,
    "hooks.md": hooks_page,
    "configuration.md": configuration_page,
}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page())
        sys.stdout.write(f"docs/{name}\n")


if __name__ == "__main__":
    main()
