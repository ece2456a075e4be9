"""RPC over real VStreams: what windows, resets and a shared transport do to it."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest

from skycore.contracts.access import Level
from skycore.errors import AccessDeniedError, StreamError
from skycore.testing.fakes import FakeClock, identity
from skycore.testing.links import linked_transports
from streams_vstream.service import open_vstream
from streams_vstream.settings import VStreamSettings


@pytest.fixture
async def nodes(peer):
    """Alice serves bob; carol is on nobody's list."""
    names = ("alice", "bob", "carol")
    async with (
        linked_transports(*(identity(name).public for name in names)) as transports,
        AsyncExitStack() as stack,
    ):
        nodes = []
        for name, own in zip(names, transports, strict=True):
            streams = await stack.enter_async_context(
                open_vstream(VStreamSettings(), own, FakeClock())
            )
            levels = {"bob": Level.READ} if name == "alice" else {}
            node = await stack.enter_async_context(peer(None, name, streams=streams, **levels))
            node.transports = own
            nodes.append(node)
        yield nodes


@pytest.mark.parametrize("size", [0, 70_000, 3_000_000])
async def test_m10_a_refusal_is_heard_whatever_the_size_of_the_call(nodes, size):
    alice, bob, carol = nodes
    assert await bob.tp_rpc(alice, "echo", {"text": "x" * size}) == "x" * size
    with pytest.raises(AccessDeniedError, match="whitelist"):
        await carol.tp_rpc(alice, "echo", {"text": "x" * size})
    assert alice.methods.callers == [bob.key]


async def test_m11_a_hundred_calls_share_one_transport(nodes, settle):
    alice, bob, _ = nodes
    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(bob.tp_rpc, alice, "slow")
        await settle(500)
        assert alice.served.server.streams == 100 and alice.methods.running == 16
        alice.methods.gate.set()
    assert bob.transports.dials == 1
    await settle()
    assert alice.served.server.streams == 0


async def test_r5_a_removed_key_is_cut_off(nodes, settle):
    alice, bob, _ = nodes
    failed = []

    async def call():
        try:
            await bob.tp_rpc(alice, "slow")
        except StreamError as cut:
            failed.append(cut)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await settle()
        assert alice.methods.running == 1
        alice.policy.remove("bob")
    assert failed and alice.methods.running == 0 and alice.served.server.streams == 0


async def test_r13_giving_up_a_call_cancels_it_over_there(nodes, settle):
    alice, bob, _ = nodes
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bob.tp_rpc, alice, "slow")
        await settle()
        assert alice.methods.running == 1
        tasks.cancel_scope.cancel()
    await settle()
    assert alice.methods.running == 0
