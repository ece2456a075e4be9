"""`skynode visor dht`: this node among the others, and keeping in step with them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from dht_kademlia.cli.texts import brief_value, size, span, when
from skycore.console import Console
from skycore.contracts.rpc import Progress
from skycore.errors import SkycoreError
from skycore.jsonrpc import Client

__all__ = ["full_node", "full_nodes", "peers", "reconcile", "status", "sync", "watch"]

WAIT_S = 20.0
FOLLOW_S = 60.0
CHANGES = 200
"""Changes a call."""

Salt = Annotated[str | None, typer.Option(help="Only this kind of record.")]


# --- what this node is ---------------------------------------------------------------------------


def status(console: Console) -> None:
    """Show what the DHT of this node is, holds and does, and how it keeps in step."""
    console.show(console.call("dht.status"), lambda r: console.pairs(_status(r)))


def _status(r: dict[str, Any]) -> list[tuple[str, object]]:
    items = ", ".join(f"{salt} {n:,}" for salt, n in sorted(r["items"].items())) or "none"
    return [
        ("mode", _mode(r)),
        ("node id", r["node_id"]),
        ("peers", f"{r['peers']} ({r['bootstrap_nodes']} bootstrap nodes configured)"),
        ("full nodes", f"{r['full_nodes']} others known"),
        ("items", f"{items} ({size(r['bytes'])})"),
        ("in step with", "\n".join(_followed(f) for f in r["watching"]) or "nobody"),
        ("last sync", _last(r["last_sync"], ("stored", "renewed", "refused"))),
        ("last reconcile", _last(r["last_reconcile"], ("different", "pulled", "pushed"))),
        ("lookups", _counted(r["lookups"])),
        ("reads", _counted(r["reads"])),
        ("puts", f"{r['puts']}, {r['replicas_per_put']:.1f} replicas each"),
        ("waiting", _waiting(r)),
        ("calls", f"{r['calls_served']} served, {r['calls_failed']} of ours failed"),
        ("refused", _counted(r["refused"])),
    ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _mode(r: Mapping[str, Any]) -> str:
    if r["mode"] != "full":
        return str(r["mode"])
    told = "advertised" if r["advertised"] else "not advertised"
    if r["refuses_new_items"]:
        return f"full, {told}: refuses new items, there is no room"
    return f"full, {told}" + ("" if r["complete"] else ": has not yet all that others have")


def _followed(f: Mapping[str, Any]) -> str:
    what = "everything" if f["salt"] is None else f["salt"]
    if f["live"]:
        return f"{f['peer'][:16]}… ({what}): heard {span(f['lag_s'] or 0)} ago"
    return f"{f['peer'][:16]}… ({what}): not connected; {f['trouble'] or 'not yet'}"


def _last(last: Mapping[str, Any] | None, counts: tuple[str, ...]) -> str:
    if last is None:
        return "never"
    counted = ", ".join(f"{last[name]:,} {name}" for name in counts)
    ended = "" if last["complete"] else ", not complete"
    return f"{span(last['seconds_ago'])} ago with {last['peer'][:16]}…: {counted}{ended}"


def _waiting(r: Mapping[str, Any]) -> str:
    dropped = f"; {r['waiting_dropped']} dropped for want of room" if r["waiting_dropped"] else ""
    return f"{r['waiting']} puts for a node that takes them{dropped}"


class Switch(StrEnum):
    """Whether this node is to be a full one."""

    ON = "on"
    OFF = "off"


def full_node(
    console: Console,
    switch: Annotated[
        Switch, typer.Argument(metavar="on|off", help="Keep every record, or those near us.")
    ],
) -> None:
    """Make this node a full node, or a regular one, until its next start.

    A full node keeps every record of the network, keeps in step with the other full nodes, and
    advertises itself once it has what they have. To keep it so over a start, set full_node in the
    section dht_kademlia of node.toml.
    """
    result = console.call("dht.full_node", on=switch is Switch.ON)

    def text(r: dict[str, Any]) -> str:
        kind = "a full node" if r["mode"] == "full" else "a regular node"
        if r["mode"] == r["before"]:
            line = f"this node is {kind} already"
        else:
            line = f"this node is now {kind}"
        if r["mode"] == r["configured"]:
            return f"{line}, as its settings say"
        on = "true" if r["mode"] == "full" else "false"
        return f"{line}, until its next start (dht_kademlia.full_node = {on} in node.toml keeps it)"

    console.show(result, text)


def full_nodes(console: Console) -> None:
    """Find the full nodes: those that advertise themselves, the ones that spoke last first."""
    console.show(
        console.call("dht.full_nodes", "asking"),
        lambda r: (
            console.table(
                ("KEY", "ITEMS", "ADVERTISED", "CONNECTED"),
                [
                    (
                        n["public"],
                        f"{n['items']:,}",
                        f"{span(n['advertised_s'])} ago",
                        "this node" if n["is_self"] else "yes" if n["connected"] else "no",
                    )
                    for n in r["full_nodes"]
                ],
            )
            if r["full_nodes"]
            else "no full node advertises itself, as far as this node knows"
        ),
    )


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


# --- keeping in step -----------------------------------------------------------------------------


def sync(
    console: Console,
    peer: Annotated[
        str, typer.Argument(metavar="PK", help="A full node; default: the first that answers.")
    ] = "",
    salt: Salt = None,
) -> None:
    """Pull from a full node what changed there since the last time."""
    result = console.call("dht.sync", "syncing", peer=peer, salt=salt)
    console.show(
        result,
        lambda r: (
            f"synced from {r['peer'][:16]}…: {r['received']} received, {r['stored']} new, "
            f"{r['renewed']} renewed, {r['held']} held already, {r['refused']} refused "
            f"({size(r['bytes'])} in {r['pages']} pages)"
            + ("" if r["complete"] else "; not complete: run it again to go on")
            + "".join(f"\nrefused: {reason}" for reason in r["reasons"])
        ),
    )


def reconcile(
    console: Console,
    peer: Annotated[str, typer.Argument(metavar="PK", help="The node to compare with.")],
    salt: Salt = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Compare only; change nothing, here or there.")
    ] = False,
) -> None:
    """Compare with another node by fingerprints, and repair both sides in what differs.

    Costs what differs, not what is held. The better version of each record is pulled or pushed,
    deletions and leases included. Full nodes do so by themselves; this is for doing it now.
    `skynode visor dht verify --against PK` names what differs, and changes nothing.
    """
    method = "comparing" if dry_run else "reconciling"
    result = console.call("dht.reconcile", method, peer=peer, salt=salt, dry_run=dry_run)

    def text(r: dict[str, Any]) -> str:
        cost = f"{r['rounds']} rounds, {size(r['bytes'])}"
        if not r["different"] and r["complete"]:
            line = f"the same as {r['peer'][:16]}… ({cost})"
        elif dry_run:
            line = f"{r['different']:,} records differ from those of {r['peer'][:16]}… ({cost})"
        else:
            line = (
                f"{r['different']:,} differed from those of {r['peer'][:16]}…: "
                f"{r['pulled']:,} pulled, {r['pushed']:,} pushed, {r['renewed']:,} leases renewed, "
                f"{r['refused']:,} refused ({cost})"
            )
        line += "" if r["complete"] else "; not complete: run it again to go on"
        return line + "".join(f"\nnote: {reason}" for reason in r["reasons"])

    console.show(result, text)
    if not result["complete"]:
        raise typer.Exit(1)


def watch(
    console: Console,
    salt: Salt = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after so many changes. Default: Ctrl-C ends it.")
    ] = None,
    renewals: Annotated[
        bool, typer.Option("--renewals", help="Show also what only lives longer.")
    ] = False,
) -> None:
    """Show records as they change: one line each, until Ctrl-C.

    A full node hears of all changes. A regular one keeps the salt in step with a full node for as
    long as this runs. With --json, each line is one JSON object, for programs.
    """

    async def run(client: Client, progress: Progress | None) -> None:
        wanted: dict[str, Any] = {"wait_s": WAIT_S, "limit": CHANGES, "renewals": renewals}
        if salt is not None:
            wanted["salt"] = salt
        follow = {"for_s": FOLLOW_S} | ({"salt": salt} if salt is not None else {})
        await _catch_up(console, client, salt)
        page = await client.call("dht.changes", wanted | {"wait_s": 0})  # from now on
        await client.call("dht.follow", follow)
        _note(console, "watching; Ctrl-C ends it" if count is None else "watching")
        left = -1 if count is None else count
        while True:
            for change in page["changes"]:
                _print_change(console, change)
                left -= 1
                if not left:
                    return
            page = await client.call("dht.changes", wanted | {"after": page["cursor"]})
            if page["is_reset"]:
                _note(console, "the node's store is another one now: watching from here on")
            await client.call("dht.follow", follow)

    try:
        console.talk(run)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


async def _catch_up(console: Console, client: Client, salt: str | None) -> None:
    """Let a regular node pull what there is: that is no news."""
    if (await client.call("dht.status"))["mode"] == "full":
        return
    try:
        await client.call("dht.sync", {} if salt is None else {"salt": salt})
    except SkycoreError as bad:
        _note(console, f"no full node to keep in step with yet: {bad}")


def _note(console: Console, text: str) -> None:
    if console.is_terminal:
        console.note(f"({text})")


def _print_change(console: Console, change: dict[str, Any]) -> None:
    item = change["item"]
    now = when(item["stored_at"])[11:19]
    value = f"until {when(item['until'])}" if change["what"] == "renewed" else brief_value(item)
    line = f"{now} {change['what']:<8}{item['salt']:<10} {item['subject'][:16]}… {value}"
    console.line(line, change)
