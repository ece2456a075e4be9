"""Importing a recorded network through a running node: what every `… import FILE` command shares.

Why --replace asks what we mirrored: a mirror that only adds leaves every visor that went away
behind until its record ends (L6). What others signed is never touched.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import to_builtins

from skycore.console import Console
from skycore.contracts.rpc import Progress
from skycore.errors import ConfigError
from skycore.jsonrpc import Client
from skycore.model.recording import RecordedFact, facts, latest_facts, read_recording, step

__all__ = [
    "At",
    "Delegations",
    "File",
    "Replace",
    "Row",
    "Salt",
    "pages",
    "publish_recorded",
    "recorded",
    "row_of",
]

PAGE = 500
"""Records a call."""
IMPORT_BYTES_MAX = 1024 * 1024
FILE_BYTES_MAX = 256 * 1024 * 1024
Row = dict[str, Any]
Before = Callable[[Client, str], Awaitable[None]]

File = Annotated[Path, typer.Argument(help="A recording of discovery services (JSON, .gz).")]
At = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="INDEX",
        help="One snapshot, counted from 0. Default: the newest list of each kind.",
    ),
]
Salt = Annotated[str | None, typer.Option(help="Only this kind of record.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Also delete what we mirrored and it no longer lists.")
]
Delegations = Annotated[
    list[str] | None,
    typer.Option(
        "--delegation", metavar="TOKEN", help="From `skynode network delegate`; may be repeated."
    ),
]


def recorded(file: Path, at: int | None, salt: str | None) -> list[RecordedFact]:
    """Return what a recording lists. Raises `ConfigError` and `RecordingError`."""
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{file} is larger than {FILE_BYTES_MAX} bytes")
        recording = read_recording(file.read_bytes())
    except OSError as bad:
        raise ConfigError(f"cannot read {file}: {bad.strerror}") from bad
    found = latest_facts(recording) if at is None else facts(recording, at)
    found = [fact for fact in found if salt is None or fact.salt.decode() == salt]
    if not found:
        raise ConfigError(f"{file} records nothing" + (f" under {salt!r}" if salt else ""))
    return found


def publish_recorded(
    console: Console,
    listed: Sequence[RecordedFact],
    *,
    replace: bool,
    delegations: Sequence[str],
    before: Before | None = None,
) -> None:
    """Publish recorded facts and print what became of them; exit code 1 where some were refused.

    With `replace` also delete what this node mirrored under the salts of the recording and that it
    no longer lists; `before` is awaited for each of these salts, to fetch what is known elsewhere.
    """

    async def publish(client: Client, progress: Progress | None) -> Row:
        rows = [row_of(fact) for fact in listed]
        if replace:
            held = await _mirrored(client, sorted({fact.salt for fact in listed}), before)
            gone = step(held, listed).gone
            rows += [{"salt": s.decode(), "subject": k.hex(), "delete": True} for s, k in gone]
        done = await _published(client, rows, delegations, progress)
        return done | {"records": len(listed)}

    result = console.talk(publish, "importing")
    console.show(result, lambda r: _text(r, replace=replace))
    if result["refused"]:
        raise typer.Exit(1)


async def _published(
    client: Client, rows: Sequence[Row], delegations: Sequence[str], progress: Progress | None
) -> Row:
    total = dict.fromkeys(("published", "unchanged", "deleted", "refused", "replicas", "queued"), 0)
    reasons: dict[str, None] = {}
    for page in pages(rows):
        call = {"facts": page, "delegations": list(delegations)}
        done = await client.call("publish.facts", call)
        for key in total:
            total[key] += done[key]
        reasons.update(dict.fromkeys(done["reasons"]))
        if progress:
            ended = total["published"] + total["deleted"] + total["refused"]
            progress(ended, len(rows), "records published")
    return {**total, "reasons": list(reasons)[:5]}


async def _mirrored(
    client: Client, salts: Sequence[bytes], before: Before | None
) -> list[tuple[bytes, bytes]]:
    """Return salt and subject of what this node mirrors now under some salts."""
    found = []
    for salt in salts:
        if before is not None:
            await before(client, salt.decode())
        after = ""
        while True:
            asked = {"salt": salt.decode(), "after": after}
            page = await client.call("publish.mirrored", asked)
            found += [(salt, bytes.fromhex(subject)) for subject in page["subjects"]]
            after = page["next"]
            if not after:
                break
    return found


def _text(r: Row, *, replace: bool) -> str:
    deleted = f", {r['deleted']} deleted that it no longer lists" if replace else ""
    queued = f", {r['queued']} still on their way" if r["queued"] else ""
    return (
        f"{r['published']} of {r['records']} records published ({r['unchanged']} unchanged)"
        f"{deleted}, {r['replicas']} copies stored{queued}, {r['refused']} refused"
        + "".join(f"\nrefused: {reason}" for reason in r["reasons"])
    )


def row_of(fact: RecordedFact) -> Row:
    """Return a fact as the methods take it."""
    return {
        "salt": fact.salt.decode(),
        "subject": fact.subject.hex(),
        "json": to_builtins(fact.entries),
    }


def pages(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Cut rows into calls, bounded by count and by size."""
    page: list[Row] = []
    size = 0
    for row in rows:
        length = len(json.dumps(row))
        if page and (len(page) >= PAGE or size + length > IMPORT_BYTES_MAX):
            yield page
            page, size = [], 0
        page.append(row)
        size += length
    if page:
        yield page
