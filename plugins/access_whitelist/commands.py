"""`skynode visor whitelist`: who may call this node."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skycore.console import Console

__all__ = ["add", "ls", "rm"]

Key = Annotated[str, typer.Argument(metavar="PK", help="A public key.")]


def ls(console: Console) -> None:
    """List the keys that may call this node, and what they may do."""
    rows = console.call("whitelist.list")

    def text(rows: list[dict[str, Any]]) -> object:
        if not rows:
            return "nobody may call this node; add one with: skynode visor whitelist add PK"
        listed = [(r["key"], r["level"], "configuration" if r["configured"] else "") for r in rows]
        return console.table(("KEY", "LEVEL", "LISTED IN"), listed)

    console.show(rows, text)


def add(
    console: Console,
    key: Key,
    level: Annotated[str, typer.Option(metavar="read|operate|admin", help="How much.")] = "read",
) -> None:
    """Let a key call this node. Read: look. Operate: publish, sync, link. Admin: whom to trust."""
    result = console.call("whitelist.add", key=key, level=level)
    console.show(result, lambda r: f"{key} may now {level}")


def rm(console: Console, key: Key) -> None:
    """Let a key call this node no more; its open calls end within a second."""
    result = console.call("whitelist.remove", key=key)
    console.show(
        result, lambda r: f"{key} may call this node no more. {r.get('note') or ''}".strip()
    )
