"""`make demo`: a full node and three visors, as processes, over real sockets.

A recording of a whole network is imported at the first visor, which mirrors it in the name of the
network's authority; the other visors sync it from the full node, and are compared with it record
for record. One call between nodes is allowed, one refused. The last line is the figures; the exit
code is 0 only if all of it held.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SKYNODE = [sys.executable, "-m", "skycore"]
RECORDING = Path(__file__).parents[2] / "shared" / "data" / "skywire-2025-10-28.json.gz"
SALTS = ("svc", "dmsg", "tp")
START_MAX_S = 30.0


class DemoError(Exception):
    """Something did not hold."""


@dataclass
class DemoNode:
    """A process, and the way to talk to it."""

    name: str
    data: Path
    process: subprocess.Popen[bytes] | None = None
    key: str = ""

    def run(self, *words: str, ok: bool = True) -> Any:
        """Run a command against this node; return its JSON."""
        done = subprocess.run(
            [*SKYNODE, "--data", str(self.data), *words, "--json"],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        if ok and done.returncode:
            raise DemoError(f"{self.name}: skynode {' '.join(words[:3])}: {done.stderr.strip()}")
        if not ok:
            if done.returncode != 1:
                raise DemoError(f"{self.name}: skynode {words[0]} should have been refused")
            return done.stderr
        return json.loads(done.stdout)

    def start(self, *settings: str) -> None:
        """Start the process and wait until it answers."""
        words = [w for s in settings for w in ("--set", s)]
        with (self.data / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*SKYNODE, "--data", str(self.data), *words], stdout=log, stderr=log
            )
        until = time.monotonic() + START_MAX_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise DemoError(f"{self.name} ended: {(self.data / 'log').read_text()[-2000:]}")
            with contextlib.suppress(DemoError):
                self.run("visor", "info")
                return
            time.sleep(0.2)
        raise DemoError(f"{self.name} did not start: {(self.data / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """End the process that this node started."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def say(text: str) -> None:
    print(text, flush=True)


def recording(folder: Path) -> Path:
    """Return the real recording, or one of the same shape where that is not at hand."""
    if RECORDING.exists():
        return RECORDING
    from skycore.testing.recording import generate_recording

    made = folder / "recording.json"
    made.write_bytes(generate_recording(seed=1))
    return made


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Sequence[DemoNode]]:
    """Found a network; start a full node and three visors in it."""
    authority = DemoNode("authority", folder / "authority")
    founded = authority.run("network", "new", "demo")
    names = ("full node", "visor 1", "visor 2", "visor 3")
    nodes = [DemoNode(n, folder / n.replace(" ", "-")) for n in names]
    for node in nodes:
        node.key = node.run("keys", "new")["public_key"]
    full, *visors = nodes
    common = [f'network.name="{founded["name"]}"', f'network.authority="{founded["authority"]}"']
    salts = [w for salt in SALTS for w in ("--salt", salt)]
    tokens = authority.run("network", "delegate", visors[0].key, *salts)["delegations"]
    try:
        full.start(
            *common,
            'node.profile="fullnode"',
            "transport_stcpr.listen=127.0.0.1:0",
            f'access_whitelist.whitelist=["{visors[1].key}"]',
        )
        where = full.run("visor", "info")["overview"]["listening"][0].replace("[::]", "127.0.0.1")
        port = where.rpartition(":")[2]
        for visor in visors:
            visor.start(
                *common,
                "transport_stcpr.listen=127.0.0.1:0",
                f'dht_kademlia.bootstrap=["{full.key}@127.0.0.1:{port}"]',
                f"publisher.delegations={json.dumps(list(tokens.values()))}",
            )
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def records(node: DemoNode) -> dict[str, str]:
    """Return every record of a node by subject and salt, as text to compare."""
    found = {}
    for salt in SALTS:
        for row in node.run("visor", "dht", "list", "--salt", salt)["records"]:
            same = {k: row[k] for k in ("subject", "salt", "seq", "class", "signer", "value")}
            found[f"{row['subject']}/{salt}"] = json.dumps(same, sort_keys=True)
    return found


def check(what: str, held: bool) -> None:
    say(f"  {'ok ' if held else 'NO '} {what}")
    if not held:
        raise DemoError(what)


def demo(folder: Path) -> str:
    began = time.monotonic()
    with network(folder) as (full, one, two, three):
        say(f"a full node and three visors are up ({time.monotonic() - began:.1f} s)")
        file = recording(folder)
        at = time.monotonic()
        imported = one.run("visor", "dht", "import", str(file))
        import_s = time.monotonic() - at
        say(f"visor 1 imported {file.name}: {imported['published']} records in {import_s:.1f} s")
        check("nothing of it was refused", imported["refused"] == 0)
        rates = []
        for visor in (two, three):
            at = time.monotonic()
            synced = visor.run("visor", "dht", "sync")
            took = time.monotonic() - at
            rates.append(synced["received"] / took)
            say(f"{visor.name} synced {synced['received']} records in {took:.1f} s")
            check("the sync reached its end", synced["complete"] and synced["refused"] == 0)
        expected = records(full)
        check(f"the full node has all {imported['published']}",
              len(expected) == imported["published"])  # fmt: skip
        for visor in (two, three):
            check(f"{visor.name} has the same, record for record", records(visor) == expected)
        again = two.run("visor", "dht", "sync")
        check(f"a second sync moves {again['bytes']} bytes", again["bytes"] <= 1024)
        overview = two.run("visor", "tp-rpc", full.key, "Overview")
        check("visor 2 may call the full node", overview["public_key"] == full.key)
        refusal = three.run("visor", "tp-rpc", full.key, "Overview", ok=False)
        check("visor 3 may not, and is told so", "not authorised" in refusal)
        rate = imported["published"] / import_s
        return (
            f"demo: {imported['published']} records, import {rate:.0f}/s, sync {min(rates):.0f}/s "
            f"(with the start of the command), second sync {again['bytes']} bytes, "
            f"{time.monotonic() - began:.1f} s in all"
        )


def main() -> int:
    os.environ.pop("SKYNODE_NODE__PROFILE", None)
    with tempfile.TemporaryDirectory(prefix="skynode-demo-") as folder:
        try:
            figures = demo(Path(folder))
        except (DemoError, subprocess.TimeoutExpired, KeyError, ValueError) as bad:
            print(f"demo failed: {bad}", file=sys.stderr)
            return 1
    print(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
