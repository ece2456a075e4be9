"""`skynode visor dht import` and `verify`: records against what a source of truth lists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from skycore.console import Console
from skycore.contracts.rpc import Progress
from skycore.errors import ConfigError, SkycoreError
from skycore.importing import (
    At,
    Delegations,
    File,
    Replace,
    Row,
    Salt,
    pages,
    publish_recorded,
    recorded,
    row_of,
)
from skycore.jsonrpc import Client
from skycore.model.recording import RecordedFact

__all__ = ["import_recording", "verify"]

LIST_PAGE = 1_000
_KEY = re.compile("([0-9a-f]{2}){16,64}")
_SOURCE = re.compile("[a-z][a-z_]{0,30}")
"""No key (those are longer), and no path."""

SHOWN_MAX = 50
"""Differences that are printed for people."""


def import_recording(
    console: Console,
    file: File,
    salt: Salt = None,
    at: At = None,
    replace: Replace = False,
    delegation: Delegations = None,
) -> None:
    """Publish a recorded network as a mirror, in the name of the network's authority.

    The node needs a delegation for each salt: publisher.delegations in its settings, or
    --delegation here. An empty list in a recording means "not recorded" and changes nothing.

    With --replace the DHT then holds of our mirroring what the recording lists and nothing else:
    the records of subjects that are gone are deleted, under the salts that it records.
    """
    publish_recorded(
        console,
        recorded(file, at, salt),
        replace=replace,
        delegations=delegation or (),
        before=_remember,
    )


async def _remember(client: Client, salt: str) -> None:
    """Fetch what we mirrored from a full node, where one is known.

    A node that keeps its records in memory has forgotten them after a start.
    """
    try:
        if (await client.call("dht.status"))["mode"] != "full":
            await client.call("dht.sync", {"salt": salt})
    except SkycoreError as bad:
        typer.echo(f"warning: only what this node itself remembers: {bad}", err=True)


async def listing(client: Client, salt: str) -> AsyncIterator[Row]:
    """Yield what the node holds under a salt, by target and class, without what it says."""
    after = ""
    wanted: dict[str, Any] = {"salt": salt, "brief": True, "limit": LIST_PAGE}
    while True:
        page = await client.call("dht.list", wanted | {"after": after})
        for item in page["items"]:
            yield item
        after = page["next"]
        if not after:
            return


# --- verify --------------------------------------------------------------------------------------


def verify(
    console: Console,
    against: Annotated[
        str,
        typer.Option(
            metavar="FILE|PK|http",
            help="A recording, the key of another node, or http: the discovery services.",
        ),
    ],
    salt: Salt = None,
    at: At = None,
    within: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            max=600.0,
            help="Against http: how long a change may take to the other side (30).",
        ),
    ] = None,
) -> None:
    """Compare what this node holds with a recording, another node, or the discovery services.

    Subject by subject: missing (here), extra (here only), deleted (here), different. Against a
    recording contents count, whoever signed them, under the salts that it records. Against a node
    everything counts, except a lease that is still on its way. Against http (or another source of
    entries, such as redis) contents count, under the salts that it knows. What differs there is
    watched: it is told, with who says what and since when, once both sides stood by it for --within
    seconds; what goes on changing is told as such after four times that. Changes nothing.

    Exit code 0 when both hold the same, 1 for any difference.
    """
    is_source = bool(_SOURCE.fullmatch(against)) and not Path(against).exists()
    is_file = not is_source and (Path(against).exists() or not _KEY.fullmatch(against))
    if not is_file and at is not None:
        raise ConfigError("--at picks a snapshot of a recording, not of a node")
    if not is_source and within is not None:
        raise ConfigError("--within is for a source that changes by itself, such as http")
    if is_source:
        more = {} if within is None else {"within_s": within}
        result = console.call("dht.verify_source", "comparing", source=against, salt=salt, **more)
    elif is_file:
        listed = recorded(Path(against), at, salt)
        result = console.talk(lambda client, bar: _against_facts(client, bar, listed), "comparing")
    else:
        result = console.call("dht.verify", "comparing", peer=against, salt=salt)
    console.show(result, lambda r: _verdict(console, r, against))
    if not result["equal"]:
        raise _unequal(result, against, is_file=is_file)


def _unequal(result: Row, against: str, *, is_file: bool) -> SkycoreError:
    """Return what to say of a difference, and what to do about it."""
    hint = f"`skynode visor dht reconcile {against}` repairs both sides"
    if is_file:
        hint = (
            "at the mirror: `skynode visor dht import FILE --replace`; a regular node holds all of"
            " a salt only after a sync, or while it watches"
        )
    elif "source" in result and not result["different"]:
        hint = "what changes as often cannot be compared; --within SECONDS waits longer"
        return SkycoreError(f"not compared: {result['changing']} changed all the while", hint=hint)
    elif "source" in result:
        hint = (
            "`skynode visor info`, at the visor of such a key and at the services, says what could"
            " not be registered or published, and why"
        )
    elif not result["complete"]:
        return SkycoreError(f"not compared with {against} to the end", hint=hint)
    counted = f": {result['different']:,} of {result['different'] + result['same']:,} differ"
    whole = counted if "same" in result else ""
    return SkycoreError(f"not the same as {against}{whole}", hint=hint)


async def _against_facts(
    client: Client, progress: Progress | None, listed: Sequence[RecordedFact]
) -> Row:
    """Compare facts with the node's store; what it has besides them is extra."""
    same, differences = 0, []
    for page in pages([row_of(fact) for fact in listed]):
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
    notes = [f"note: {reason}" for reason in r.get("reasons", ())]
    if r["equal"]:
        same = f": {r['same']:,} records" if "same" in r else ""
        later = f"; {r['leases']} end later at one of them" if r.get("leases") else ""
        if not r["complete"]:  # what only one side knows may be more than was compared
            return console.stack(f"the same as {against}, as far as both tell{same}{later}", *notes)
        return f"the same as {against}{same}{later}"
    rows = r["differences"]
    counted = Counter(row["what"] for row in rows)
    total = ", ".join(f"{count:,} {what}" for what, count in sorted(counted.items()))
    more = r["different"] + r.get("changing", 0) - min(len(rows), SHOWN_MAX)
    last = f"{total or 'nothing'} compared with {against}" + (
        f"; {more:,} not shown" if more else ""
    )
    if "source" in r:
        told = [line for row in rows[:SHOWN_MAX] for line in _both_sides(row, r["source"])]
        return console.stack(*told, "", last, *notes)
    table = console.table(
        ("WHAT", "SALT", "SUBJECT"),
        [(x["what"], x["salt"], x["subject"] or f"target {x['target']}") for x in rows[:SHOWN_MAX]],
    )
    return console.stack(table, "", last, *notes)


def _both_sides(row: Row, source: str) -> list[str]:
    """Return lines and not cells: a key and two sides do not fit beside each other."""
    width = max(len("here"), len(source))
    return [
        f"{row['what']:<9} {row['salt']} {row['subject']}",
        f"  {'here':<{width}}  {_side(row['here'], 'here')}",
        f"  {source:<{width}}  {_side(row['there'], 'there')}",
    ]


def _side(side: Row | None, where: str) -> str:
    """Return what one side has, by whose signature, since when and through whom."""
    if side is None:
        return "-"
    signed = {"own": "signed by itself", "unsigned": "unsigned"}.get(
        side["by"], f"signed by {side['signer'][:8]}"
    )
    only = f", {side['only']} only {where}" if side["only"] else ""
    via = f", via {side['via'][:8]}" if side["via"] else ""
    return f"{side['entries']}{only}; {signed}, {side['age_s']:.0f} s ago{via}"
