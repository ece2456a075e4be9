"""`skynode plugins`, `plan` and `config`: look at a node without starting it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from skycore.console import Console
from skycore.errors import SkycoreError
from skycore.hookspecs import slots
from skycore.node import Assembly, assemble
from skycore.plugins import Plugins, installed, is_first_party
from skycore.settings import read_layers

__all__ = ["check", "plan", "plugins", "show"]

Profile = Annotated[
    str | None, typer.Option(metavar="NAME|PATH", help="Another profile than the configured one.")
]


def _assembly(console: Console, profile: str | None = None) -> Assembly:
    context = console.context
    node, layers = read_layers(
        profile=profile or context.profile,
        file=context.config_file,
        environment=os.environ,
        assigned=context.assigned,
    )
    return assemble(node, layers)


def _provides(name: str) -> list[str]:
    plugin = Plugins([name])
    found = [
        contract.__name__
        for hook, contract in slots().items()
        for _, factories in plugin.answers(hook)
        for _ in factories
    ]
    found += [f"salt {n.salt.decode(errors='replace')}" for _, names in
              plugin.answers("skycore_namespaces") for n in names]  # fmt: skip
    found += ["service" for _, services in plugin.answers("skycore_services") for _ in services]
    return sorted(set(found))


def plugins(console: Console) -> None:
    """List installed plugins: active or not, and what they provide.

    An installed plugin does nothing until a profile or `[node] enable` names it; a stranger's is
    not even imported for this list.
    """
    active = set(_assembly(console).plugins.names)
    rows = []
    for name, entry in installed().items():
        ours = name in active or is_first_party(entry)
        version = entry.dist.version if entry.dist else ""
        rows.append(
            {
                "name": name,
                "active": name in active,
                "distribution": entry.dist.name if entry.dist else "",
                "version": version,
                "provides": _provides(name) if ours else None,
            }
        )
    console.show(
        rows,
        lambda rows: console.table(
            ("NAME", "ACTIVE", "DISTRIBUTION", "PROVIDES"),
            [
                (
                    r["name"],
                    "yes" if r["active"] else "no",
                    f"{r['distribution']} {r['version']}",
                    "(not imported until enabled)" if r["provides"] is None
                    else ", ".join(r["provides"]),
                )
                for r in rows
            ],
        ),
    )  # fmt: skip


def plan(console: Console, profile: Profile = None) -> None:
    """Show the parts of the node in start order, and who is given what. Starts nothing."""
    made = _assembly(console, profile).plan
    rows = [
        {
            "part": provider.name,
            "provides": provider.contract.__name__,
            "needs": {
                name: f"{need.form} {getattr(need.contract, '__name__', need.contract)}"
                for name, need in made.needs[provider].items()
                if need.form != "given"
            },
        }
        for provider in made.order
    ]
    console.show(
        rows,
        lambda rows: console.table(
            ("#", "PART", "PROVIDES", "NEEDS"),
            [
                (i, r["part"], r["provides"].replace("object", "-"), ", ".join(r["needs"].values()))
                for i, r in enumerate(rows, 1)
            ],
        ),
    )


def _shown(assembly: Assembly) -> Mapping[str, Any]:
    return {name: model.model_dump(mode="json") for name, model in assembly.sections.items()}


def show(
    console: Console,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each one is for.")] = False,
    profile: Profile = None,
) -> None:
    """Show every setting of the node with its value, merged from every source."""
    import json

    assembly = _assembly(console, profile)

    def text(shown: Mapping[str, Any]) -> str:
        lines = []
        for section, values in shown.items():
            fields = type(assembly.sections[section]).model_fields
            lines.append(f"\n[{section}]")
            for key, value in values.items():
                if explain:
                    about = " ".join((fields[key].description or "").split())
                    lines.append(f"# {about}")
                lines.append(f"{key} = {json.dumps(value)}")
        return "\n".join(lines).strip()

    console.show(_shown(assembly), text)


def check(console: Console, profile: Profile = None) -> None:
    """Check the configuration: read every source, load the plugins, plan. Starts nothing."""
    assembly = _assembly(console, profile)
    if not assembly.plan.order:
        raise SkycoreError("this node would do nothing", hint="name plugins under [node]")
    console.show(
        {
            "profile": assembly.node.profile,
            "plugins": list(assembly.plugins.names),
            "parts": len(assembly.plan.order),
        },
        lambda r: f"ok: profile {r['profile']}, {len(r['plugins'])} plugins, {r['parts']} parts",
    )
