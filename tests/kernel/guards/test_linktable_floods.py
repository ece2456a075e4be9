"""Who makes room where a node has all the links that it may have."""

from __future__ import annotations

import pytest

from skycore.errors import TransportError
from skycore.guards.linktable import LinkTable
from skycore.testing.fakes import FakeClock


class Stub:
    """What the table sees of a link."""

    type, peer_keeps, drains_since, is_silent = "plain", False, None, False

    def __init__(self, table, name, host, used_at, label="ephemeral"):
        self.id = self.remote = name
        self.host, self.used_at, self.label, self.closed = host, used_at, label, ""
        self.table = table

    def close(self, reason):
        self.closed = reason
        self.table.closed(self)


def full_table(live_max):
    return LinkTable(
        b"own", ["plain"], FakeClock(), live_max=live_max, ephemeral_idle_s=60.0,
        on_up=lambda link: None,
    )  # fmt: skip


@pytest.mark.parametrize("host", ["10.0.0.{n}", "2001:db8::{n:x}"])
def test_f13_a_flood_from_one_address_makes_room_for_itself_alone(host):
    """Quiet sessions of others stay, though every link of the flood is younger (IPv6: a /64)."""
    table = full_table(64)
    quiet = [Stub(table, f"quiet {n}", f"192.0.2.{n}", 0.0) for n in range(40)]
    for link in quiet:
        table.admit(link)
    flood = "10.9.9.9" if ":" not in host else host
    for n in range(1_000):
        table.admit(Stub(table, f"flood {n}", flood.format(n=n), 1.0 + n))
    assert not any(link.closed for link in quiet)
    assert len(table.live()) == len([one for one in table.open() if not one.closed]) == 64


def test_f13_of_many_addresses_whoever_idles_longest_makes_room():
    table = full_table(8)
    links = [Stub(table, f"peer {n}", f"192.0.2.{n}", float(n)) for n in range(20)]
    for link in links:
        table.admit(link)
    assert [bool(link.closed) for link in links] == [True] * 12 + [False] * 8


def test_f13_what_somebody_asked_for_never_makes_room():
    table = full_table(2)
    for name in ("one", "two"):
        table.admit(Stub(table, name, "192.0.2.1", 0.0, label="user"))
    with pytest.raises(TransportError, match="2 transports"):
        table.admit(Stub(table, "three", "192.0.2.1", 0.0))
