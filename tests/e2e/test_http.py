"""A real node with its HTTP server: health, metrics, a port that is taken, and a clean stop."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from skycore.testing.processes import NodeProcess, NodeProcessError

pytestmark = pytest.mark.processes
ENABLE = 'node.enable=["http_server","metrics_prometheus"]'
LISTEN = "transport_stcpr.listen=127.0.0.1:0"


def fetch(url: str) -> tuple[int, dict[str, str], bytes]:
    """Read a URL with nobody's code but Python's own."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, dict(refusal.headers), refusal.read()


def url_of(node: NodeProcess) -> str:
    """Return where a node says that it serves HTTP."""
    parts = {p["name"]: p for p in node.run("visor", "info")["parts"]}
    return str(parts["http"]["fields"]["url"])


def test_health_and_metrics_of_a_real_node(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "n") as node:
        node.start(ENABLE, LISTEN, "http_server.listen=127.0.0.1:0")
        node.run("visor", "dht", "put", "hello", "--salt", "note")
        url = url_of(node)
        status, headers, body = fetch(f"{url}/health")
        told = json.loads(body)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert told["public_key"] == node.key()
        assert told["ready"]
        status, headers, body = fetch(f"{url}/metrics")
        assert status == 200
        families = {f.name: f for f in text_string_to_metric_families(body.decode())}
        held = {s.labels["salt"]: s.value for s in families["skycore_items"].samples}
        assert held["note"] == 1
        assert families["process_resident_memory_bytes"].samples[0].value > 10_000_000
        assert "/metrics" in json.loads(fetch(f"{url}/openapi.json")[2])["paths"]
        assert fetch(f"{url}/nothing")[0] == 404
        assert node.stop() == 0
        with pytest.raises(urllib.error.URLError):
            fetch(f"{url}/health")


def test_a_node_opens_no_http_port_unless_it_is_asked(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "n") as node:
        node.start(LISTEN)
        assert "http" not in {p["name"] for p in node.run("visor", "info")["parts"]}


def test_a_taken_port_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with socket.socket() as taken, NodeProcess(tmp_path / "n") as node:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NodeProcessError) as said:
            node.start(ENABLE, LISTEN, f"http_server.listen=127.0.0.1:{port}")
        assert "error: http_server: cannot listen on" in str(said.value)
        assert "hint: another program may have the port" in str(said.value)
