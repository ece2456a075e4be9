"""What both sides say of themselves."""

from __future__ import annotations

import random

import pytest

from discovery_dmsg.client.presence import Presence
from discovery_dmsg.client.service import DmsgNode, open_status
from discovery_dmsg.client.settings import DmsgClientSettings
from skycore.contracts.status import Health
from skycore.model.entries import DmsgServer
from skycore.testing.contracts.status import StatusSourceContract
from skycore.testing.fakes import identity


class TestService(StatusSourceContract):
    @pytest.fixture
    async def source(self, running):
        return running.status


@pytest.fixture
def node(running):
    api = running.api()
    who = running.person("alice").identity
    settings = DmsgClientSettings(url=running.url)
    presence = Presence(settings, api, who, running.clock, random.Random(1))
    return DmsgNode(api, presence)


class TestNode(StatusSourceContract):
    @pytest.fixture
    async def source(self, node):
        async with open_status(node) as source:
            yield source


async def test_a_node_says_as_what_it_is_registered_and_why_not(running, node):
    async with open_status(node) as source:
        assert (await source.status()).summary == "nothing to register"
        node.presence.set_server(DmsgServer("203.0.113.7:1", 5))
        assert (await source.status()).summary == "registering as a server"
        await node.presence.loop._round()
        assert (await source.status()).summary == "registered as a server"
        node.presence.set_servers([identity("x").public])
        running.http.is_down = True
        await node.presence.loop._round()
        status = await source.status()
        assert status.health is Health.DEGRADED
        assert status.summary == "cannot register: nobody there"
    async with open_status(DmsgNode(None, node.presence)) as source:
        assert (await source.status()).summary == "no DMSG discovery is set"
