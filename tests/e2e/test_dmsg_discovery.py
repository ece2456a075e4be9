"""A real DMSG discovery: a process that is asked by hand and by `skynode dmsg servers`."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from skycore.model import dmsg_entry
from skycore.model.entries import DmsgClient, DmsgEntry, DmsgServer
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.runtime.clock import RealClock
from skycore.testing.fakes import identity
from skycore.testing.processes import NodeProcess

pytestmark = pytest.mark.processes
ENABLE = 'node.enable=["http_server","registry_sqlite","discovery_dmsg_server"]'
NETWORK = NetworkConstants(ED25519, "test")
OURS = ("network.name=test", "transport_stcpr.listen=127.0.0.1:0")
ALICE, SERVER = identity("alice", NETWORK), identity("server", NETWORK)
AT = "/dmsgd/dmsg-discovery"


def ask(url: str, method: str, path: str, body: bytes = b"") -> tuple[int, object]:
    """Ask with nobody's code but Python's own."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url + path, data=body or None, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.loads(refusal.read())


def url_of(node: NodeProcess) -> str:
    parts = {p["name"]: p for p in node.run("visor", "info")["parts"]}
    return str(parts["http"]["fields"]["url"])


def test_a_real_dmsg_discovery(tmp_path: Path) -> None:
    now_ns = RealClock().wall_ns()
    key = ALICE.public.hex()
    client = DmsgEntry(
        key, "0.0.1", 1, now_ns, client=DmsgClient((SERVER.public.hex(),)), client_type="visor"
    )
    facts = DmsgServer("203.0.113.7:8081", 40, dht_bootstrap=True)
    server = DmsgEntry(SERVER.public.hex(), "0.0.1", 1, now_ns, server=facts)
    first = dmsg_entry.encode(dmsg_entry.sign(NETWORK, client, ALICE.sign))
    other = dmsg_entry.encode(dmsg_entry.sign(NETWORK, server, SERVER.sign))
    with NodeProcess(tmp_path / "n") as node, NodeProcess(tmp_path / "visor") as visor:
        node.start(ENABLE, *OURS, "http_server.listen=127.0.0.1:0")
        url = url_of(node)
        assert ask(url, "GET", f"{AT}/all_servers")[0] == 404
        wrote = {"message": "wrote a new entry", "code": 200}
        assert ask(url, "POST", f"{AT}/entry/", first) == (200, wrote)
        assert ask(url, "POST", f"{AT}/entry/", other) == (200, wrote)
        assert ask(url, "POST", f"{AT}/entry/", first)[0] == 422
        assert ask(url, "GET", f"{AT}/entry/{key}") == (200, json.loads(first))
        # with no node running, over HTTP
        alone = ("dmsg", "servers", "--url", f"{url}/dmsgd")
        told = visor.run("--set", "network.name=test", *alone)
        (row,) = told["servers"]
        assert (row["pk"], row["free_sessions"]) == (SERVER.public.hex(), 40)
        assert row["dht_bootstrap"] and row["signed"] and row["source"] == "http"
        assert not told["partial"]
        told = visor.run(*alone)  # of another network: nobody's signature verifies there
        assert told["partial"] and told["servers"] == []
        # a killed service has them again, and a running node merges its sources
        node.kill()
        node.start(ENABLE, *OURS, f"http_server.listen={url.removeprefix('http://')}")
        enable = 'node.enable=["http_client","discovery_dmsg"]'
        visor.start(enable, *OURS, f"discovery_dmsg.url={url}/dmsgd")
        told = visor.run("dmsg", "servers")
        assert [row["pk"] for row in told["servers"]] == [SERVER.public.hex()]
        assert {source["name"] for source in told["sources"]} == {"dht", "http", "relays"}
        assert visor.stop() == 0
        assert node.stop() == 0
        said = visor.refused(*alone)
        assert "error: no source can say which DMSG servers there are (http: " in said
