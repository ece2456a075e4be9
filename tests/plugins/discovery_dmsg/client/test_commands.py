"""`skynode dmsg servers`: who is asked, and what a person is shown."""

from __future__ import annotations

import pytest

from discovery_dmsg.client import commands
from skycore.console import Console, Context
from skycore.errors import AccessDeniedError, ConfigError, NoNodeError, RpcError

ROW = {
    "pk": "ab" * 32, "address": "203.0.113.7:8081", "free_sessions": 40, "dht_bootstrap": True,
    "server_type": "official", "source": "http", "sources": ["dht", "http"], "signed": True,
    "age_s": 12.3,
}  # fmt: skip
HTTP = {"name": "http", "count": 1, "complete": True, "age_s": 0.0, "note": ""}
ANSWER = {"servers": [ROW], "sources": [HTTP], "failed": {}, "partial": False}


class FakeConsole(Console):
    """A console whose node, if there is one, and whose own node answer what a test says."""

    def __init__(self, node=ANSWER, own=ANSWER):
        super().__init__(Context())
        self.node, self.own, self.asked = node, own, []

    def call(self, method, what="", /, **params):
        self.asked.append((method, params))
        if isinstance(self.node, Exception):
            raise self.node
        return self.node

    def alone(self, contract, plugins, use, settings=None):
        self.asked.append(("alone", settings))
        return self.own


def shown(capsys, console, **options):
    commands.servers(console, **options)
    return capsys.readouterr().out


def test_the_node_is_asked_and_a_table_is_shown(capsys):
    console = FakeConsole()
    out = shown(capsys, console, source="dht")
    assert console.asked == [("dmsg.servers", {"source": "dht"})]
    for text in ("ab" * 32, "203.0.113.7:8081", "40", "yes", "official", "dht+http", "12 s"):
        assert text in out
    assert out.splitlines()[-1] == "1 server. Source: http."


@pytest.mark.parametrize("none", [NoNodeError("no"), RpcError("unknown", code=-32601)])
def test_without_a_node_that_knows_the_service_is_asked_from_here(capsys, none):
    console = FakeConsole(none)
    assert "203.0.113.7" in shown(capsys, console)
    assert console.asked[1] == ("alone", {})
    with pytest.raises(NoNodeError, match="only a node"):  # the DHT is a node's
        commands.servers(FakeConsole(none), source="dht")
    with pytest.raises(AccessDeniedError):
        commands.servers(FakeConsole(AccessDeniedError()))


def test_another_service_can_be_named(capsys):
    console = FakeConsole()
    shown(capsys, console, url="http://x/dmsgd")
    assert console.asked == [("alone", {"discovery_dmsg": {"url": "http://x/dmsgd"}})]
    with pytest.raises(ConfigError):
        commands.servers(console, source="dht", url="http://x")


def test_l18_what_is_not_everything_is_marked_with_the_reason(capsys):
    part = {
        **ANSWER,
        "servers": [{**ROW, "free_sessions": None}],
        "sources": [{**HTTP, "complete": False, "note": "2 entries are left out"}],
        "failed": {"dht": "no answer within 5 s"},
        "partial": True,
    }
    lines = shown(capsys, FakeConsole(part)).splitlines()
    assert lines[-3:] == [
        "PARTIAL, there may be more: 1 server. Source: http.",
        "http: not all that there may be: 2 entries are left out",
        "dht could not be asked: no answer within 5 s",
    ]
    assert " - " in lines[1]


def test_none_at_all_is_a_line(capsys):
    out = shown(capsys, FakeConsole({**ANSWER, "servers": []}))
    assert out == "0 servers. Source: http.\n"
