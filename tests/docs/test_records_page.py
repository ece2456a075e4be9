"""The numbers of docs/protocols/records.md and docs/DHT_ARCHITECTURE.md are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dht_kademlia.core.messages import WATCH_BEAT_S
from dht_kademlia.core.routing_table import K
from dht_kademlia.settings import KademliaSettings
from dht_kademlia.sync.adverts import ADVERT_S
from namespaces_skywire.declarations import ALL
from skycore.contracts.namespace import Namespaces
from skycore.model.items import ItemClass

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = (DOCS / "protocols" / "records.md").read_text()
DHT = (DOCS / "DHT_ARCHITECTURE.md").read_text()
NAMESPACES = Namespaces(ALL)


def cells(text: str, first: str) -> list[str]:
    """Return the cells after the first of the table row that begins with it."""
    row = re.search(rf"^\| {re.escape(first)} \|(.*)\|$", text, re.MULTILINE)
    assert row, first
    return [cell.strip() for cell in row[1].split("|")]


@pytest.mark.parametrize("item_class", list(ItemClass))
def test_c49_lifetimes_are_those_of_the_namespaces(item_class: ItemClass) -> None:
    row = cells(RECORDS, item_class.name.lower())
    heads = cells(RECORDS, "class")
    for head, cell in zip(heads, row, strict=True):
        salts = re.findall(r"`([a-z-]+)`", head) or ["nobody-declared-this"]
        promised = 0 if cell == "no" else int(cell.removesuffix(" s"))
        for salt in salts:
            assert NAMESPACES.lifetime_s(salt.encode(), item_class) == promised, salt


def test_c49_intervals_are_those_of_the_settings() -> None:
    settings = KademliaSettings()
    for name in ("full_nodes_max", "reconcile_interval_s", "repair_interval_s"):
        found = re.search(rf"\(`{name}`\) \| (\d+)(?: s)? \|", DHT)
        assert found, name
        assert float(found[1]) == getattr(settings, name), name
    assert cells(DHT, "advert of a full node (`ADVERT_S`)") == [f"{ADVERT_S:g} s"]
    assert cells(DHT, "k, the nodes that keep an item") == [str(K)]
    assert cells(DHT, "a beat on a silent watch") == [f"{WATCH_BEAT_S:g} s"]
