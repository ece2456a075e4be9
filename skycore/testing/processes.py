"""Real nodes as processes: start one, talk to it as a user would, stop it.

For the last tier of tests, and for the demo: what only a real process can show (signals, kill -9,
sockets, the command line itself).
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from skycore.control import control_socket_path

__all__ = ["NodeProcess", "NodeProcessError", "node_processes"]

SKYNODE = (sys.executable, "-m", "skycore")
START_MAX_S = 60.0
STOP_MAX_S = 15.0
COMMAND_MAX_S = 300.0


class NodeProcessError(Exception):
    """A node did not start, or a command ended otherwise than expected."""


class NodeProcess:
    """One `skynode` on a data folder of its own. A context manager that stops it."""

    def __init__(self, data: Path, name: str = "", before: Sequence[str] = ()) -> None:
        self.data = data
        self.before = tuple(before)
        """Words before the node's own command line: where, or how, it is to run."""
        self.name = name or data.name
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data / "log"
        self._key = ""

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this data folder; return whatever came of it."""
        return subprocess.run(
            [*SKYNODE, "--data", str(self.data), *words],
            capture_output=True,
            text=True,
            timeout=COMMAND_MAX_S,
        )

    def run(self, *words: str) -> Any:
        """Run a command that must succeed; return its JSON."""
        done = self.command(*words, "--json")
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()[-1000:]
            if "internal error" in said:  # what the node knows of it would be gone with its folder
                said += f"\n{self.traceback()}"
            raise NodeProcessError(f"{self.name}: skynode {' '.join(words[:4])}: {said}")
        return json.loads(done.stdout)

    def traceback(self) -> str:
        """Return the latest traceback in its log, or the log's end where there is none."""
        log = self.log.read_text(errors="replace") if self.log.exists() else "no log"
        at = log.rfind("Traceback (most recent call last)")
        return log[max(0, at - 300) :][:8_000] if at >= 0 else log[-2_000:]

    def refused(self, *words: str) -> str:
        """Run a command that must be refused (exit code 1); return what it said."""
        done = self.command(*words)
        if done.returncode != 1:
            raise NodeProcessError(f"{self.name}: exit {done.returncode} of {' '.join(words[:4])}")
        return done.stderr

    @contextmanager
    def background(self, *words: str) -> Iterator[list[str]]:
        """Run a command until the end of the block (Ctrl-C); its lines of output come after it."""
        lines: list[str] = []
        with subprocess.Popen(
            [*SKYNODE, "--data", str(self.data), *words], stdout=subprocess.PIPE, text=True
        ) as process:
            reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
            reader.start()
            try:
                yield lines
            finally:
                process.send_signal(signal.SIGINT)
                reader.join(STOP_MAX_S)
                process.kill()
        # -SIGINT: it was not yet, or no longer, the command that ends on Ctrl-C but bare Python
        if process.returncode not in (0, -signal.SIGINT, -signal.SIGKILL):
            raise NodeProcessError(f"{self.name}: exit {process.returncode} of {words[:4]}")

    def key(self) -> str:
        """Return the node's public key; made now if there is none."""
        if not (self.data / "secret.key").exists():
            self._key = str(self.run("keys", "new")["public_key"])
        self._key = self._key or str(self.run("keys", "show")["public_key"])
        return self._key

    def start(self, *settings: str, profile: str = "visor") -> NodeProcess:
        """Start it with `section.key=value` settings; return once it is ready."""
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        words = [w for s in settings for w in ("--set", s)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.before, *SKYNODE, "--data", str(self.data), "--profile", profile, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until, socket = time.monotonic() + START_MAX_S, control_socket_path(self.data)
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            if socket.exists():  # a command is a process, and takes from the node that starts
                with contextlib.suppress(NodeProcessError):
                    self.run("visor", "info")
                    return self
            time.sleep(0.05)
        self.kill()
        raise NodeProcessError(f"{self.name} did not start: {self.log.read_text()[-2000:]}")

    @property
    def listening(self) -> list[str]:
        """Where it takes links, `stcpr://host:port` each."""
        return list(self.run("visor", "info")["overview"]["listening"])

    @property
    def port(self) -> int:
        """The TCP port on which it takes links."""
        return int(self.listening[0].rpartition(":")[2])

    @property
    def contact(self) -> str:
        """PK@127.0.0.1:port, as bootstrap lists have it; with the type where it is not stcpr."""
        kind, _, endpoint = self.listening[0].partition("://")
        scheme = "" if kind == "stcpr" else f"{kind}://"
        return f"{self.key()}@{scheme}127.0.0.1:{endpoint.rpartition(':')[2]}"

    def stop(self) -> int:
        """Tell it to stop, as an operator would; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise NodeProcessError(f"{self.name} did not stop in {STOP_MAX_S} s") from None

    def kill(self) -> None:
        """End it at once (kill -9), if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


@contextmanager
def node_processes(folder: Path, *names: str) -> Iterator[list[NodeProcess]]:
    """Make nodes with folders below `folder`, not started; whatever runs at the end is ended."""
    nodes = [NodeProcess(folder / name.replace(" ", "-"), name) for name in names]
    try:
        yield nodes
    finally:
        for node in nodes:
            node.kill()
