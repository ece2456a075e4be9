"""`skynode visor dht`: one record at a time, and the list of them, for people."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from dht_kademlia.cli.texts import (
    authority,
    brief_value,
    content,
    moment_ns,
    pretty,
    signed_at,
    size,
    span,
    when,
)
from skycore.console import Console
from skycore.contracts.rpc import Progress
from skycore.errors import ConfigError, SkycoreError
from skycore.jsonrpc import Client
from skycore.model.limits import TREE_BYTES_MAX

__all__ = ["delete", "get", "history", "ls", "put"]

PAGE = 500
"""Records a call."""
STORED_MAX = 2
"""Codes up to this one mean: it is held there now (contracts.store.Outcome)."""
LINES_MAX = 40
"""Lines of a value on a terminal."""
LINE_MAX = 2_000

Salt = Annotated[
    str, typer.Option(help="Which kind of record (tp, svc, …, or your own); hex:… for bytes.")
]
Subject = Annotated[
    str, typer.Option(metavar="KEY", help="Whose record (hex). Default: this node's own.")
]
Key = Annotated[
    str, typer.Argument(metavar="KEY", help="Whose record (hex). Default: this node's own.")
]
Cas = Annotated[
    str | None, typer.Option(metavar="SEQ", help="Only if this is the current seq; 0 for none.")
]


# --- writing -------------------------------------------------------------------------------------


def put(
    console: Console,
    value: Annotated[
        str, typer.Argument(help="Text; or JSON, where a plugin declares the salt.")
    ] = "",
    salt: Salt = "",
    subject: Subject = "",
    file: Annotated[
        Path | None, typer.Option(help="Read the value from a file instead; - for stdin.")
    ] = None,
    hexadecimal: Annotated[bool, typer.Option("--hex", help="VALUE is hex.")] = False,
    cas: Cas = None,
) -> None:
    """Publish a record under this node's key (or, with a delegation, another subject's).

    A value over 64 KiB, and a set of more than a few entries, is stored in blocks: a change of it
    moves what changed.

    [bold]skynode visor dht put 'hello' --salt notes[/bold]
    """
    if file is not None:
        if value:
            raise ConfigError("give either VALUE or --file")
        value = _read(file)
    form: dict[str, Any] = {"hex": value.strip()} if hexadecimal else {"text": value}
    if not hexadecimal and salt in _declared(console):
        try:
            form = {"json": json.loads(value)}
        except ValueError as bad:
            raise ConfigError(
                f"records under {salt!r} are JSON: {bad}", hint="quote the JSON for your shell"
            ) from bad
    result = console.call("dht.put", "publishing", salt=salt, subject=subject, cas=cas, **form)
    _refuse_unstored(result)
    console.show(result, _published)


def _read(file: Path) -> str:
    try:
        if str(file) == "-":
            return sys.stdin.read(TREE_BYTES_MAX)
        with file.open(encoding="utf-8") as opened:
            return opened.read(TREE_BYTES_MAX)
    except OSError as bad:
        raise ConfigError(f"cannot read {file}: {bad.strerror}") from bad
    except UnicodeDecodeError as bad:
        raise ConfigError(
            f"{file} is not text", hint="give bytes as hex: xxd -p FILE | … put --hex --file -"
        ) from bad


def _declared(console: Console) -> Sequence[str]:
    """Return the salts that the node knows a schema for."""
    return [str(row["salt"]) for row in console.call("dht.namespaces")["namespaces"]]


def _refuse_unstored(r: dict[str, Any]) -> None:
    """Raise where no node took it: what nobody holds was not published."""
    if r["stored"] or r["unchanged"]:
        return
    said = [n for n in (*r["own"], *r["replicas"]) if n["code"] > STORED_MAX]
    newest = max((int(n["seq"]) for n in said), default=0)
    raise SkycoreError(
        f"no node stored it: {said[0]['text'] if said else 'nobody answered'}",
        hint=f"the current seq is {newest}"
        if newest
        else "`skynode visor dht peers` shows whom this node knows",
    )


def _published(r: dict[str, Any]) -> str:
    refusals = [f"{n['peer'][:8]}: {n['text']}" for n in r["replicas"] if n["code"] > STORED_MAX]
    line = f"stored at {r['stored']} node(s), seq {r['seq']}"
    if r["unchanged"]:
        line += " (unchanged: it was published before)"
    return "\n".join([line, *(f"refused by {text}" for text in refusals[:5])])


def delete(console: Console, salt: Salt = "", subject: Subject = "", cas: Cas = None) -> None:
    """Delete a record: publish a tombstone, which beats every older value everywhere.

    It lives for seven days, so that nodes which were away meanwhile learn of it too.
    """
    result = console.call("dht.delete", "deleting", salt=salt, subject=subject, cas=cas)
    _refuse_unstored(result)
    console.show(result, lambda r: "deleted: tombstone " + _published(r))


# --- reading -------------------------------------------------------------------------------------


def get(
    console: Console,
    subject: Key = "",
    salt: Salt = "",
    age_max: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Accept no older copy of ours.")
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Ask this node's store only.")] = False,
) -> None:
    """Read a record: what it says, who signed it and by what right, until when, through whom.

    Exit code 1 for a miss, and for a record that was deleted. A terminal shows the beginning of a
    large value; --json, or a pipe, gets all of it.
    """
    result = console.call(
        "dht.get", "asking", subject=subject, salt=salt, age_max_s=age_max, local=local
    )
    if result["item"] is not None:
        whole_value(console, result["item"])
    if result["item"] is not None or console.context.as_json:
        console.show(result, lambda r: shown(r["item"]))
    if result["deleted"]:
        raise SkycoreError("this record was deleted", hint="its tombstone says by whom, and when")
    if not result["found"]:
        raise SkycoreError(
            "no such record, here or at the nodes that would have it",
            hint="give the key and the --salt of its owner; `skynode visor dht peers` shows peers",
        )


def history(
    console: Console,
    subject: Key = "",
    salt: Salt = "",
    at: Annotated[
        str,
        typer.Option(
            metavar="TIME|SEQ",
            help="Print the version that was valid then: 2025-10-28T16:00 (UTC), or a seq.",
        ),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=64, help="At most so many.")] = 20,
) -> None:
    """List the versions of a record that this node still holds, newest first; or print one.

    A node keeps the last few versions of each record (a setting of its store), so this is what it
    saw, not what there ever was. Exit code 1 where it holds none, or none that was valid --at.
    """
    wanted = {"at": str(moment_ns(at))} if at else {"limit": limit}
    result = console.call("dht.history", salt=salt, subject=subject, **wanted)
    versions = result["versions"]
    if at and versions:
        whole_value(console, versions[0])
    if versions or console.context.as_json:
        console.show(
            result, lambda r: shown(r["versions"][0]) if at else _versions(console, r["versions"])
        )
    if not versions:
        raise SkycoreError(
            f"no version here that was valid at {at}" if at else "no version of this record here",
            hint="history is what this node saw: ask a full node, or `skynode visor dht get` first",
        )
    if at and versions[0]["kind"] == "tombstone":
        raise SkycoreError("this record was deleted then")


def _versions(console: Console, versions: Sequence[dict[str, Any]]) -> object:
    return console.table(
        ("SEQ", "SIGNED", "BY", "CLASS", "KIND", "SIZE"),
        [
            (v["seq"], signed_at(v["seq"]), v["signer"][:16] + "…", v["item_class"],
             v["kind"], content(v))
            for v in versions
        ],
    )  # fmt: skip


def whole_value(console: Console, item: dict[str, Any]) -> None:
    """Complete the view of an item whose value stands in blocks: fetch it piece by piece."""
    if not item["in_blocks"]:
        return

    async def pieces(client: Client, progress: Progress | None) -> bytes:
        value = bytearray()
        wanted = {key: item[key] for key in ("salt", "subject", "digest")}
        while True:
            answer = await client.call("dht.value", wanted | {"offset": len(value)})
            value += base64.b64decode(answer["piece"])
            if progress:
                progress(len(value), answer["total"], "bytes")
            if len(value) >= answer["total"]:
                return bytes(value)

    value = console.talk(pieces, "reading")
    if item["declared"]:
        item["value"] = msgspec.to_builtins(msgspec.msgpack.decode(value)[1], str_keys=True)
    else:
        try:
            item["value"] = value.decode()
        except UnicodeDecodeError:
            item["value_hex"] = value.hex()


def shown(item: dict[str, Any]) -> str:
    """Return a record for people: its value, and where it comes from."""
    value = item["value"]
    text = pretty(item["value_hex"] if value is None else value)
    lines = [
        "(deleted)" if item["kind"] == "tombstone" else _cut(text),
        "",
        f"subject     {item['subject']}",
        f"signed by   {item['signer']}",
        f"right       {authority(item)}",
        f"signed      {signed_at(item['seq'])} (seq {item['seq']})",
        f"lives until {when(item['until'])}" + (", by its lease" if item["leased"] else ""),
        f"came here   {span(item['age_s'])} ago, through {item['via'][:16] or 'nobody'}…",
    ]
    if item["kind"] != "tombstone":
        in_blocks = ", in blocks" if item["in_blocks"] else ""
        lines.insert(-1, f"content     {content(item)}{in_blocks}")
    return "\n".join(lines)


def _cut(text: str) -> str:
    """Return the beginning of what would fill a terminal; all of it for a pipe."""
    lines = text.splitlines()
    longest = max(map(len, lines), default=0)
    if not sys.stdout.isatty() or (len(lines) <= LINES_MAX and longest <= LINE_MAX):
        return text
    kept = "\n".join(line[:LINE_MAX] for line in lines[:LINES_MAX])
    return f"{kept}\n… ({size(len(text.encode()))} of text in all; --json, or a pipe, gets it)"


def ls(
    console: Console,
    salt: Annotated[str | None, typer.Option(help="Only this kind of record.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only what this node signed.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1_000_000,
) -> None:
    """List the records that this node holds, in order of target."""

    async def pages(client: Client, progress: Progress | None) -> dict[str, Any]:
        records: list[Any] = []
        bad: list[Any] = []
        after, total = "", 0
        while len(records) < limit:
            wanted = {"after": after, "limit": min(PAGE, limit - len(records)), "mine": mine}
            page = await client.call("dht.list", wanted | ({"salt": salt} if salt else {}))
            records += page["items"]
            bad += page["bad"]
            after, total = page["next"], page["total"]
            if progress:
                progress(len(records), total, "records")
            if not after:
                break
        return {"records": records, "bad": bad, "total": total}

    def text(r: dict[str, Any]) -> object:
        return console.table(
            ("SALT", "SUBJECT", "CLASS", "SIGNED", "LIVES UNTIL", "VALUE"),
            [
                (
                    x["salt"],
                    x["subject"][:16] + "…",
                    x["item_class"],
                    signed_at(x["seq"]),
                    when(x["until"]),
                    brief_value(x),
                )
                for x in r["records"]
            ],
        )

    result = console.talk(pages, "listing")
    console.show(result, text)
    if not console.context.as_json:
        unreadable = f", {len(result['bad'])} unreadable" if result["bad"] else ""
        typer.echo(f"{len(result['records'])} of {result['total']} records{unreadable}", err=True)
