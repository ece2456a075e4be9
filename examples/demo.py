"""`make demo`: a full node and three visors, as processes, over real sockets.

A recording of a whole network (a real one where it is at hand, else one of the same shape) is
imported at the first visor, which mirrors it in the name of the network's authority; the other
visors sync it from the full node, and are compared with it record for record. One call between
nodes is allowed, one refused. The last line is the figures; the exit code is 0 only if all held.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from skycore.testing.processes import NodeProcess, NodeProcessError, node_processes
from skycore.testing.recording import generate_recording, real_recording

REPOSITORY = Path(__file__).parents[1]
SALTS = ("svc", "dmsg", "tp")


class DemoError(Exception):
    """Something did not hold."""


def say(text: str) -> None:
    print(text, flush=True)


def check(what: str, held: bool) -> None:
    say(f"  {'ok ' if held else 'NO '} {what}")
    if not held:
        raise DemoError(what)


def found_network(authority: NodeProcess, mirror: NodeProcess) -> tuple[list[str], str]:
    """Found a network; return the settings that all its nodes need, and the mirror's own."""
    founded = authority.run("network", "new", "demo")
    salts = [w for salt in SALTS for w in ("--salt", salt)]
    tokens = authority.run("network", "delegate", mirror.key(), *salts)["delegations"]
    return [
        f"network.name={json.dumps(founded['name'])}",
        f"network.authority={json.dumps(founded['authority'])}",
        "transport_stcpr.listen=127.0.0.1:0",
    ], f"publisher.delegations={json.dumps(list(tokens.values()))}"


def start(authority: NodeProcess, full: NodeProcess, visors: Sequence[NodeProcess]) -> None:
    """Start a full node that trusts the second visor, and visors that know it; one mirrors."""
    settings, delegations = found_network(authority, visors[0])
    trusted = json.dumps([visors[1].key()])
    full.start(*settings, f"access_whitelist.whitelist={trusted}", profile="fullnode")
    bootstrap = json.dumps([full.contact])
    for visor, own in zip(visors, ([delegations], [], []), strict=True):
        visor.start(*settings, f"dht_kademlia.bootstrap={bootstrap}", *own)


def records(node: NodeProcess) -> dict[str, str]:
    """Return every record of a node by subject and salt, as text to compare."""
    found = {}
    for salt in SALTS:
        for row in node.run("visor", "dht", "list", "--salt", salt)["records"]:
            same = {
                k: row[k] for k in ("subject", "salt", "seq", "item_class", "signer", "value_hex")
            }
            found[f"{row['subject']}/{salt}"] = json.dumps(same, sort_keys=True)
    return found


def compare(full: NodeProcess, others: Sequence[NodeProcess], count: int) -> None:
    expected = records(full)
    check(f"the full node has all {count} records", len(expected) == count)
    for node in others:
        check(f"{node.name} has the same, record for record", records(node) == expected)


def call(full: NodeProcess, trusted: NodeProcess, stranger: NodeProcess) -> None:
    overview = trusted.run("visor", "tp-rpc", full.key(), "Overview")
    check(f"{trusted.name} may call the full node", overview["public_key"] == full.key())
    refusal = stranger.refused("visor", "tp-rpc", full.key(), "Overview")
    check(f"{stranger.name} may not, and is told so", "not authorised" in refusal)


def demo(folder: Path, recording: Path) -> str:
    """Run it all; return the figures. Raises `DemoError` for what does not hold."""
    names = ("authority", "full node", "visor 1", "visor 2", "visor 3")
    with node_processes(folder, *names) as (authority, full, one, two, three):
        began = time.monotonic()
        start(authority, full, (one, two, three))
        say(f"a full node and three visors are up ({time.monotonic() - began:.1f} s)")

        at = time.monotonic()
        imported = one.run("visor", "dht", "import", str(recording))
        import_s = time.monotonic() - at
        count = imported["published"]
        say(f"visor 1 imported {recording.name}: {count} records in {import_s:.1f} s")
        check("nothing of it was refused", imported["refused"] == 0)

        sync_s = 0.0
        for visor in (two, three):
            at = time.monotonic()
            synced = visor.run("visor", "dht", "sync")
            sync_s = max(sync_s, time.monotonic() - at)
            say(f"{visor.name} synced {synced['received']} records")
            check("to the end, none refused", synced["complete"] and not synced["refused"])
        compare(full, (two, three), count)
        again = two.run("visor", "dht", "sync")["bytes"]
        check(f"a second sync moves {again} bytes", again <= 1024)
        call(full, two, three)
        total = time.monotonic() - began
        return (
            f"demo: {count} records; import {count / import_s:.0f}/s, sync {count / sync_s:.0f}/s "
            f"(each with the start of its command); second sync {again} bytes; {total:.1f} s in all"
        )


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="skynode-demo-") as name:
        folder = Path(name)
        recording = real_recording(REPOSITORY)
        if recording is None:
            recording = folder / "generated.json"
            recording.write_bytes(generate_recording(seed=1))
        try:
            figures = demo(folder, recording)
        except (DemoError, NodeProcessError, subprocess.TimeoutExpired) as bad:
            print(f"demo failed: {bad}", file=sys.stderr)
            return 1
    print(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
