"""`skynode visor dht`: signed records, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import to_builtins

from skycore.console import Console
from skycore.contracts.rpc import Progress
from skycore.errors import ConfigError, SkycoreError
from skycore.jsonrpc import Client
from skycore.model.recording import RecordedFact, latest_facts, read_recording

__all__ = ["delete", "get", "import_recording", "ls", "peers", "put", "status", "sync"]

PAGE = 500
"""Records a call, listing and importing."""
STORED_MAX = 2
"""Codes up to this one mean: it is held there now (contracts.store.Outcome)."""
IMPORT_BYTES_MAX = 1024 * 1024
FILE_BYTES_MAX = 256 * 1024 * 1024

Salt = Annotated[str, typer.Option(help="Which kind of record; hex:… for bytes.")]
Subject = Annotated[
    str, typer.Option(metavar="KEY", help="Whose record (hex). Default: this node's own.")
]
Cas = Annotated[
    str | None, typer.Option(metavar="SEQ", help="Only if this is the current seq; 0 for none.")
]


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def status(console: Console) -> None:
    """Show what the DHT of this node is, holds and does."""

    def text(r: dict[str, Any]) -> object:
        items = ", ".join(f"{salt} {n}" for salt, n in sorted(r["items"].items())) or "none"
        lookups = ", ".join(f"{k} {v}" for k, v in r["lookups"].items()) or "none"
        last = r["last_sync"]
        return console.pairs(
            [
                ("mode", r["mode"]),
                ("node id", r["node_id"]),
                ("peers", f"{r['peers']} ({r['bootstrap_nodes']} bootstrap nodes configured)"),
                ("items", f"{items} ({r['bytes']} bytes)"),
                ("lookups", lookups),
                ("puts", f"{r['puts']}, {r['replicas_per_put']:.1f} replicas each"),
                ("waiting", _waiting(r)),
                ("calls", f"{r['calls_served']} served, {r['calls_failed']} of ours failed"),
                ("refused", ", ".join(f"{k} {v}" for k, v in r["refused"].items()) or "none"),
                ("last sync", json.dumps(last) if last else "never"),
            ],
        )

    console.show(console.call("dht.status"), text)


def _waiting(r: dict[str, Any]) -> str:
    dropped = f"; {r['waiting_dropped']} dropped for want of room" if r["waiting_dropped"] else ""
    return f"{r['waiting']} puts for a node that takes them{dropped}"


def put(
    console: Console,
    value: Annotated[str, typer.Argument(help="Text; or JSON, where a plugin declares the salt.")],
    salt: Salt = "",
    subject: Subject = "",
    hexadecimal: Annotated[bool, typer.Option("--hex", help="VALUE is hex.")] = False,
    cas: Cas = None,
) -> None:
    """Publish a record under this node's key (or, with a delegation, another subject's)."""
    form: dict[str, Any] = {"hex": value} if hexadecimal else {"text": value}
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
    """Delete a record: publish a tombstone, which beats every older value everywhere."""
    result = console.call("dht.delete", "deleting", salt=salt, subject=subject, cas=cas)
    _refuse_unstored(result)
    console.show(result, lambda r: "deleted: tombstone " + _published(r))


def get(
    console: Console,
    subject: Annotated[str, typer.Argument(metavar="KEY", help="Whose record (hex).")] = "",
    salt: Salt = "",
    age_max: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Accept no older copy of ours.")
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Ask this node's store only.")] = False,
) -> None:
    """Read a record: who signed it, by what right, until when. Exit code 1 for a miss."""
    result = console.call(
        "dht.get", "asking", subject=subject, salt=salt, age_max_s=age_max, local=local
    )

    def text(r: dict[str, Any]) -> str:
        item = r["item"]
        value = item["value"]
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        lines = [
            "(deleted)" if r["deleted"] else shown,
            "",
            f"signed by   {item['signer']} ({item['item_class']})",
            f"subject     {item['subject']}",
            f"seq         {item['seq']}",
            f"lives until {_when(item['until'])}",
            f"stored here {_when(item['stored_at'])}, via {item['via'][:16]}…",
        ]
        return "\n".join(lines)

    if result["item"] is not None or console.context.as_json:
        console.show(result, text)
    if result["deleted"]:
        raise SkycoreError("this record was deleted", hint="its tombstone says by whom, and when")
    if not result["found"]:
        raise SkycoreError(
            "no such record, here or at the nodes that would have it",
            hint="give the key and the --salt of its owner; `skynode visor dht peers` shows peers",
        )


def ls(
    console: Console,
    salt: Annotated[str | None, typer.Option(help="Only this kind of record.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1_000_000,
) -> None:
    """List the records that this node holds, in order of target."""

    async def pages(client: Client, progress: Progress | None) -> dict[str, Any]:
        records: list[Any] = []
        bad: list[Any] = []
        after, total = "", 0
        while len(records) < limit:
            wanted = {"after": after, "limit": min(PAGE, limit - len(records))}
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
            ("SALT", "SUBJECT", "CLASS", "SEQ", "LIVES UNTIL", "VALUE"),
            [
                (
                    x["salt"],
                    x["subject"][:16] + "…",
                    x["item_class"] + (" (deleted)" if x["kind"] == "tombstone" else ""),
                    x["seq"],
                    _when(x["until"]),
                    json.dumps(x["value"], ensure_ascii=False)[:60],
                )
                for x in r["records"]
            ],
        )

    result = console.talk(pages, "listing")
    console.show(result, text)
    if not console.context.as_json:
        unreadable = f", {len(result['bad'])} unreadable" if result["bad"] else ""
        typer.echo(f"{len(result['records'])} of {result['total']} records{unreadable}", err=True)


def peers(console: Console) -> None:
    """Show the routing table: whom this node knows, and when it last heard of them."""
    console.show(
        console.call("dht.peers"),
        lambda r: (
            console.table(
                ("BUCKET", "KEY", "ADDRESSES", "LAST SEEN", "FAILURES", "CONNECTED"),
                [
                    (
                        p["bucket"],
                        p["public"],
                        ", ".join(p["addresses"]),
                        f"{p['last_seen_s']:.0f} s ago",
                        p["failures"],
                        "yes" if p["connected"] else "no",
                    )
                    for p in r["peers"]
                ],
            )
            if r["peers"]
            else "no peers yet; name one with --set 'dht_kademlia.bootstrap=[\"PK@host:port\"]'"
        ),
    )


def sync(
    console: Console,
    peer: Annotated[
        str, typer.Argument(metavar="PK", help="A full node; default: the first that answers.")
    ] = "",
    salt: Annotated[str | None, typer.Option(help="Only this kind of record.")] = None,
) -> None:
    """Pull from a full node what changed there since the last time."""
    result = console.call("dht.sync", "syncing", peer=peer, salt=salt)
    console.show(
        result,
        lambda r: (
            f"synced from {r['peer'][:16]}…: {r['received']} received, {r['stored']} new, "
            f"{r['renewed']} renewed, {r['held']} held already, {r['refused']} refused "
            f"({r['bytes']} bytes in {r['pages']} pages)"
            + ("" if r["complete"] else "; not complete: run it again to go on")
            + "".join(f"\nrefused: {reason}" for reason in r["reasons"])
        ),
    )


def import_recording(
    console: Console,
    file: Annotated[Path, typer.Argument(help="A recording of discovery services (JSON, .gz).")],
    salt: Annotated[str | None, typer.Option(help="Only this kind of record.")] = None,
    delegation: Annotated[
        list[str] | None,
        typer.Option(metavar="TOKEN", help="From `skynode network delegate`; may be repeated."),
    ] = None,
) -> None:
    """Publish a recorded network as a mirror, in the name of the network's authority.

    The node needs a delegation for each salt: publisher.delegations in its settings, or
    --delegation here. An empty list in a recording means "not recorded" and changes nothing.
    """
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{file} is larger than {FILE_BYTES_MAX} bytes")
        recorded = latest_facts(read_recording(file.read_bytes()))
    except OSError as bad:
        raise ConfigError(f"cannot read {file}: {bad.strerror}") from bad
    facts = [fact for fact in recorded if salt is None or fact.salt.decode() == salt]
    if not facts:
        raise ConfigError(f"{file} records nothing" + (f" under {salt!r}" if salt else ""))

    async def publish(client: Client, progress: Progress | None) -> dict[str, Any]:
        total: dict[str, Any] = {"published": 0, "unchanged": 0, "refused": 0, "replicas": 0}
        reasons: dict[str, None] = {}
        for page in _pages(facts):
            call = {"facts": page, "delegations": delegation or []}
            done = await client.call("dht.publish", call)
            for key in total:
                total[key] += done[key]
            reasons.update(dict.fromkeys(done["reasons"]))
            if progress:
                progress(total["published"] + total["refused"], len(facts), "records published")
        return total | {"records": len(facts), "reasons": list(reasons)[:5]}

    result = console.talk(publish, "importing")
    console.show(
        result,
        lambda r: (
            f"{r['published']} of {r['records']} records published ({r['unchanged']} unchanged), "
            f"{r['replicas']} copies stored, {r['refused']} refused"
            + "".join(f"\nrefused: {reason}" for reason in r["reasons"])
        ),
    )
    if result["refused"]:
        raise typer.Exit(1)


def _pages(facts: Sequence[RecordedFact]) -> Iterator[list[dict[str, Any]]]:
    """Cut facts into calls, bounded by count and by size."""
    page: list[dict[str, Any]] = []
    size = 0
    for fact in facts:
        row = {
            "salt": fact.salt.decode(),
            "subject": fact.subject.hex(),
            "json": to_builtins(fact.entries),
        }
        size += len(json.dumps(row))
        if page and (len(page) >= PAGE or size > IMPORT_BYTES_MAX):
            yield page
            page, size = [], len(json.dumps(row))
        page.append(row)
    if page:
        yield page
