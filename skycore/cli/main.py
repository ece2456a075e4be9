"""`skynode`: run a node, or talk to the one that runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from skycore.cli.tree import LazyGroup, Tree, build_tree, warn
from skycore.console import Context, default_data
from skycore.contracts.command import Command
from skycore.errors import (
    ConfigError,
    PluginError,
    PluginLoadError,
    PluginNotFoundError,
    SkycoreError,
    WiringError,
)

__all__ = ["BUILT_IN", "app", "main"]

BUILT_IN = (
    Command("keys new", "Make a key pair; refuses to overwrite one.", "skycore.cli.keys:new"),
    Command("keys show", "Print the node's public key.", "skycore.cli.keys:show"),
    Command("network new", "Found a network: make its authority.", "skycore.cli.network:new"),
    Command("network show", "Show the network this node belongs to.", "skycore.cli.network:show"),
    Command("network delegate", "Let a key mirror a salt.", "skycore.cli.network:delegate"),
    Command("plugins", "List installed plugins.", "skycore.cli.inspect:plugins"),
    Command("plan", "Show what would start, in which order.", "skycore.cli.inspect:plan"),
    Command("config show", "Show every setting and its value.", "skycore.cli.inspect:show"),
    Command("config check", "Check the configuration; start nothing.", "skycore.cli.inspect:check"),
)

app = typer.Typer(
    name="skynode",
    cls=LazyGroup,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _load_tree() -> Tree:
    """Return every command: ours, the first-party plugins', and those that node.toml enables."""
    from skycore.plugins import Plugins, installed, is_first_party

    names = [name for name, entry in installed().items() if is_first_party(entry)]
    commands = list(BUILT_IN)
    for name in [*names, *_enabled(Context.current())]:
        try:
            for _, found in Plugins([name]).answers("skycore_commands"):
                commands.extend(c for c in found if c not in commands)
        except (PluginNotFoundError, PluginLoadError) as bad:
            warn(str(bad))
    return build_tree(commands)


def _enabled(context: Context) -> Sequence[str]:
    import tomllib

    file = context.config_file
    if file is None:
        return ()
    try:
        node = tomllib.loads(file.read_text()).get("node", {})
        return [str(name) for name in node.get("enable", ())]
    except (OSError, ValueError, AttributeError, TypeError):
        return ()  # whoever needs the file itself says what is wrong with it


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        sys.stdout.write(f"skynode {metadata.version('skycore')}\n")
        raise typer.Exit


@app.callback(epilog="Without a command, a node runs until it is told to stop (Ctrl-C, SIGTERM).")
def root(
    ctx: typer.Context,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="fullnode, visor (the default), mirror, or the path of a profile of your own.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings in TOML. [default: node.toml in --data]"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help=f"Key, database, control socket. [default: {default_data()}]"
        ),
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="One setting; may be repeated."),
    ] = None,
    log_format: Annotated[
        str, typer.Option(metavar="text|json", help="For people, or for machines.")
    ] = "text",
    log_level: Annotated[
        str, typer.Option(metavar="LEVEL", help="debug, info, warning, error.")
    ] = "info",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run a peer-to-peer node, or talk to the one that runs.

    [bold]skynode --profile fullnode[/bold] starts one; [bold]skynode visor info[/bold] asks it.
    Settings: profile < file < environment (SKYNODE_SECTION__KEY) < --set.
    """
    Context(
        data=(data or default_data()).absolute(),
        profile=profile,
        config=config,
        assigned=_assignments(assign or ()),
        as_json=as_json,
    ).make_current()
    if ctx.invoked_subcommand is None:
        from skycore.cli.run import run_node

        raise typer.Exit(run_node(Context.current(), log_format, log_level))


def _assignments(texts: Sequence[str]) -> dict[str, object]:
    if not texts:
        return {}
    from skycore.settings import merge, parse_assignment

    merged: dict[str, object] = {}
    for text in texts:
        merged = merge(merged, parse_assignment(text))
    return merged


def main() -> None:
    """Run the command line; errors are one line, a hint, and an exit code."""
    Context().make_current()
    command = typer.main.get_command(app)
    assert isinstance(command, LazyGroup)
    command.load = _load_tree
    try:
        command()
    except SkycoreError as bad:
        sys.exit(_report(bad))
    except BaseExceptionGroup as group:
        _, rest = group.split(SkycoreError)
        if rest is not None:
            raise
        sys.exit(_report(_first(group)))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _first(group: BaseExceptionGroup[BaseException]) -> SkycoreError:
    inner = group.exceptions[0]
    if isinstance(inner, BaseExceptionGroup):
        return _first(inner)
    assert isinstance(inner, SkycoreError)
    return inner


def _report(bad: SkycoreError) -> int:
    from skycore.logs import printable

    where = "".join(f" ({note})" for note in getattr(bad, "__notes__", ()))
    sys.stderr.write(f"error: {printable(str(bad) + where)}\n")
    sys.stderr.write(f"hint: {printable(bad.hint or 'add --help to see how it is used')}\n")
    return 2 if isinstance(bad, ConfigError | PluginError | WiringError) else 1
