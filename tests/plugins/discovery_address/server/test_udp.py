"""The resolver's UDP side on its sockets: the table behind it, trouble, and what is told of it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest

from discovery_address.server.settings import AddressServerSettings
from skycore.errors import ConfigError, DecodeError, StoreError
from skycore.model.entries import AddressBind
from skycore.model.sudph import (
    Alive,
    Ask,
    Beat,
    Bind,
    Bound,
    Cookie,
    Leave,
    bind_message,
    decode,
    encode,
)
from skycore.testing import SimNetwork
from skycore.testing.fakes import TEST_NETWORK, identity

RESOLVER, OTHER = ("198.51.100.1", 30_178), ("198.51.100.1", 30_179)
NODE = "9.9.9.9"
LISTEN = {"udp_listen": "0.0.0.0:30178", "udp_other_port": 30_179}


class Node:
    """A socket that speaks to the resolver, datagram by datagram."""

    def __init__(self, socket, name):
        self.socket, self.who = socket, identity(name)
        self.session = b""

    async def ask(self, message, to=RESOLVER):
        self.socket.send(message if isinstance(message, bytes) else encode(message), to)
        with anyio.move_on_after(5):
            [(data, sender), *_] = await self.socket.receive()
            return decode(data), sender
        return None, None

    async def bind(self):
        cookie, _ = await self.ask(Ask(bytes(8)))
        assert isinstance(cookie, Cookie)
        bind = Bind(self.who.public, cookie.cookie, b"12345678", 0, (), bytes(64))
        signature = self.who.sign(bind_message(TEST_NETWORK.id, bind))
        told, _ = await self.ask(
            Bind(bind.public, bind.cookie, bind.nonce, bind.nat, bind.local, signature)
        )
        self.session = told.session if isinstance(told, Bound) else b""
        return told


@pytest.fixture
async def network():
    return SimNetwork(1)


@pytest.fixture
async def resolver(make, network):
    async with make(network=network, **LISTEN) as resolver:
        yield resolver


@pytest.fixture
def node(network):
    @asynccontextmanager
    async def opened(name="alice", host=NODE):
        async with network.host(host).open_udp("", 7_777) as socket:
            yield Node(socket, name)

    return opened


async def test_what_is_bound_is_in_the_table_until_it_leaves(resolver, node):
    async with node() as alice:
        told = await alice.bind()
        assert told.seen.endpoint == (NODE, 7_777)
        found = resolver.desk.find("sudph", alice.who.public)
        assert found == AddressBind(port="7777", remote_addr=f"{NODE}:7777")
        alive, sender = await alice.ask(Beat(alice.session, 1))
        assert alive.known and sender == RESOLVER
        alice.socket.send(encode(Leave(alice.session)), RESOLVER)
        await anyio.sleep(1)
        assert resolver.desk.find("sudph", alice.who.public) is None


async def test_the_second_port_answers_where_it_is_asked_to(resolver, node):
    async with node() as alice:
        cookie, sender = await alice.ask(Ask(bytes(8), from_other_port=True))
        assert sender == OTHER and cookie.other_port == OTHER[1]
        _, sender = await alice.ask(Ask(bytes(8)), OTHER)
        assert sender == OTHER


async def test_who_is_silent_for_40_s_is_bound_no_more(resolver, node):
    async with node() as alice:
        await alice.bind()
        for count in range(6):
            await anyio.sleep(20)
            alive, _ = await alice.ask(Beat(alice.session, count))
            assert isinstance(alive, Alive) and alive.known
        await anyio.sleep(42)
        assert resolver.desk.find("sudph", alice.who.public) is None
        assert (await alice.ask(Beat(alice.session, 9)))[0].known is False


async def test_who_is_bound_by_another_server_meanwhile_stays_listed(resolver, node):
    async with node() as alice:
        await alice.bind()
        elsewhere = AddressBind(port="7777", remote_addr="9.9.9.8:7777")
        await resolver.desk.bind("sudph", alice.who.public, elsewhere)
        await anyio.sleep(60)
        assert resolver.desk.find("sudph", alice.who.public) == elsewhere


async def test_a_table_that_cannot_be_written_confirms_nothing(resolver, node, monkeypatch):
    async def broken(*_, **__):
        raise StoreError("the disk is full")

    async with node() as alice:
        with monkeypatch.context() as patch:
            patch.setattr(resolver.desk, "bind", broken)
            assert await alice.bind() is None
        assert isinstance(await alice.bind(), Bound)
        assert resolver.udp.core.counters["table_failed"] == 1


async def test_rubbish_is_counted_and_answered_by_nothing(resolver, node):
    async with node() as alice:
        for rubbish in (b"", b"holepunch", bytes(600), encode(Ask(bytes(8)))[:-1]):
            assert await alice.ask(rubbish) == (None, None)
        fields = (await resolver.status.status()).fields
        assert fields["udp_datagrams"]["malformed"] == 4
        assert fields["udp"] == "0.0.0.0:30178" and fields["udp_sessions"] == 0


async def test_a_resolver_without_a_port_has_no_udp_side(ar):
    assert ar.udp.core is None
    assert "udp_sessions" not in (await ar.status.status()).fields
    assert ar.desk.udp_address == ""


async def test_what_is_advertised_is_what_health_tells(make, network):
    async with make(network=network, **LISTEN, udp_advertise="203.0.113.9:30178") as resolver:
        assert b"203.0.113.9:30178" in (await resolver.get("/health")).body


def test_a_listening_address_is_host_and_port():
    with pytest.raises((ConfigError, ValueError), match="no address"):
        AddressServerSettings(udp_listen="30178")
    with pytest.raises(DecodeError):
        decode(b"holepunch")
