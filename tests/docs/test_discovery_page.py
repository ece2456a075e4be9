"""The vector in docs/protocols/discovery.md is what the code makes and believes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from skycore.contracts.runtime import Identity
from skycore.discovery.callers import Callers, CallerSettings
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.model.requests import signed

PAGE = Path(__file__).parents[2] / "docs" / "protocols" / "discovery.md"


def test_the_vector_of_a_signed_request() -> None:
    block = re.search(r"```json\n(\{.*?\n\})\n```", PAGE.read_text(), re.DOTALL)
    assert block
    v = json.loads(block[1])
    network = NetworkConstants(ED25519, v["network"])
    me = Identity(network, ED25519.secret(bytes.fromhex(v["seed"])), bytes(16))
    assert (network.id.hex(), me.public.hex()) == (v["network_id"], v["public"])
    target, body = v["target"].encode(), v["body"].encode()
    said = signed(network.id, v["method"], v["host"], target, v["nonce"], body)
    assert said.hex() == v["signed"]
    assert me.sign(said).hex() == v["signature"]
    path, _, query = target.partition(b"?")
    told = {"host": v["host"], "sw-public": v["public"], "sw-sig": v["signature"]}
    headers = [(k.encode(), t.encode()) for k, t in (told | {"sw-nonce": str(v["nonce"])}).items()]
    scope = {"method": v["method"], "path": path.decode(), "raw_path": path,
             "query_string": query, "headers": headers}  # fmt: skip
    assert Callers(me, CallerSettings()).prove(scope, body)[:2] == (me.public, v["nonce"])


def test_every_route_of_the_transport_discovery_is_described() -> None:
    from discovery_transport.server.paths import PATHS

    page = PAGE.read_text()
    for path in PATHS:
        bare = re.sub(r"\{(\w+)\}", lambda m: {"id": "UUID", "key": "KEY"}[m[1]], path)
        assert bare in page, path


def test_every_route_of_the_dmsg_discovery_is_described() -> None:
    from discovery_dmsg.server.paths import PATHS

    page = PAGE.read_text()
    for path in PATHS:
        assert path.replace("{key}", "KEY").replace("entry/KEY", "entry") in page, path
