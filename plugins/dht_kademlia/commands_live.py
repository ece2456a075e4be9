"""`skynode visor dht`: the node's place in the DHT, and keeping in step with others."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from skycore.console import Console

__all__ = ["peers", "status", "sync"]


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
