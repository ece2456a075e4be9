"""A real transport discovery: a process that is asked by hand, killed, and asked again."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from skycore.contracts.runtime import Identity
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.model.packets import transport_id
from skycore.model.requests import signed
from skycore.testing.fakes import identity
from skycore.testing.processes import NodeProcess

pytestmark = pytest.mark.processes
ENABLE = 'node.enable=["http_server","registry_sqlite","discovery_transport_server"]'
NETWORK = NetworkConstants(ED25519, "test")
OURS = ("network.name=test", "transport_stcpr.listen=127.0.0.1:0")
ALICE, BOB = identity("alice", NETWORK), identity("bob", NETWORK)


def ask(
    url: str, method: str, path: str, body: bytes = b"", who: Identity | None = None, **more: str
) -> tuple[int, dict[str, str], bytes]:
    """Ask with nobody's code but Python's own, signed where `who` is given."""
    headers = {"content-type": "application/json", **more}
    if who is not None:
        told = json.loads(ask(url, "GET", f"/security/nonces/{who.public.hex()}")[2])
        host, _, prefix = url.removeprefix("http://").partition("/")
        nonce, target = told["next_nonce"], f"/{prefix}{path}".encode()
        said = signed(NETWORK.id, method, host, target, nonce, body)
        headers |= {
            "SW-Public": who.public.hex(),
            "SW-Nonce": str(nonce),
            "SW-Sig": who.sign(said).hex(),
        }
    request = urllib.request.Request(url + path, data=body or None, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, dict(refusal.headers), refusal.read()


def url_of(node: NodeProcess) -> str:
    parts = {p["name"]: p for p in node.run("visor", "info")["parts"]}
    return f"{parts['http']['fields']['url']}/tpd"


def test_a_real_transport_discovery_keeps_what_it_was_told(tmp_path: Path) -> None:
    edges = sorted((ALICE.public.hex(), BOB.public.hex()))
    t_id = str(transport_id(ALICE.public, BOB.public, "stcpr"))
    entry = {"t_id": t_id, "edges": edges, "type": "stcpr", "label": "user"}
    body = json.dumps([entry]).encode()
    with NodeProcess(tmp_path / "n") as node:
        node.start(ENABLE, *OURS, "http_server.listen=127.0.0.1:0")
        url = url_of(node)
        assert ask(url, "POST", "/v3/transports/", body)[0] == 401
        assert ask(url, "POST", "/v3/transports/", body, ALICE)[0] == 201
        assert json.loads(ask(url, "GET", f"/transports/id:{t_id}")[2]) == entry
        status, headers, whole = ask(url, "GET", "/all-transports")
        assert (status, json.loads(whole)) == (200, [entry])
        parts = {p["name"]: p for p in node.run("visor", "info")["parts"]}
        assert parts["transport_discovery"]["fields"]["transports"] == 1
        node.kill()
        node.start(ENABLE, *OURS, "http_server.listen=127.0.0.1:0")
        url, tag = url_of(node), {"If-None-Match": headers["etag"]}
        status, _, nothing = ask(url, "GET", "/all-transports", **tag)
        assert (status, nothing) == (304, b"")
        assert ask(url, "DELETE", f"/transports/id:{t_id}", b"", ALICE)[0] == 200
        assert ask(url, "GET", "/all-transports")[0] == 404
        assert node.stop() == 0
