"""A node has one Redis, which is named once: its other sections follow the one that names it."""

from __future__ import annotations

import pytest

from mirror_redis.mirror_settings import RedisMirrorSettings
from mirror_redis.registry_settings import RedisRegistrySettings
from mirror_redis.settings import LOCAL, RedisStoreSettings, settled
from skycore.contracts.status import StatusSource
from skycore.errors import ConfigError
from skycore.node import Node

FIRST, SECOND = "redis://:one@10.0.0.1/1", "redis://10.0.0.2"


def test_a_section_that_names_none_is_as_the_one_that_does() -> None:
    mirror = RedisMirrorSettings(url=FIRST, password_file="p", prefix="n:", retry_s=3, timeout_s=4)
    own = RedisRegistrySettings(timeout_s=9, entries_max=5)
    found, section = settled(own, {"mirror_redis": mirror, "store_redis": None})
    assert (found.url, found.password_file, found.prefix, found.retry_s, section) == (
        FIRST, "p", "n:", 3, "mirror_redis",
    )  # fmt: skip
    assert found.timeout_s == 9, "what the section does set counts"
    assert isinstance(found, RedisRegistrySettings) and found.entries_max == 5


def test_a_section_with_a_url_stands_by_itself_so_no_password_goes_astray() -> None:
    mirror = RedisMirrorSettings(url=FIRST, password_file="p", prefix="n:")
    found, section = settled(RedisRegistrySettings(url=SECOND), {"mirror_redis": mirror})
    assert (found.url, found.password_file, found.prefix, section) == (SECOND, "", "", "")


def test_where_none_names_one_it_is_that_of_this_machine() -> None:
    found, section = settled(RedisMirrorSettings(prefix="n:"), {"store_redis": None})
    assert (found.url, found.prefix, section) == (LOCAL, "n:", "")


def test_where_the_others_disagree_the_start_ends_by_name() -> None:
    others = {
        "mirror_redis": RedisMirrorSettings(url=FIRST),
        "store_redis": RedisStoreSettings(url=SECOND),
    }
    with pytest.raises(ConfigError, match=r"\[mirror_redis\] and \[store_redis\] name different"):
        settled(RedisRegistrySettings(), others)
    assert settled(RedisRegistrySettings(url=FIRST), others)[0].url == FIRST


@pytest.mark.parametrize(
    ("named", "following"), [("mirror_redis", "registry_redis"), ("registry_redis", "mirror_redis")]
)
async def test_a_node_that_names_its_redis_once_is_on_it_with_all_its_parts(
    redis, named, following
) -> None:
    settings = {
        "node": {
            "enable": ["mirror_redis", "registry_redis", "http_server", "discovery_service_server"],
            "disable": ["rpc_local"],
        },
        "transport_stcpr": {"listen": "127.0.0.1:0"},
        "http_server": {"listen": "127.0.0.1:0"},
        named: {"url": redis.url, "timeout_s": 10, "prefix": "one:"},
    }
    async with Node.open("visor", settings) as node:
        told = {s.name: (await s.status()).fields for s in node._parts[StatusSource]}
        assert told[named]["server"] == told[following]["server"]
        assert told[named]["state"] == told[following]["state"] == "up"
        assert told[following]["named_in"] == named and "named_in" not in told[named]
    assert redis.send("EXISTS", "one:dht:meta", "one:service-discovery:meta") == b":2\r\n"
