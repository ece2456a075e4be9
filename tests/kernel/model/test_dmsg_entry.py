"""DMSG entries: one JSON, one signature, and nothing that passes for either."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skycore.errors import DecodeError, InvalidKeyError, InvalidSignatureError
from skycore.model import dmsg_entry
from skycore.model.entries import DmsgClient, DmsgEntry, DmsgServer
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.testing.fakes import TEST_NETWORK, identity

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "skycore_dmsg_entries.json").read_text()
)
ALICE = identity("alice")
KEY = ALICE.public.hex()
SERVER = DmsgServer("203.0.113.7:8081", 250, dht_bootstrap=True)
texts = st.text(max_size=40)


def signed(entry, who=ALICE, **options):
    return dmsg_entry.sign(TEST_NETWORK, entry, who.sign, **options)


entries = st.builds(
    DmsgEntry,
    static=st.just(KEY),
    version=texts,
    sequence=st.integers(0, 2**53),
    timestamp=st.integers(0, 2**63 - 1),
    client=st.none() | st.builds(DmsgClient, st.lists(texts.filter(bool), max_size=5).map(tuple)),
    client_type=texts,
    server=st.none()
    | st.builds(DmsgServer, texts, st.integers(0, 2**53), dht_bootstrap=st.booleans()),
    protocol=texts,
)


@pytest.mark.parametrize("case", VECTORS["entries"], ids=lambda case: case["name"])
def test_vectors(case):
    network = NetworkConstants(ED25519, VECTORS["network"])
    assert network.id.hex() == VECTORS["network_id"]
    secret = ED25519.secret(bytes.fromhex(VECTORS["seed"]))
    entry = dmsg_entry.decode(case["body"].encode())
    assert dmsg_entry.encode(entry).decode() == case["body"]
    said = dmsg_entry.signed_bytes(network, entry, deletes=case["deletes"])
    assert said.hex() == case["signed"]
    assert said.endswith(case["signed_text"].encode())
    bare = msgspec.structs.replace(entry, signature="")
    again = dmsg_entry.sign(
        network, bare, lambda message: ED25519.sign(secret, message), deletes=case["deletes"]
    )
    assert again.signature == case["signature"]
    assert dmsg_entry.verify(network, entry, deletes=case["deletes"]).hex() == VECTORS["public"]
    if case["listed_as_official"]:
        listed = dmsg_entry.encode(entry, server_type="official")
        assert listed.decode() == case["listed_as_official"]


@given(entries)
def test_what_is_signed_comes_back_and_verifies(entry):
    entry = signed(entry)
    body = dmsg_entry.encode(entry)
    assert dmsg_entry.decode(body) == entry
    assert dmsg_entry.encode(dmsg_entry.decode(body)) == body
    assert dmsg_entry.verify(TEST_NETWORK, entry) == ALICE.public


@given(entries, entries)
def test_l16_a_changed_entry_does_not_verify(entry, other):
    moved = msgspec.structs.replace(other, signature=signed(entry).signature)
    if moved != msgspec.structs.replace(entry, signature=moved.signature):
        assert not dmsg_entry.is_signed(TEST_NETWORK, moved)


def test_l16_the_type_that_a_server_is_listed_with_is_outside_the_signature():
    entry = signed(DmsgEntry(KEY, "0.0.1", 1, 2, server=SERVER))
    for kind in ("official", "community", ""):
        listed = dmsg_entry.decode(dmsg_entry.encode(entry, server_type=kind))
        assert listed.server.server_type == kind
        assert dmsg_entry.verify(TEST_NETWORK, listed) == ALICE.public


def test_a_deletion_is_no_entry_and_an_entry_no_deletion():
    entry = DmsgEntry(KEY, "0.0.1", 1, 2, server=SERVER)
    for deletes in (True, False):
        with pytest.raises(InvalidSignatureError):
            dmsg_entry.verify(TEST_NETWORK, signed(entry, deletes=deletes), deletes=not deletes)


def test_another_network_key_or_spelling_of_the_signature_is_refused():
    entry = signed(DmsgEntry(KEY, "0.0.1", 1, 2, server=SERVER))
    with pytest.raises(InvalidSignatureError):
        dmsg_entry.verify(NetworkConstants(ED25519, "another"), entry)
    with pytest.raises(InvalidSignatureError):
        dmsg_entry.verify(TEST_NETWORK, signed(entry, identity("bob")))
    for text in (entry.signature.upper(), entry.signature[:2] + " " + entry.signature[2:], "", "x"):
        with pytest.raises(InvalidSignatureError):
            dmsg_entry.verify(TEST_NETWORK, msgspec.structs.replace(entry, signature=text))
    for static in ("02" + "ab" * 32, KEY.upper(), "00" * 32, "nonsense"):
        with pytest.raises(InvalidKeyError):
            dmsg_entry.verify(TEST_NETWORK, msgspec.structs.replace(entry, static=static))


BROKEN = [
    b"", b"null", b"[]", b"{}", b'{"static":1}', b'{"static":"a","sequence":-1}',
    b'{"static":"a","sequence":1e400}', b'{"static":"a","unknown":1}', b'{"static":"\xff"}',
    b'{"static":"a","server":{}}', b'{"static":"\\ud800"}', b"[" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("body", BROKEN)
def test_what_is_no_entry_is_a_decode_error(body):
    with pytest.raises(DecodeError, match="not a DMSG entry"):
        dmsg_entry.decode(body)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_entry_or_a_decode_error(body):
    with contextlib.suppress(DecodeError):
        dmsg_entry.encode(dmsg_entry.decode(body))
