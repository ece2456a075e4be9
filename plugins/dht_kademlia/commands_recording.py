"""`skynode visor dht import`: recorded networks become records, in the authority's name.

Why --replace asks what we mirrored: a mirror that only adds leaves every visor that went away in
the DHT until its record ends (L6). What others signed is never touched.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import to_builtins

from skycore.console import Console
from skycore.contracts.rpc import Progress
from skycore.errors import ConfigError, SkycoreError
from skycore.jsonrpc import Client
from skycore.model.recording import RecordedFact, facts, latest_facts, read_recording, step

__all__ = ["import_recording"]

PAGE = 500
"""Records a call."""
LIST_PAGE = 1_000
IMPORT_BYTES_MAX = 1024 * 1024
FILE_BYTES_MAX = 256 * 1024 * 1024
Row = dict[str, Any]

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


def import_recording(
    console: Console,
    file: File,
    salt: Salt = None,
    at: At = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Also delete what we mirrored and it no longer lists."),
    ] = False,
    delegation: Annotated[
        list[str] | None,
        typer.Option(metavar="TOKEN", help="From `skynode network delegate`; may be repeated."),
    ] = None,
) -> None:
    """Publish a recorded network as a mirror, in the name of the network's authority.

    The node needs a delegation for each salt: publisher.delegations in its settings, or
    --delegation here. An empty list in a recording means "not recorded" and changes nothing.

    With --replace the DHT then holds of our mirroring what the recording lists and nothing else:
    the records of subjects that are gone are deleted, under the salts that it records.
    """
    listed = recorded(file, at, salt)

    async def publish(client: Client, progress: Progress | None) -> dict[str, Any]:
        rows = [_row(fact) for fact in listed]
        if replace:
            held = await _mirrored(client, sorted({fact.salt for fact in listed}))
            gone = step(held, listed).gone
            rows += [{"salt": s.decode(), "subject": k.hex(), "delete": True} for s, k in gone]
        total = {"published": 0, "unchanged": 0, "deleted": 0, "refused": 0, "replicas": 0}
        reasons: dict[str, None] = {}
        for page in pages(rows):
            call = {"facts": page, "delegations": delegation or []}
            done = await client.call("dht.publish", call)
            for key in total:
                total[key] += done[key]
            reasons.update(dict.fromkeys(done["reasons"]))
            if progress:
                ended = total["published"] + total["deleted"] + total["refused"]
                progress(ended, len(rows), "records published")
        return total | {"records": len(listed), "reasons": list(reasons)[:5]}

    result = console.talk(publish, "importing")
    console.show(result, lambda r: _text(r, replace=replace))
    if result["refused"]:
        raise typer.Exit(1)


def _text(r: dict[str, Any], *, replace: bool) -> str:
    deleted = f", {r['deleted']} deleted that it no longer lists" if replace else ""
    return (
        f"{r['published']} of {r['records']} records published ({r['unchanged']} unchanged)"
        f"{deleted}, {r['replicas']} copies stored, {r['refused']} refused"
        + "".join(f"\nrefused: {reason}" for reason in r["reasons"])
    )


async def _mirrored(client: Client, salts: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Return salt and subject of what this node mirrors now under some salts.

    A node that keeps its records in memory has forgotten them after a start, so a full node is
    asked first, where one is known.
    """
    found = []
    is_full = (await client.call("dht.status"))["mode"] == "full"
    for salt in salts:
        try:
            if not is_full:
                await client.call("dht.sync", {"salt": salt.decode()})
        except SkycoreError as bad:
            typer.echo(f"warning: only what this node itself remembers: {bad}", err=True)
        held = [item async for item in listing(client, salt.decode(), mine=True)]
        found += [(salt, _subject(item)) for item in held if item["item_class"] == "mirror"]
    return found


def _subject(item: Row) -> bytes:
    return bytes.fromhex(item["subject"])


async def listing(client: Client, salt: str, mine: bool = False) -> AsyncIterator[Row]:
    """Yield the values that the node holds under a salt, without what they say."""
    after = ""
    wanted: dict[str, Any] = {"salt": salt, "mine": mine, "brief": True, "limit": LIST_PAGE}
    while True:
        page = await client.call("dht.list", wanted | {"after": after})
        for item in page["items"]:
            if item["kind"] != "tombstone":
                yield item
        after = page["next"]
        if not after:
            return


def _row(fact: RecordedFact) -> Row:
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
