"""Where the resolver takes bindings by UDP, by its own word."""

from __future__ import annotations

import json

import pytest

from discovery_address.client.udp import UdpOfResolver
from skycore.discovery.signed import SignedClient
from skycore.errors import DiscoveryError, HttpError
from skycore.testing.fakes import identity


def asking(place, health, url="http://ar.example/ar"):
    place.http.answers["/health"] = (200, json.dumps(health).encode())
    return UdpOfResolver(SignedClient(place.http, identity("alice"), url))


async def test_a_real_server_says_where_its_udp_side_is(place):
    place.desk.udp_address = "198.51.100.1:30178"
    assert await UdpOfResolver(place.client("alice")).udp_address() == "198.51.100.1:30178"
    place.desk.udp_address = ""
    assert await UdpOfResolver(place.client("alice")).udp_address() == ""


async def test_without_a_resolver_nobody_is_asked():
    assert await UdpOfResolver(None).udp_address() == ""


@pytest.mark.parametrize("said", ["0.0.0.0:7", ":7", "[::]:7", "127.0.0.1:7", "localhost:7"])
async def test_what_is_nobodys_or_this_machine_stands_for_the_servers_host(place, said):
    assert await asking(place, {"udp_address": said}).udp_address() == "ar.example:7"


async def test_a_server_on_this_machine_may_say_so(place):
    asked = asking(place, {"udp_address": "127.0.0.1:7"}, "http://127.0.0.1:80/ar")
    assert await asked.udp_address() == "127.0.0.1:7"


@pytest.mark.parametrize("said", [{}, {"udp_address": ""}, {"udp_address": "host:0"}])
async def test_a_server_without_a_udp_side(place, said):
    assert await asking(place, said).udp_address() == ""


@pytest.mark.parametrize("said", [{"udp_address": 7}, {"udp_address": "x" * 301}, [], "no"])
async def test_nonsense_is_told(place, said):
    with pytest.raises((DiscoveryError, HttpError)):
        await asking(place, said).udp_address()


async def test_a_server_that_is_away_is_told(place):
    place.http.is_down = True
    with pytest.raises(HttpError):
        await asking(place, {}).udp_address()
