from __future__ import annotations

import anyio
import pytest
from pydantic import ValidationError

from skycore.errors import DialError, TransportError
from skycore.model.addresses import Address
from skycore.runtime.network import RealNetwork
from skycore.testing.contracts.transport import TransportTypeContract
from skycore.testing.fakes import identity
from skycore.testing.loop import sim_backend
from skycore.testing.network import SimNetwork
from transport_stcpr.service import Stcpr, open_stcpr
from transport_stcpr.settings import StcprSettings

REMOTE = identity("remote").public


class TestStcprOnSockets(TransportTypeContract):
    @pytest.fixture
    def transport_type(self):
        return Stcpr(StcprSettings(listen="127.0.0.1:0"), RealNetwork())


class TestStcprOnSocketsOfIpv6(TransportTypeContract):
    @pytest.fixture
    def transport_type(self):
        return Stcpr(StcprSettings(listen="[::1]:0"), RealNetwork())


class TestStcprInSimulation(TransportTypeContract):
    @pytest.fixture
    def anyio_backend(self):
        return sim_backend(3_600)

    @pytest.fixture
    async def transport_type(self, anyio_backend):
        return Stcpr(StcprSettings(listen="127.0.0.1:0"), SimNetwork().host("127.0.0.1"))


async def test_tries_the_addresses_in_order_and_lists_what_failed():
    async with open_stcpr(StcprSettings(listen="127.0.0.1:0"), RealNetwork()) as stcpr:
        async with stcpr.listen() as closed:
            pass
        dead = closed.addresses[0]
        async with stcpr.listen() as listener:
            stream = await stcpr.dial(REMOTE, (dead, listener.addresses[0]))
            await stream.aclose()
            await (await listener.accept()).aclose()
        with pytest.raises(DialError) as caught:
            await stcpr.dial(REMOTE, (dead, Address("stcpr", "nonsense")))
    assert dead.endpoint.rpartition(":")[2] in str(caught.value)
    assert "refused" in str(caught.value) and "nonsense" in str(caught.value)


async def test_no_address_names_the_key():
    with pytest.raises(DialError, match=REMOTE.hex()[:8]):
        await Stcpr(StcprSettings(), RealNetwork()).dial(REMOTE, ())


async def test_t700_a_host_that_never_answers_costs_the_dial_timeout():
    class Silent:
        async def connect_tcp(self, host, port):
            await anyio.sleep_forever()

    stcpr = Stcpr(StcprSettings(dial_timeout_s=0.01), Silent())
    with pytest.raises(DialError, match=r"10\.0\.0\.1:7: no answer within 0\.01 s"):
        await stcpr.dial(REMOTE, (Address("stcpr", "10.0.0.1:7"),))


async def test_a_taken_port_is_an_error_with_a_hint_at_once():
    network = RealNetwork()
    async with Stcpr(StcprSettings(listen="127.0.0.1:0"), network).listen() as listener:
        taken = listener.addresses[0].endpoint
        with pytest.raises(TransportError, match="address already in use") as caught:
            async with Stcpr(StcprSettings(listen=taken), network).listen():
                pass
    assert "port" in caught.value.hint


async def test_tells_a_bound_host_and_leaves_an_open_one_to_the_beholder():
    async with Stcpr(StcprSettings(listen="0.0.0.0:0"), RealNetwork()).listen() as listener:
        assert listener.addresses[0].endpoint.startswith(":")
    async with Stcpr(StcprSettings(listen="127.0.0.1:0"), RealNetwork()).listen() as listener:
        assert listener.addresses[0].endpoint.startswith("127.0.0.1:")


async def test_advertise_replaces_what_is_told():
    settings = StcprSettings(listen="127.0.0.1:0", advertise=("node.example:7777",))
    async with Stcpr(settings, RealNetwork()).listen() as listener:
        assert listener.addresses == (Address("stcpr", "node.example:7777"),)


async def test_an_empty_listen_takes_no_connections():
    async with Stcpr(StcprSettings(listen=""), RealNetwork()).listen() as listener:
        assert listener.addresses == ()
        with anyio.move_on_after(0) as waited:
            await listener.accept()
        assert waited.cancelled_caught


@pytest.mark.parametrize(
    "bad",
    [
        {"listen": "7777"},
        {"listen": "host:port"},
        {"advertise": ["host"]},
        {"advertise": ["host:0"]},
        {"dial_timeout_s": 0},
        {"port": 7777},
    ],
)
def test_settings_refuse_what_cannot_work(bad):
    with pytest.raises(ValidationError):
        StcprSettings(**bad)
