"""`skynode tp all`: which way it asks, what it prints, and its words when nothing works."""

from __future__ import annotations

import json

import pytest

from discovery_transport.client.commands import all_transports
from skycore.console import Console, Context
from skycore.errors import ConfigError, DiscoveryError, NoNodeError, RpcError

KEYS = ["aa" * 32, "bb" * 32, "cc" * 32]
WHOLE = {"t_id": "22b0f1bd-7b0b-0d51-85a0-4e0ee5a1d5e1", "edges": KEYS[:2], "type": "stcpr"}
HALF = {
    "t_id": "32b0f1bd-7b0b-0d51-85a0-4e0ee5a1d5e1",
    "edges": KEYS[1:],
    "type": "sudph",
    "label": "user",
    "one_sided": True,
    "listed_by": KEYS[2],
}


def answer(**more):
    told = {
        "source": "dht", "as_of_s": 1, "age_s": 2.5, "complete": True, "note": "",
        "total": 1, "one_sided": 1, "transports": [WHOLE, HALF],
    }  # fmt: skip
    return {**told, **more}


class Asked(Console):
    """A console whose node answers as a test says."""

    def __init__(self, folder, node=None, alone=None, as_json=False):
        super().__init__(Context(data=folder, as_json=as_json))
        self.node, self.service = node, alone
        self.calls = []

    def call(self, method, what="", /, **params):
        self.calls.append((method, params))
        if isinstance(self.node, Exception):
            raise self.node
        return self.node

    def alone(self, contract, plugins, use, settings=None):
        self.calls.append(("alone", settings))
        if isinstance(self.service, Exception):
            raise self.service
        return self.service


NO_NODE = NoNodeError("no node runs on /data", hint="start one")


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "220")

    def run(node=None, alone=None, as_json=False, **options):
        console = Asked(tmp_path, node, alone, as_json)
        all_transports(console, **options)
        told = capsys.readouterr()
        return console.calls, told.out, told.err

    return run


def test_a_person_sees_each_transport_its_sides_the_source_and_its_age(run):
    calls, out, err = run(answer())
    assert calls == [("tp.all", {"source": "auto", "edge": "", "id": "", "partial": False})]
    head, whole, half, source = out.splitlines()
    assert head.split() == ["ID", "TYPE", "LABEL", "SIDES", "EDGES"]
    assert whole.split() == [WHOLE["t_id"], "stcpr", "both", *KEYS[:2]]
    assert half.split() == [HALF["t_id"], "sudph", "user", "one", "(cccccccc)", *KEYS[1:]]
    assert source == (
        "1 transport, and 1 that one edge alone lists. "
        "Source: the DHT store of this node, 2.5 s old."
    )
    assert err == ""


def test_programs_read_what_the_service_has_and_the_source_stands_beside_it(run):
    _, out, err = run(answer(source="http"), as_json=True)
    half = {k: v for k, v in HALF.items() if k not in ("one_sided", "listed_by")}
    assert json.loads(out) == [WHOLE, half]
    assert "the transport discovery service" in err


def test_what_is_partial_begins_with_that_word(run):
    _, out, err = run(answer(complete=False, note="it is no full node"))
    assert out.splitlines()[-1].startswith("PARTIAL: ") and "it is no full node" in out
    _, out, err = run(answer(complete=False, note="it is no full node"), as_json=True)
    assert err.startswith("PARTIAL: ")


def test_what_one_source_alone_knows_is_marked(run):
    rows = [{**WHOLE, "source": "http"}]
    _, out, _ = run(answer(source="both", transports=rows, one_sided=0))
    assert out.splitlines()[0].split()[-2:] == ["ONLY", "IN"]
    assert out.splitlines()[1].split()[-1] == "http"


def test_an_empty_network_is_a_line(run):
    _, out, _ = run(answer(total=0, one_sided=0, transports=[]))
    assert out == "0 transports. Source: the DHT store of this node, 2.5 s old.\n"


def test_l18_without_a_node_the_service_is_asked(run):
    calls, out, _ = run(NO_NODE, answer(source="http"))
    assert calls[-1] == ("alone", {}) and "discovery service" in out


def test_a_node_without_the_plugin_does_not_matter(run):
    calls, _, _ = run(RpcError("unknown", code=-32601), answer(source="http"))
    assert calls[-1] == ("alone", {})


def test_a_given_address_is_asked_whether_a_node_runs_or_not(run):
    calls, _, _ = run(answer(), answer(source="http"), url="http://x/tpd")
    assert calls == [("alone", {"discovery_transport": {"url": "http://x/tpd"}})]


def test_with_neither_node_nor_service_both_are_named(run):
    none = DiscoveryError("no transport discovery service is set", hint="name one: --url URL")
    with pytest.raises(DiscoveryError, match=r"no node runs on /data.*no transport") as bad:
        run(NO_NODE, none)
    assert bad.value.hint == "name one: --url URL"


@pytest.mark.parametrize("source", ["dht", "both"])
def test_only_a_node_has_a_store(run, source):
    with pytest.raises(NoNodeError, match="only a node") as bad:
        run(NO_NODE, answer(), source=source)
    assert bad.value.hint == "start one"
    with pytest.raises(ConfigError, match="--url"):
        run(NO_NODE, answer(), source=source, url="http://x")


def test_what_the_node_refuses_is_not_asked_elsewhere(run):
    with pytest.raises(DiscoveryError, match="partial"):
        run(DiscoveryError("partial"), answer())
    with pytest.raises(RpcError, match="no id"):
        run(RpcError("no id", code=-32602), answer(), id_="x")


def test_a_source_that_is_none(run):
    with pytest.raises(ConfigError) as bad:
        run(answer(), source="moon")
    assert "auto, dht, http, both" in bad.value.hint
