"""`skynode visor dht import` and `verify`: records against what a source of truth lists.

Why --replace asks what we mirrored: a mirror that only adds leaves every visor that went away in
the DHT until its record ends (L6). What others signed is never touched.
"""

from __future__ import annotations

import json
import re
from collections import Counter
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

__all__ = ["import_recording", "verify"]

PAGE = 500
"""Records a call."""
LIST_PAGE = 1_000
IMPORT_BYTES_MAX = 1024 * 1024
FILE_BYTES_MAX = 256 * 1024 * 1024
Row = dict[str, Any]
_KEY = re.compile("([0-9a-f]{2}){16,64}")

SHOWN_MAX = 50
"""Differences that are printed for people."""

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
        mine = [item async for item in listing(client, salt.decode(), mine=True)]
        found += [(salt, bytes.fromhex(item["subject"])) for item in mine if _is_mirrored(item)]
    return found


def _is_mirrored(item: Row) -> bool:
    return bool(item["item_class"] == "mirror" and item["kind"] != "tombstone")


async def listing(client: Client, salt: str, mine: bool = False) -> AsyncIterator[Row]:
    """Yield what the node holds under a salt, by target and class, without what it says."""
    after = ""
    wanted: dict[str, Any] = {"salt": salt, "mine": mine, "brief": True, "limit": LIST_PAGE}
    while True:
        page = await client.call("dht.list", wanted | {"after": after})
        for item in page["items"]:
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


# --- verify --------------------------------------------------------------------------------------


def verify(
    console: Console,
    against: Annotated[
        str, typer.Option(metavar="FILE|PK", help="A recording, or the key of another node.")
    ],
    salt: Salt = None,
    at: At = None,
) -> None:
    """Compare what this node holds with a recording, or with another node: which one is right?

    Subject by subject: missing (here), extra (here only), deleted (here), different. Against a
    recording contents count, whoever signed them, under the salts that it records. Against a node
    everything counts, except a lease that is still on its way. Changes nothing.

    Exit code 0 when both hold the same, 1 for any difference.
    """
    is_file = Path(against).exists() or not _KEY.fullmatch(against)
    if not is_file and at is not None:
        raise ConfigError("--at picks a snapshot of a recording, not of a node")
    if is_file:
        listed = recorded(Path(against), at, salt)
        result = console.talk(lambda client, bar: _against_facts(client, bar, listed), "comparing")
    else:
        result = console.call("dht.verify", "comparing", peer=against, salt=salt)
    console.show(result, lambda r: _verdict(console, r, against))
    if not result["equal"]:
        hint = (
            "at the mirror: `skynode visor dht import FILE --replace`; a regular node holds all "
            "of a salt only after a sync, or while it watches"
            if is_file
            else f"`skynode visor dht reconcile {against}` repairs both sides"
        )
        raise SkycoreError(
            "not the same" if result["complete"] else "not compared to the end", hint=hint
        )


async def _against_facts(
    client: Client, progress: Progress | None, listed: Sequence[RecordedFact]
) -> Row:
    """Compare facts with the node's store; what it has besides them is extra."""
    same, differences = 0, []
    for page in pages([_row(fact) for fact in listed]):
        found = await client.call("dht.verify_facts", {"facts": page})
        same += found["same"]
        differences += found["unequal"]
        if progress:
            progress(same + len(differences), len(listed), "records compared")
    known = {(fact.salt.decode(), fact.subject.hex()) for fact in listed}
    for salt in sorted({salt for salt, _ in known}):
        kinds = {item["subject"]: item["kind"] async for item in listing(client, salt)}
        held = [subject for subject, kind in kinds.items() if kind != "tombstone"]  # as it is read
        extra = sorted(subject for subject in held if (salt, subject) not in known)
        differences += [{"what": "extra", "salt": salt, "subject": s} for s in extra]
    return {
        "equal": not differences,
        "same": same,
        "different": len(differences),
        "complete": True,
        "differences": differences,
    }


def _verdict(console: Console, r: Row, against: str) -> object:
    if r["equal"]:
        same = f": {r['same']:,} records" if "same" in r else ""
        later = f"; {r['leases']} end later at one of them" if r.get("leases") else ""
        return f"the same as {against}{same}{later}"
    rows = r["differences"]
    counted = Counter(row["what"] for row in rows)
    total = ", ".join(f"{count:,} {what}" for what, count in sorted(counted.items()))
    more = r["different"] - min(len(rows), SHOWN_MAX)
    last = f"{total or 'nothing'} compared with {against}" + (
        f"; {more:,} not shown" if more else ""
    )
    table = console.table(
        ("WHAT", "SALT", "SUBJECT"),
        [(x["what"], x["salt"], x["subject"] or f"target {x['target']}") for x in rows[:SHOWN_MAX]],
    )
    return console.stack(table, "", last, *(f"note: {reason}" for reason in r.get("reasons", ())))
