"""Contacts as people write them."""

from __future__ import annotations

import pytest

from skycore.errors import ConfigError, InvalidKeyError
from skycore.model.addresses import Address, parse_contact
from skycore.model.keys import ED25519
from skycore.testing.fakes import identity

KEY = identity("alice").public.hex()


@pytest.mark.parametrize(
    ("text", "kind", "endpoint"),
    [
        (f"{KEY}@10.0.0.1:7777", "stcpr", "10.0.0.1:7777"),
        (f"{KEY}@sudph://10.0.0.1:7777", "sudph", "10.0.0.1:7777"),
        (f"{KEY}@sudph://[2001:db8::1]:7777", "sudph", "[2001:db8::1]:7777"),
    ],
)
def test_a_contact_names_a_key_a_type_and_an_endpoint(text, kind, endpoint):
    contact = parse_contact(ED25519, text)
    assert contact.public == bytes.fromhex(KEY)
    assert contact.addresses == (Address(kind, endpoint),)


@pytest.mark.parametrize("text", [KEY, f"{KEY}@", f"{KEY}@sudph://", f"{KEY}@host", f"{KEY}@a:b"])
def test_what_is_no_contact_is_refused(text):
    with pytest.raises(ConfigError):
        parse_contact(ED25519, text)


def test_a_contact_has_a_whole_key():
    with pytest.raises(InvalidKeyError):
        parse_contact(ED25519, "abcd@sudph://10.0.0.1:7777")
