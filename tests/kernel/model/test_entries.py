"""Entries: the shapes that a Skywire network has, and their bounds."""

from __future__ import annotations

import msgspec
import pytest

from skycore.model.entries import (
    AddressEntry,
    DmsgEntry,
    DmsgServerEntry,
    FullNodeAdvert,
    ServiceEntry,
    TransportEntry,
)

PK = "02" + "ab" * 32
UUID = "49d416e7-2704-00e3-afd9-5cb342845b35"
TRANSPORT = {"t_id": UUID, "edges": [PK, PK], "type": "stcpr"}
SERVICE = {"address": f"{PK}:3", "type": "vpn"}

# Shapes as the original network's services write them.
FITS = [
    (TransportEntry, TRANSPORT | {"label": "automatic"}),
    (TransportEntry, TRANSPORT | {"label": "user", "latency": 12.5}),
    (ServiceEntry, SERVICE),
    (
        ServiceEntry,
        SERVICE
        | {
            "geo": {"lat": 1.5, "lon": -2.5, "country": "IT", "region": "52"},
            "display_node_ip": True,
            "version": "v1.3.31",
            "local_ips": ["192.168.1.2"],
            "info": {"latency": 1.5, "uptime": 99, "connections": 3},
        },
    ),
    (
        DmsgEntry,
        {
            "version": "0.0.1",
            "sequence": 3,
            "timestamp": 1_700_000_000_000_000_000,
            "static": PK,
            "client": {"delegated_servers": [PK]},
            "client_type": "visor",
            "signature": "ab" * 65,
        },
    ),
    (
        DmsgEntry,
        {
            "version": "0.0.1",
            "static": PK,
            "server": {
                "address": "203.0.113.7:8080",
                "availableSessions": 2_048,
                "serverType": "official",
                "dht_bootstrap": True,
            },
        },
    ),
    (DmsgEntry, {"static": PK}),
    (AddressEntry, {"pk": PK, "addresses": ["10.0.0.1"], "port": 30_001, "is_local": True}),
    (AddressEntry, {"remote_addr": "203.0.113.7", "port": "30001", "addresses": ["10.0.0.1"]}),
    (AddressEntry, {"stcpr": {"port": "7777", "addresses": []}, "sudph": {"remote_addr": "a:1"}}),
    (FullNodeAdvert, {"pk": PK, "stored_items": 3_562, "full_node": True, "ts": 1_777 * 10**15}),
    (
        DmsgServerEntry,
        {
            "pk": PK,
            "address": "203.0.113.7:8080",
            "max_sessions": 2_048,
            "server_type": [PK],
            "dht_bootstrap": True,
        },
    ),
    (DmsgServerEntry, {"pk": PK, "address": "203.0.113.7:8080", "server_type": "official"}),
]
WRONG = [
    (TransportEntry, TRANSPORT | {"edges": [PK]}),
    (TransportEntry, TRANSPORT | {"edges": [PK, PK, PK]}),
    (TransportEntry, TRANSPORT | {"edges": [PK, ""]}),
    (TransportEntry, TRANSPORT | {"t_id": "no uuid"}),
    (TransportEntry, TRANSPORT | {"type": ""}),
    (TransportEntry, TRANSPORT | {"type": "t" * 65}),
    (TransportEntry, TRANSPORT | {"latency": -1.0}),
    (TransportEntry, TRANSPORT | {"label": "l" * 257}),
    (TransportEntry, TRANSPORT | {"extra": 1}),
    (ServiceEntry, SERVICE | {"address": ""}),
    (ServiceEntry, SERVICE | {"local_ips": ["1.2.3.4"] * 65}),
    (ServiceEntry, SERVICE | {"info": {"nested": {"deep": 1}}}),
    (ServiceEntry, SERVICE | {"geo": {"lat": 91.0}}),
    (DmsgEntry, {"static": ""}),
    (DmsgEntry, {"static": PK, "client": {"delegated_servers": [PK] * 65}}),
    (DmsgEntry, {"static": PK, "sequence": -1}),
    (DmsgEntry, {"static": PK, "timestamp": 2**63}),
    (AddressEntry, {"port": 65_536}),
    (AddressEntry, {"port": -1}),
    (FullNodeAdvert, {"pk": PK, "stored_items": -1, "full_node": True, "ts": 1}),
    (DmsgServerEntry, {"pk": PK}),
]


@pytest.mark.parametrize(("kind", "body"), FITS)
def test_known_shapes_fit_and_come_back(kind, body):
    entry = msgspec.convert(body, kind)
    packed = msgspec.msgpack.encode(entry)
    assert msgspec.msgpack.decode(packed, type=kind) == entry
    names = {"addresses": [], "edges": None}
    builtins = msgspec.to_builtins(entry)
    lost = {name for name in body if name not in builtins and body[name] not in names.values()}
    assert not lost


@pytest.mark.parametrize(("kind", "body"), WRONG)
def test_what_does_not_fit_is_refused(kind, body):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, kind)


def test_bounds_are_inclusive():
    msgspec.convert(TRANSPORT | {"type": "t" * 64, "label": "l" * 256}, TransportEntry)
    msgspec.convert(SERVICE | {"local_ips": ["1.2.3.4"] * 64}, ServiceEntry)
    msgspec.convert({"static": PK, "timestamp": 2**63 - 1, "sequence": 2**53}, DmsgEntry)


def test_defaults_are_left_out_so_an_entry_has_one_encoding():
    one = msgspec.convert(SERVICE, ServiceEntry)
    two = msgspec.convert(SERVICE | {"version": "", "local_ips": [], "geo": None}, ServiceEntry)
    assert msgspec.msgpack.encode(one) == msgspec.msgpack.encode(two)
    assert msgspec.to_builtins(one) == SERVICE


def test_set_keys_tell_entries_apart():
    base = msgspec.convert(SERVICE, ServiceEntry)
    others = [
        msgspec.convert(SERVICE | change, ServiceEntry)
        for change in ({"type": "skysocks"}, {"address": f"{PK}:4"})
    ]
    assert len({base.set_key, *(o.set_key for o in others)}) == 3
    newer = msgspec.convert(SERVICE | {"version": "v2"}, ServiceEntry)
    assert newer.set_key == base.set_key
    moved = msgspec.convert(TRANSPORT | {"label": "user"}, TransportEntry)
    assert moved.set_key == bytes.fromhex(UUID.replace("-", ""))


def test_a_client_knows_its_servers():
    entry = msgspec.convert({"static": PK, "client": {"delegated_servers": [PK]}}, DmsgEntry)
    assert entry.delegated_servers == (PK,)
    assert msgspec.convert({"static": PK}, DmsgEntry).delegated_servers == ()


@pytest.mark.parametrize("latency", [0, 0.0, -0.0, float("0")])
def test_an_unknown_latency_has_one_encoding_however_it_was_given(latency):
    pack, given = msgspec.msgpack.encode, TRANSPORT | {"latency": latency}
    entries = [msgspec.convert(one, TransportEntry, strict=False) for one in (given, TRANSPORT)]
    entries.append(msgspec.msgpack.decode(pack(given), type=TransportEntry))
    (packed,) = {pack(entry) for entry in entries}
    assert b"latency" not in packed
