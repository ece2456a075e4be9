"""URLs, taken apart; and passwords that never come out again."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mirror_redis.places import Place, parse_place, without_password
from mirror_redis.settings import RedisStoreSettings
from skycore.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://127.0.0.1", Place((("127.0.0.1", 6379),))),
        ("redis://db.example:7000/3", Place((("db.example", 7000),), db=3)),
        ("REDIS://h/", Place((("h", 6379),))),
        ("redis://[::1]:7000/0", Place((("::1", 7000),))),
        ("rediss://h", Place((("h", 6379),), is_tls=True)),
        ("redis://:pw@h", Place((("h", 6379),), password="pw")),
        ("redis://me:p%40%2Fw@h/1", Place((("h", 6379),), db=1, username="me", password="p@/w")),
        ("unix:///run/redis.sock", Place(path="/run/redis.sock")),
        ("unix://me:pw@/run/r?db=2", Place(path="/run/r", db=2, username="me", password="pw")),
        (
            "redis+sentinel://a,b:7,[::1]:8/main",
            Place((("a", 26379), ("b", 7), ("::1", 8)), service="main"),
        ),
        (
            "rediss+sentinel://u:p@a/main/4",
            Place((("a", 26379),), service="main", db=4, is_tls=True, username="u", password="p"),
        ),
    ],
)
def test_a_url_is_a_place(url, place):
    assert parse_place(url) == place


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+cluster://a,b", "Cluster is not supported"),
        ("rediss-cluster://a", "Cluster is not supported"),
        ("http://h", "no Redis URL"),
        ("h:6379", "no Redis URL"),
        ("", "no Redis URL"),
        ("redis://", "no host"),
        ("redis://h:0", "no port"),
        ("redis://h:70000", "no port"),
        ("redis://h:x", "no host"),
        ("redis://a,b", "several hosts"),
        ("redis://h/one", "is a number"),
        ("redis://h/1/2", "number of the database"),
        ("redis://h/1?ssl_cert_reqs=none", "number of the database"),
        ("redis+sentinel://h", "name the service"),
        ("unix://path", "Unix socket"),
        ("unix:///p?timeout=1", "Unix socket"),
    ],
)
def test_what_is_no_place_is_refused_by_name(url, says):
    with pytest.raises(ConfigError, match=says):
        parse_place(url)


def test_a_password_is_never_shown():
    url = "redis://me:swordfish@h:1/2"
    settings = RedisStoreSettings(url=url)
    shown = f"{settings!r} {settings} {settings.model_dump_json()} {settings.model_dump()}"
    shown += f"{parse_place(url)} {parse_place(url)!r} {without_password(url)}"
    assert "swordfish" not in shown
    assert "redis://me:***@h:1/2" in shown
    assert settings.url == url
    assert without_password("unix://me:sword@fish@/p") == "unix://me:***@/p"
    for bad in ("redis://me:swordfish@h/x", "redis+cluster://me:swordfish@h"):
        with pytest.raises(ConfigError) as refused:
            parse_place(bad)
        assert "swordfish" not in f"{refused.value} {refused.value.hint}"


def test_settings_refuse_what_is_no_place():
    with pytest.raises(ValidationError, match="Cluster is not supported"):
        RedisStoreSettings(url="redis+cluster://h")
