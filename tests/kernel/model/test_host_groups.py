"""Whose limit an address counts on."""

from __future__ import annotations

import pytest

from skycore.model.addresses import host_group


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("key-0011", "key-0011"),
        ("", ""),
    ],
)
def test_whose_limit_an_address_counts_on(host, group):
    assert host_group(host) == group
