"""Whom a stranger's word may lead to."""

from __future__ import annotations

import types

import anyio
import pytest

from relay_dmsg.client.nearness import Nearness
from relay_dmsg.numbers import KIND
from skycore.contracts.discovery import Record, Records
from skycore.errors import DialError
from skycore.model.addresses import Address
from skycore.model.entries import DmsgServerEntry
from skycore.testing.streams import MemoryTransports

PUBLIC, HOUSE, HERE = "93.184.216.34:1", "192.168.1.1:80", "127.0.0.1:22"


class Place(MemoryTransports):
    """Where a node is, by what it listens at and has links to."""

    def __init__(self, listening=(), links=()):
        super().__init__()
        self.at, self.links = listening, links

    def listening(self):
        return [Address("stcpr", endpoint) for endpoint in self.at]

    def all(self):
        return [types.SimpleNamespace(host=host) for host in self.links]


@pytest.mark.parametrize(
    ("listening", "links", "configured", "allowed"),
    [
        ([], [], [], [PUBLIC]),
        ([":7777"], ["93.184.216.34", ""], [], [PUBLIC]),
        (["192.168.1.5:7777"], [], [], [PUBLIC, HOUSE]),
        ([], ["10.0.0.7"], [], [PUBLIC, HOUSE]),
        ([], [], ["10.0.0.7:7777"], [PUBLIC, HOUSE]),
        ([], [], ["127.0.0.1:7777"], [PUBLIC, HOUSE, HERE]),
        (["0.0.0.0:7777", "nonsense"], [], [], [PUBLIC]),
    ],
)
def test_who_is_nearby_is_led_nearby(listening, links, configured, allowed):
    nearness = Nearness(Place(listening, links), lambda: configured)
    told = [PUBLIC, HOUSE, HERE, "127.1:22", "0.0.0.0:1", "localhost:22", "nonsense", "[::1]:22"]
    led = [endpoint for endpoint in told if nearness.may_dial(endpoint)]
    assert [e for e in led if e not in ("localhost:22", "[::1]:22")] == allowed
    assert ("[::1]:22" in led) == ("localhost:22" in led) == (HERE in allowed)


class Lure:
    """A source that says of servers that they are inside everybody's house."""

    name, is_local, salts = "lure", False, None

    def __init__(self, *records):
        self.known = records

    async def find(self, salt, subject):
        return None

    async def records(self, salt):
        return Records(
            tuple(
                Record(salt, key, DmsgServerEntry(key.hex(), endpoint), 1, 4_000_000_000, "lure")
                for key, endpoint in self.known
            ),
            "lure", 1, True,
        )  # fmt: skip


async def test_a_strangers_record_and_a_peers_address_lead_nobody_into_his_own_house(
    bench, monkeypatch
):
    lure = Lure((bench.key("evil"), HOUSE), (bench.key("worse"), HERE))
    alice = await bench.client("alice", sources=(lure,))
    monkeypatch.setattr(type(alice.links), "listening", lambda self: ())
    await anyio.sleep(300)
    assert not alice.links.ensured and alice.client.counters["seeks"]
    for endpoint in (HOUSE, HERE):
        with pytest.raises(DialError, match="no address for us"):
            address = Address(KIND, f"{bench.key('evil').hex()}@{endpoint}")
            await alice.dial(bench.key("bob"), (address,))
    assert not alice.links.ensured
