"""The registry served to other nodes: who is let in, what they reach, when they are cut."""

from __future__ import annotations

import logging

import anyio
import msgspec
import pytest

from skycore.contracts.access import Level
from skycore.errors import AccessDeniedError, RpcError, StreamError
from skycore.frames import frame
from skycore.model.numbers import PacketType
from skycore.testing.contracts.status import StatusSourceContract
from skycore.testing.fakes import identity
from visor_rpc.service import VISOR_RPC
from visor_rpc.settings import VisorRpcSettings


class TestStatus(StatusSourceContract):
    @pytest.fixture
    async def source(self, alice):
        return alice.status


async def test_a_listed_key_calls_and_is_known_by_its_transport(alice, bob):
    async with await bob.client(alice) as client:
        assert await client.call("echo", {"text": "hi"}) == "hi"
    assert alice.methods.callers == [bob.key]


async def test_m10_r1_an_unlisted_key_is_told_so_and_runs_nothing(alice, exchange, peer, caplog):
    async with peer(exchange, "mallory") as mallory:
        for method in ("echo", "change", "visor.tp_rpc", "no.such.method"):
            async with await mallory.client(alice) as client:
                with pytest.raises(AccessDeniedError, match="not authorised") as denied:
                    await client.call(method, {"text": "hi"})
            assert mallory.key.hex() in denied.value.hint
    assert not alice.methods.callers
    assert caplog.text.count("rpc refused, not whitelisted") == 4
    assert mallory.key[:4].hex() in caplog.text


async def test_r2_with_an_empty_list_nobody_is_let_in(bob, alice):
    async with await alice.client(bob) as client:
        with pytest.raises(AccessDeniedError):
            await client.call("echo")


async def test_r3_a_key_in_the_call_means_nothing(alice, exchange, peer):
    async with peer(exchange, "mallory") as mallory:
        stream = await mallory.streams.dial(alice.key, VISOR_RPC)
        claim = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "echo",
            "params": {},
            "remote": identity("bob").public.hex(),
            "SW-Public": identity("bob").public.hex(),
        }
        await stream.send(frame(msgspec.json.encode(claim)))
        assert b"not authorised" in await stream.receive()
    assert not alice.methods.callers


async def test_r8_who_may_read_may_not_change(alice, bob, exchange, peer):
    async with await bob.client(alice) as client:
        with pytest.raises(AccessDeniedError, match="needs the level admin") as denied:
            await client.call("change")
        assert "--level admin" in denied.value.hint
    async with peer(exchange, "carol") as carol, await carol.client(alice) as client:
        assert await client.call("change", {"text": "done"}) == "done"


async def test_r6_the_proxy_is_not_for_remote_callers(alice, exchange, peer, bob):
    async with peer(exchange, "carol") as carol, await carol.client(alice) as client:
        with pytest.raises(AccessDeniedError, match="own machine"):
            await client.call("visor.tp_rpc", {"remote": bob.key.hex(), "method": "echo"})


async def test_r5_a_removed_key_is_cut_off_at_once(alice, bob, exchange, peer, settle):
    idle = await bob.streams.dial(alice.key, VISOR_RPC)
    client = await bob.client(alice)
    failed = []

    async def call():
        try:
            await client.call("slow")
        except StreamError as cut:
            failed.append(cut)

    async with peer(exchange, "carol") as carol, await carol.client(alice) as other:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await settle()
            assert alice.methods.running == 1
            alice.policy.remove("bob")
        await settle()
        assert failed and alice.methods.running == 0
        assert await idle.receive() == b""
        assert await other.call("echo", {"text": "still"}) == "still"
    with pytest.raises(AccessDeniedError):
        await (await bob.client(alice)).call("echo")


async def test_r13_a_peer_whose_transport_is_lost_ends_its_calls(alice, bob, exchange, settle):
    stream = await bob.streams.dial(alice.key, VISOR_RPC)
    await stream.send(frame(b'{"jsonrpc":"2.0","id":1,"method":"slow"}'))
    await settle()
    assert alice.methods.running == 1
    exchange.stop(bob.key)
    await settle()
    assert alice.methods.running == 0 and alice.served.server.streams == 0


async def test_r15_garbage_on_the_service_harms_nobody(alice, bob, exchange, peer, settle):
    for garbage in (b"\0" * 100, b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\1{"):
        stream = await bob.streams.dial(alice.key, VISOR_RPC)
        await stream.send(garbage)
    await settle()
    async with await bob.client(alice) as client:
        assert await client.call("echo", {"text": "hi"}) == "hi"
    assert alice.served.server.malformed.count == 4


async def test_an_unlisted_peer_cannot_make_us_read_much(alice, exchange, peer, settle):
    async with peer(exchange, "mallory") as mallory:
        stream = await mallory.streams.dial(alice.key, VISOR_RPC)
        await stream.send((4 * 2**20).to_bytes(4, "big"))
        assert b"not authorised" in await stream.receive()
        assert await stream.receive() == b""


async def test_many_unlisted_streams_are_closed_without_a_word(exchange, peer, settle):
    settings = VisorRpcSettings(refusing_max=2)
    async with (
        peer(exchange, "alice", settings=settings) as alice,
        peer(exchange, "mallory") as mallory,
    ):
        streams = [await mallory.streams.dial(alice.key, VISOR_RPC) for _ in range(10)]
        await settle()
        assert [await s.receive() for s in streams[2:]] == [b""] * 8
        await streams[0].send(frame(b"{}"))
        assert b"not authorised" in await streams[0].receive()


async def test_f25_a_flood_of_refusals_is_counted_not_logged(alice, exchange, peer, caplog):
    caplog.set_level(logging.WARNING)
    async with peer(exchange, "mallory") as mallory:
        for _ in range(200):
            async with await mallory.client(alice) as client:
                with pytest.raises(AccessDeniedError):
                    await client.call("echo")
    assert alice.served.refusals.count == 200
    assert len(caplog.records) == 20
    assert (await alice.status.status()).fields["refused"] == 200


async def test_nobody_is_answered_before_the_node_is_up(exchange, peer, bob, starting, settle):
    lifecycle = starting(ready=False)
    async with peer(exchange, "alice", lifecycle=lifecycle, bob=Level.READ) as alice:
        client, answers = await bob.client(alice), []

        async def call():
            answers.append(await client.call("echo", {"text": "hi"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await settle()
            assert not answers
            lifecycle.up()
        assert answers == ["hi"]


async def test_a_quiet_stream_is_closed(alice, bob, settle):
    stream = await bob.streams.dial(alice.key, VISOR_RPC)
    await settle()
    alice.clock.advance(59)
    await alice.served.hang_up_quiet()
    await settle()
    assert alice.served.server.streams == 1
    alice.clock.advance(2)
    await alice.served.hang_up_quiet()
    assert await stream.receive() == b""


async def test_a_new_stream_for_each_of_many_calls(alice, bob, settle):
    async def some(n):
        for i in range(n):
            async with await bob.client(alice) as client:
                assert await client.call("echo", {"text": str(i)}) == str(i)

    async with anyio.create_task_group() as tasks:
        for _ in range(64):
            tasks.start_soon(some, 5)
    await settle()
    assert alice.served.server.calls == 320 and alice.served.server.streams == 0


async def test_status_tells_who_is_there(alice, bob, settle):
    async with await bob.client(alice) as client:
        await client.call("echo")
        status = await alice.status.status()
        assert status.fields["callers"] == 1 and status.fields["calls"] == 1


def test_the_service_has_skywires_numbers():
    assert VISOR_RPC.packet_type == PacketType.VISOR_RPC == 14


async def test_an_unknown_method_is_named_for_those_who_may_read(alice, bob):
    async with await bob.client(alice) as client:
        with pytest.raises(RpcError, match="no method 'nothing'"):
            await client.call("nothing")
