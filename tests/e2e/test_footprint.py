"""What an idle visor loads, exactly: whoever adds an import to every node's start meets this."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skycore.testing.processes import NodeProcess

pytestmark = pytest.mark.processes

NEVER = {
    "aioquic": "QUIC is off unless it is asked for",
    "dotenv": "of pydantic-settings",
    "h11": "HTTP is neither served nor asked",
    "httpcore": "no URL is set",
    "mirror_redis": "not in the profile",
    "multiprocessing": "threads do",
    "prometheus_client": "not in the profile",
    "pydantic_settings": "the environment says nothing",
    "redis": "not in the profile",
    "rich": "of the command line",
    "sqlalchemy": "a visor's store is memory",
    "sqlite3": "the same",
    "starlette": "of the HTTP server",
    "statistics": "a median is one line",
    "store_sqlite": "not in the profile",
    "uvicorn": "not ours",
}
NEVER_OF_OURS = (
    "relay_dmsg.server.relay", "relay_dmsg.server.service", "skycore.discovery.callers",
    "skycore.discovery.directory", "skycore.environment", "skycore.testing",
)  # fmt: skip
"""Modules of services, and of what nobody asked for."""


def test_an_idle_visor_has_loaded_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    """What the interpreter itself says that it imported, from the start to the end."""
    data = tmp_path / "visor"
    words = ["--data", str(data), "--set", "transport_stcpr.listen=127.0.0.1:0"]
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "skycore", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            node, until = NodeProcess(data), time.monotonic() + 60
            while node.command("visor", "info").returncode and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=15)
    assert "ready profile=visor" in said
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines() if "|" in line}
    assert {"skycore.node", "dht_kademlia.dht", "transport_stcpr.service"} <= imported
    assert not {name.split(".")[0] for name in imported} & NEVER.keys()
    assert not {name for name in imported if name.startswith(NEVER_OF_OURS)}
