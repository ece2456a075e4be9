"""`make demo`: two full nodes and three visors, as processes, over real sockets.

`make demo DEMO_ARGS='--transport sudph'` does it all by UDP: nobody takes TCP connections, and the
first full node is the address resolver at which all others are bound.

The first snapshot of a recording of a whole network (a real one where it is at hand, else one of
the same shape) is imported at the first visor, which mirrors it in the name of the network's
authority; the other visors sync it from the full node, and are compared with it record for record.
One call between nodes is allowed, one refused. Then a second full node joins, knowing only the
first, sees everything and advertises itself; and each later snapshot replaces the one before, while
both full nodes and the two visors that watch follow within 5 s, measured by when each stored what
changed. The last line is the figures; the exit code is 0 only if all held.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from skycore.model.recording import facts, read_recording
from skycore.testing.deployment import part_fields
from skycore.testing.processes import NodeProcess, NodeProcessError, node_processes
from skycore.testing.recording import generate_recording, real_recording

REPOSITORY = Path(__file__).parents[1]
SALTS = ("svc", "dmsg", "tp")
FOLLOW_MAX_S = 5.0
"""How long after an import every node may take to hold what it brought."""
PATIENCE_S = 30.0
Rows = dict[str, dict[str, Any]]


class DemoError(Exception):
    """Something did not hold."""


def say(text: str) -> None:
    print(text, flush=True)


def check(what: str, held: bool) -> None:
    say(f"  {'ok ' if held else 'NO '} {what}")
    if not held:
        raise DemoError(what)


TRANSPORTS: dict[str, Sequence[str]] = {
    "stcpr": ("transport_stcpr.listen=127.0.0.1:0",),
    "sudph": (
        'node.enable=["transport_sudph"]',
        "transport_stcpr.listen=",
        "transport_sudph.listen=127.0.0.1:0",
    ),
}
RESOLVER = (
    'node.enable=["transport_sudph","http_server","registry_sqlite","discovery_address_server"]',
    "http_server.listen=127.0.0.1:0",
    "discovery_address_server.private_addresses=true",
    "discovery_address_server.udp_listen=127.0.0.1:0",
)
"""What the first full node is besides, so that visors can be found and punch by UDP."""


def found_network(
    authority: NodeProcess, mirror: NodeProcess, transport: str
) -> tuple[list[str], str]:
    """Found a network; return the settings that all its nodes need, and the mirror's own."""
    founded = authority.run("network", "new", "demo")
    salts = [w for salt in SALTS for w in ("--salt", salt)]
    tokens = authority.run("network", "delegate", mirror.key(), *salts)["delegations"]
    return [
        f"network.name={json.dumps(founded['name'])}",
        f"network.authority={json.dumps(founded['authority'])}",
        "dmsg_client.publish=false",  # under the recording's salts, the recording alone
        *TRANSPORTS[transport],
    ], f"publisher.delegations={json.dumps(list(tokens.values()))}"


def resolver_settings(full: NodeProcess) -> list[str]:
    """Return what makes a visor bind at a full node's resolver."""
    at = part_fields(full, "address_resolver")["udp"]
    url = part_fields(full, "http")["url"]
    return [f"transport_sudph.resolver={at}", f"discovery_address.url={url}/ar"]


def start(
    settings: Sequence[str], delegations: str, full: NodeProcess, visors: Sequence[NodeProcess]
) -> None:
    """Start a full node that trusts the second visor, and visors that know it.

    The first mirrors, the third watches from the start.
    """
    trusted = json.dumps([visors[1].key()])
    resolves = RESOLVER if "transport_stcpr.listen=" in settings else ()
    full.start(*settings, *resolves, f"access_whitelist.whitelist={trusted}", profile="fullnode")
    bootstrap = f"dht_kademlia.bootstrap={json.dumps([full.contact])}"
    known = [bootstrap, *(resolver_settings(full) if resolves else ())]
    watch = f"dht_kademlia.watch_salts={json.dumps(SALTS)}"
    for visor, own in zip(visors, ([delegations], [], [watch]), strict=True):
        visor.start(*settings, *known, *own)


def records(node: NodeProcess) -> Rows:
    """Return every record of a node under the salts of the recording, by subject and salt."""
    rows = node.run("visor", "dht", "list")["records"]
    return {f"{row['subject']}/{row['salt']}": row for row in rows if row["salt"] in SALTS}


def compared(rows: Rows) -> dict[str, str]:
    """Return what must be the same on two nodes, as text: all but when and through whom it came."""
    same = ("subject", "salt", "kind", "seq", "item_class", "signer", "value_hex", "digest")
    return {key: json.dumps([row[k] for k in same]) for key, row in rows.items()}


def living(rows: Rows, salts: Collection[str] = SALTS) -> set[str]:
    """Return which records under some salts are there, and not deleted."""
    alive = (key for key, row in rows.items() if row["kind"] != "tombstone")
    return {key for key in alive if key.partition("/")[2] in salts}


def compare(full: NodeProcess, others: Sequence[NodeProcess], count: int) -> None:
    expected = records(full)
    check(f"the full node has all {count} records", len(living(expected)) == count)
    for node in others:
        same = compared(records(node)) == compared(expected)
        check(f"{node.name} has the same, record for record", same)


def links(transport: str, full: NodeProcess, visors: Sequence[NodeProcess]) -> None:
    """Check what the nodes speak over; by UDP, let one visor find another by its key alone."""
    if transport == "sudph":
        sessions = part_fields(full, "address_resolver")["udp_sessions"]
        check(f"{sessions} visors are bound at the resolver", sessions == len(visors))
        refusal = visors[1].refused("visor", "tp-rpc", visors[2].key(), "Overview")
        found = "not authorised" in refusal
        check(f"{visors[1].name} reached {visors[2].name} knowing its key alone", found)
    rows = [row for node in (full, *visors) for row in node.run("tp", "ls")]
    kinds = {row["type"] for row in rows}
    check(f"all {len(rows)} ends of links are {transport}", kinds == {transport})


def call(full: NodeProcess, trusted: NodeProcess, stranger: NodeProcess) -> None:
    overview = trusted.run("visor", "tp-rpc", full.key(), "Overview")
    check(f"{trusted.name} may call the full node", overview["public_key"] == full.key())
    refusal = stranger.refused("visor", "tp-rpc", full.key(), "Overview")
    check(f"{stranger.name} may not, and is told so", "not authorised" in refusal)


def join(settings: Sequence[str], first: NodeProcess, second: NodeProcess) -> float:
    """Let a second full node join; return how long it took to be complete and advertised."""
    began = time.monotonic()
    bootstrap = f"dht_kademlia.bootstrap={json.dumps([first.contact])}"
    second.start(*settings, bootstrap, profile="fullnode")
    both = {first.key(), second.key()}
    while time.monotonic() - began < PATIENCE_S:
        told = second.run("visor", "dht", "full-nodes")["full_nodes"]
        if {row["public"] for row in told} == both:
            break
    took_s = time.monotonic() - began
    say(f"a second full node joined, knowing only the first ({took_s:.1f} s with its start)")
    check("it advertises itself", {row["public"] for row in told} == both)
    verdict = second.run("visor", "dht", "verify", "--against", first.key())
    check("it sees everything, as the two of them find", verdict["equal"])
    same = compared(records(second)) == compared(records(first))
    check("it holds the same, record for record", same)
    return took_s


def follow(recording: Path, at: int, mirror: NodeProcess, nodes: Sequence[NodeProcess]) -> float:
    """Replace a snapshot by the next one; return how far behind the mirror the last node was.

    A node has it when it has stored the last record that changed: nodes note when that was.
    """
    listed = {
        f"{fact.subject.hex()}/{fact.salt.decode()}"
        for fact in facts(read_recording(recording.read_bytes()), at)
    }
    salts = {key.partition("/")[2] for key in listed}
    began = time.time()
    done = mirror.run("visor", "dht", "import", str(recording), "--at", str(at), "--replace")
    ended = time.time()
    changed = done["published"] - done["unchanged"]
    say(f"snapshot {at} replaced the one before: {changed} changed, {done['deleted']} deleted")
    check("nothing of it was refused", done["refused"] == 0)
    source = records(mirror)
    with ThreadPoolExecutor(len(nodes)) as pool:
        held = list(pool.map(records, nodes))
        while not all(compared(h) == compared(source) for h in held):
            if time.time() - ended > PATIENCE_S:
                break
            held = list(pool.map(records, nodes))
    slowest_s = 0.0
    for node, rows in zip(nodes, held, strict=True):
        check(f"{node.name} has the same, record for record", compared(rows) == compared(source))
        new = {key: row["stored_at"] for key, row in rows.items() if row["stored_at"] > began}
        after_s = max(0.0, max(new.values(), default=ended) - ended)
        behind_s = max((t - source[key]["stored_at"] for key, t in new.items()), default=0.0)
        slowest_s = max(slowest_s, behind_s)
        check(
            f"all of it {after_s:.2f} s after the import's end, each change at most "
            f"{behind_s:.2f} s after the mirror",
            after_s <= FOLLOW_MAX_S,
        )
        orphans = len(living(rows, salts) - listed)
        check(f"{orphans} orphans: what is gone is gone", living(rows, salts) == listed)
    verdict = nodes[0].run("visor", "dht", "verify", "--against", str(recording), "--at", str(at))
    check("what is held says what is recorded", verdict["equal"])
    return slowest_s


def demo(folder: Path, recording: Path, transport: str) -> str:
    """Run it all; return the figures. Raises `DemoError` for what does not hold."""
    names = ("authority", "full node", "full node 2", "visor 1", "visor 2", "visor 3")
    with node_processes(folder, *names) as (authority, full, second, one, two, three):
        began = time.monotonic()
        settings, delegations = found_network(authority, one, transport)
        start(settings, delegations, full, (one, two, three))
        say(f"a full node and three visors are up ({time.monotonic() - began:.1f} s)")

        links(transport, full, (one, two, three))

        at = time.monotonic()
        imported = one.run("visor", "dht", "import", str(recording), "--at", "0")
        import_s = time.monotonic() - at
        count = imported["published"]
        say(f"visor 1 imported {recording.name}: {count} records in {import_s:.1f} s")
        check("nothing of it was refused", imported["refused"] == 0)

        at = time.monotonic()
        synced = two.run("visor", "dht", "sync")
        sync_s = time.monotonic() - at
        say(f"visor 2 synced {synced['received']} records; visor 3 watches")
        check("to the end, none refused", synced["complete"] and not synced["refused"])
        compare(full, (two, three), count)
        again = two.run("visor", "dht", "sync")["bytes"]
        check(f"a second sync moves {again} bytes", again <= 1024)
        call(full, two, three)

        join_s = join(settings, full, second)
        snapshots = len(read_recording(recording.read_bytes()).snapshots)
        with two.background("visor", "dht", "watch", "--json") as heard:
            nodes = (full, second, two, three)
            lags = [follow(recording, i, one, nodes) for i in range(1, snapshots)]
        say(f"visor 2, which watched by command, was told of {len(heard)} changes")
        total = time.monotonic() - began
        return (
            f"demo over {transport}: {count} records; import {count / import_s:.0f}/s, "
            f"sync {count / sync_s:.0f}/s (each with the start of its command); "
            f"second sync {again} bytes; second full node "
            f"{join_s:.1f} s; {len(lags)} snapshots followed by all, at most "
            f"{max(lags, default=0.0):.2f} s behind the mirror; {total:.1f} s in all"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="A network of processes, and what it can do.")
    parser.add_argument("--transport", choices=sorted(TRANSPORTS), default="stcpr")
    transport = parser.parse_args().transport
    with tempfile.TemporaryDirectory(prefix="skynode-demo-") as name:
        folder = Path(name)
        recording = real_recording(REPOSITORY)
        if recording is None:
            recording = folder / "generated.json"
            recording.write_bytes(generate_recording(seed=1))
        try:
            figures = demo(folder, recording, transport)
        except (DemoError, NodeProcessError, subprocess.TimeoutExpired) as bad:
            print(f"demo failed: {bad}", file=sys.stderr)
            return 1
    print(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
