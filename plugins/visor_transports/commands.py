"""`skynode tp`: transports by hand."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skycore.console import Console

__all__ = ["add", "ls", "rm"]


def _table(console: Console, rows: list[dict[str, Any]]) -> object:
    if not rows:
        return "no transports; make one with: skynode tp add PK --address host:port"
    return console.table(
        ("TYPE", "REMOTE", "LABEL", "AGE", "RTT", "LOSS", "SENT", "RECEIVED", "ID"),
        [
            (
                r["type"],
                r["remote"],
                r["label"],
                f"{r['age_s']:.0f} s",
                "silent" if r["silent"] else "-" if r["rtt_ms"] is None else f"{r['rtt_ms']} ms",
                "-" if r["loss"] is None else f"{r['loss']:.1%}",
                r["bytes_sent"],
                r["bytes_received"],
                r["id"],
            )
            for r in rows
        ],
    )


def ls(console: Console) -> None:
    """List the live transports of the node."""
    console.show(console.call("tp.ls"), lambda rows: _table(console, rows))


def add(
    console: Console,
    key: Annotated[str, typer.Argument(metavar="PK", help="Public key of the other node.")],
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where it listens, if not known.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Make it of this type and no other: stcpr, sudph or dmsg, as far as this node has"
            " them. Without it, whichever works first; an address is then of stcpr.",
        ),
    ] = None,
) -> None:
    """Make a transport to another node, and bring it back after restarts and losses."""
    row = console.call("tp.add", "dialling", remote=key, address=address, type=kind)
    console.show(row, lambda r: _table(console, [r]))


def rm(
    console: Console,
    transport: Annotated[str, typer.Argument(metavar="ID|PK", help="Its id, or the remote's key.")],
) -> None:
    """Close a transport, and do not bring it back."""
    console.show(
        console.call("tp.rm", transport=transport),
        lambda r: (
            f"closed {len(r['closed'])} transport(s)"
            + ("; it will not be brought back" if r["forgotten"] else "")
        ),
    )
