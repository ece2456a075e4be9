"""visor.tp_rpc: a local user's call to another node, through this one."""

from __future__ import annotations

import anyio
import pytest

from skycore.errors import AccessDeniedError, DialError, InvalidKeyError, RpcError, StreamError
from skycore.testing.contracts.rpc import RpcServiceContract
from skycore.testing.fakes import identity
from skycore.testing.loop import sim_backend
from visor_rpc.proxy import open_proxy
from visor_rpc.settings import VisorRpcSettings


@pytest.fixture
def anyio_backend():
    return sim_backend()  # ten seconds pass at once


class TestProxy(RpcServiceContract):
    @pytest.fixture
    async def service(self):
        async with open_proxy(VisorRpcSettings(), (), identity("alice")) as service:
            yield service


async def test_m11_a_call_reaches_the_other_node(alice, bob):
    assert await bob.tp_rpc(alice, "echo", {"text": "hi"}) == "hi"
    assert alice.methods.callers == [bob.key]


async def test_m11_every_method_of_the_other_node_can_be_called(alice, bob):
    names = [row["name"] for row in await bob.tp_rpc(alice, "rpc.methods")]
    assert "echo" in names and "visor.tp_rpc" in names


async def test_m11_a_hundred_at_once(alice, bob):
    got = {}

    async def one(i):
        got[i] = await bob.tp_rpc(alice, "echo", {"text": str(i)})

    async with anyio.create_task_group() as tasks:
        for i in range(100):
            tasks.start_soon(one, i)
    assert got == {i: str(i) for i in range(100)}


async def test_a_refusal_comes_back_with_its_words(alice, bob):
    with pytest.raises(AccessDeniedError, match="needs the level admin") as denied:
        await bob.tp_rpc(alice, "change")
    assert bob.key.hex() in denied.value.hint
    with pytest.raises(AccessDeniedError, match="not on this node's whitelist"):
        await alice.tp_rpc(bob, "echo")


async def test_r6_a_proxy_does_not_lead_on_to_a_third(alice, bob):
    with pytest.raises(AccessDeniedError):
        await bob.tp_rpc(alice, "visor.tp_rpc", {"remote": bob.key.hex(), "method": "echo"})


async def test_an_error_of_the_method_comes_back(alice, bob):
    with pytest.raises(RpcError) as unfit:
        await bob.tp_rpc(alice, "echo", {"wrong": 1})
    assert unfit.value.code == -32602


async def test_m11_a_node_that_cannot_be_reached_is_named_at_once(bob):
    nobody = identity("nobody").public
    with pytest.raises(DialError, match=nobody[:4].hex()):
        await bob.tp_rpc(nobody.hex(), "echo")


async def test_a_node_without_streams_says_so():
    async with open_proxy(VisorRpcSettings(), (), identity("alice")) as service:
        (method,) = service.methods
        params = method.params(identity("bob").public.hex(), "echo")
        with pytest.raises(DialError, match="no way"):
            await method.call(params, _context())


@pytest.mark.parametrize("key", ["", "zz", "AB" * 32, "0" * 64, "ab" * 31])
async def test_a_key_that_is_none_is_named(bob, key):
    with pytest.raises(InvalidKeyError):
        await bob.tp_rpc(key, "echo")


async def test_the_nodes_own_key_is_not_dialled(bob):
    with pytest.raises(RpcError, match="own key"):
        await bob.tp_rpc(bob, "echo")


async def test_m11_a_silent_node_is_given_up_after_ten_seconds(exchange, bob, alice):
    exchange.deaf.add(alice.key)
    started, told = anyio.current_time(), []
    with pytest.raises(RpcError, match="gave no sign for 10 s"):
        await bob.tp_rpc(alice, "echo", progress=lambda *news: told.append(news[2]))
    assert anyio.current_time() - started == pytest.approx(10)
    assert told == [
        f"reaching {alice.key[:4].hex()}",
        f"waiting for echo of {alice.key[:4].hex()}",
    ]


async def test_m11_news_of_progress_give_it_more_time(alice, bob):
    told = []
    assert await bob.tp_rpc(alice, "working", progress=lambda *n: told.append(n)) == "worked"
    assert told[-1] == (5, 5, "copying")
    assert anyio.current_time() > 25


async def test_r13_giving_up_ends_the_call_at_the_other_node(alice, bob, settle):
    with anyio.move_on_after(10) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bob.tp_rpc, alice, "slow")
            await settle()
            assert alice.methods.running == 1
            scope.cancel()
    await settle()
    assert alice.methods.running == 0


async def test_a_transport_lost_during_a_call_is_named(alice, bob, exchange, settle):
    failed = []

    async def call():
        try:
            await bob.tp_rpc(alice, "slow")
        except StreamError as lost:
            failed.append(str(lost))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await settle()
        exchange.stop(alice.key)
    assert failed == ["the transport is lost"]


def _context():
    from skycore.contracts.rpc import Caller, RpcContext

    return RpcContext(Caller())
