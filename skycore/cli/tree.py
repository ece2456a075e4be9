"""The command tree: built from `Command` values, each imported only when it is run.

Why lazy: `skynode --help` must answer at once, and a node without a DHT must not import one just
because it shares a command line with nodes that have it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from skycore.cli.alone import open_alone
from skycore.console import Console, Context
from skycore.contracts.command import Command
from skycore.errors import PluginConflictError, PluginError

__all__ = ["LazyGroup", "Tree", "build_tree", "warn"]

GROUP_HELP = {
    "keys": "The node's key pair.",
    "network": "The constants of a network, its authority and its delegations.",
    "config": "Settings: what they are, and whether they fit.",
    "visor": "The running node: what it is, whom it trusts, its DHT, calls to other nodes.",
    "mirror": "A mirror: what a service publishes, straight into Redis.",
    "dmsg": "DMSG relays: which there are, and where.",
    "svc": "Services that visors offer.",
    "visor dht": "Signed records: read and publish them, compare nodes, keep in step.",
    "visor whitelist": "Which keys may call this node.",
    "tp": "Transports: live links to other nodes.",
}
Tree = dict[str, Any]


def build_tree(commands: Sequence[Command]) -> Tree:
    """Return nested dicts by word, with Commands as leaves. Raises `PluginConflictError`."""
    root: Tree = {}
    for command in commands:
        *groups, name = command.path.split()
        here = root
        for word in groups:
            here = here.setdefault(word, {})
        if name in here:
            raise PluginConflictError(f"two plugins claim the command {command.path!r}")
        here[name] = command
    return root


class LazyGroup(TyperGroup):
    """A group whose commands come from a tree, made when they are asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.load: Callable[[], Tree] = dict
        self.path = ""

    @functools.cached_property
    def tree(self) -> Tree:
        """The commands below; asking imports the plugins' tables, not their code."""
        return self.load()

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, for help and completion."""
        return sorted(self.tree)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a group, or a command that loads itself when it is used."""
        found = self.tree.get(cmd_name)
        if found is None:
            return None
        if isinstance(found, Command):
            return _LazyCommand(cmd_name, found)
        path = f"{self.path} {cmd_name}".strip()
        group = LazyGroup(
            name=cmd_name, help=GROUP_HELP.get(path, ""), no_args_is_help=True,
            rich_markup_mode="rich",
        )  # fmt: skip
        group.path, group.load = path, lambda: cast(Tree, found)
        return group


class _LazyCommand(TyperCommand):
    """Knows its help; becomes the real command when a command line names it."""

    def __init__(self, name: str, command: Command) -> None:
        super().__init__(name, help=command.help, rich_markup_mode="rich")
        self._command = command

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Hand over to the real command, which click then invokes."""
        return _real(self._command).make_context(*args, **kwargs)


def _real(command: Command) -> Any:
    module, _, function = command.run.partition(":")
    try:
        run = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as bad:
        raise PluginError(f"command {command.path!r} cannot be loaded: {bad}") from bad
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    name = command.path.split()[-1]
    app.command(name, help=_flowing(run.__doc__ or command.help))(_with_console(run))
    return typer.main.get_command(app)


def _flowing(text: str) -> str:
    """Return a docstring whose paragraphs break where the terminal does, not the source."""
    return re.sub(r"(?<!\n)\n(?=\S)", " ", inspect.cleandoc(text))


_SHARED: Mapping[str, tuple[Any, Any]] = {
    "data": (
        Annotated[
            Path | None,
            typer.Option("--data", metavar="DIR", help="Folder of the node to talk to."),
        ],
        None,
    ),
    "as_json": (Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")], False),
}


def _with_console(run: Callable[..., None]) -> Callable[..., None]:
    """Give a command --data and --json, and hand it a Console instead."""
    hints = get_type_hints(run, include_extras=True)
    parameters = inspect.signature(run).parameters
    wanted = [name for name, hint in hints.items() if hint is Console]

    def command(**given: Any) -> None:
        context = Context.current()
        console = Console(context.with_flags(given.pop("data"), given.pop("as_json")), open_alone)
        run(**given, **dict.fromkeys(wanted, console))

    own = [p.replace(annotation=hints[n]) for n, p in parameters.items() if n not in wanted]
    shared = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, annotation=a, default=d)
        for n, (a, d) in _SHARED.items()
    ]
    command.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
    command.__module__ = run.__module__
    return command


def warn(message: str) -> None:
    """Tell a person, without stopping."""
    sys.stderr.write(f"warning: {message}\n")
