"""Prefixes, targets and proxies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from http_asgi.core.table import Proxies, Table, split_target
from skycore.errors import LocalProtocolError, PluginConflictError


def test_the_longest_prefix_wins_by_whole_words():
    table = Table([("", "root", 0), ("/a", "a", 1), ("/a/b", "b", 2)])
    assert [table.find(p) for p in ("/", "/x", "/a", "/a/", "/a/c", "/a/b", "/a/b/c", "/ab")] == [
        0, 0, 1, 1, 1, 2, 2, 0,
    ]  # fmt: skip
    assert Table([("/a", "a", 1)]).find("/b") is None


def test_two_of_one_prefix_are_refused_by_name():
    with pytest.raises(PluginConflictError, match=r"'tpd' and 'sd' both claim .*'/api'") as said:
        Table([("/api", "tpd", 1), ("/api", "sd", 2)])
    assert said.value.hint


@pytest.mark.parametrize("prefix", ["/", "a", "/a/", "//a", "/a b", "/a?b"])
def test_what_is_no_prefix_is_refused(prefix):
    with pytest.raises(LocalProtocolError, match="mine"):
        Table([(prefix, "mine", 1)])


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/a/b?c=d?e", ("/a/b", b"/a/b", b"c=d?e")),
        (b"/a%20b%2Fc", ("/a b/c", b"/a%20b%2Fc", b"")),
        (b"http://host:1/a?b", ("/a", b"/a", b"b")),
        (b"HTTPS://host", ("/", b"/", b"")),
        (b"/", ("/", b"/", b"")),
    ],
)
def test_targets(target, parts):
    assert split_target(target) == parts


@pytest.mark.parametrize("target", [b"*", b"", b"a/b", b"?x", b"/%ff", b"/a%00b"])
def test_targets_that_are_none(target):
    with pytest.raises(ValueError, match=r".+"):
        split_target(target)


@given(st.binary(max_size=200))
def test_any_target_is_a_path_or_refused(target):
    try:
        path, _, _ = split_target(target)
    except ValueError:
        return
    assert path.startswith("/")


@pytest.mark.parametrize(
    ("host", "told", "client"),
    [
        ("203.0.113.1", b"198.51.100.9", "203.0.113.1"),
        ("10.0.0.1", b"198.51.100.9", "198.51.100.9"),
        ("10.0.0.1", b"1.1.1.1, 198.51.100.9, 10.0.0.2", "198.51.100.9"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("10.0.0.1", b"spoof, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", b"10.0.0.3", "10.0.0.3"),
        ("", b"1.1.1.1", ""),
    ],
)
def test_only_our_proxies_are_believed(host, told, client):
    assert Proxies(["10.0.0.0/8"]).client(host, told) == client
    assert Proxies([]).client(host, told) == host
