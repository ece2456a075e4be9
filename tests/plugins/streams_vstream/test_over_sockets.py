"""The contract's suite over the real thing: transport manager, Noise, TCP on the loopback."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from security_noise.service import open_noise
from security_noise.settings import NoiseSettings
from skycore.events import Events
from skycore.guards.transports import TransportsSettings, open_transports
from skycore.model.addresses import Address, Contact
from skycore.runtime.clock import RealClock
from skycore.runtime.entropy import RealEntropy
from skycore.runtime.network import RealNetwork
from skycore.testing.contracts.streams import StreamsContract, StreamsPair
from skycore.testing.fakes import AlwaysReady, identity
from streams_vstream.service import open_vstream
from streams_vstream.settings import VStreamSettings
from transport_stcpr.service import open_stcpr
from transport_stcpr.settings import StcprSettings


@asynccontextmanager
async def node(name):
    """The parts below streams, and streams: (transports, streams)."""
    who, clock, entropy = identity(name), RealClock(), RealEntropy()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        security = await enter(open_noise(NoiseSettings(), who, clock, entropy))
        tcp = await enter(open_stcpr(StcprSettings(listen="127.0.0.1:0"), RealNetwork()))
        transports = await enter(
            open_transports(
                TransportsSettings(),
                (tcp,),
                security,
                who,
                clock,
                entropy,
                AlwaysReady(),
                Events(),
            )
        )
        yield transports, await enter(open_vstream(VStreamSettings(), transports, clock))


class TestOverSockets(StreamsContract):
    @pytest.fixture
    async def pair(self):
        alice, bob = identity("alice").public, identity("bob").public
        async with node("alice") as (ta, a), node("bob") as (tb, b):
            for transports, key, other in ((ta, bob, tb), (tb, alice, ta)):
                (listening,) = other.listening()
                port = listening.endpoint.rpartition(":")[2]
                address = Address(listening.kind, f"127.0.0.1:{port}")
                transports.addresses.learn(Contact(key, (address,)), pinned=True)

            async def lose():
                for transport in ta.all():
                    await transport.aclose("unplugged")

            yield StreamsPair(a, b, alice, bob, lose, identity("carol").public)
