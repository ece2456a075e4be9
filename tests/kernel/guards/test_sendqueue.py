from __future__ import annotations

import random

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.errors import LocalProtocolError
from skycore.guards.sendqueue import BATCH_MAX, SendQueue
from skycore.model.limits import PACKET_PAYLOAD_MAX, TRANSPORT_QUEUE_MAX
from skycore.model.packets import PacketParser


def everything(queue):
    data = b""
    while queue.unsent:
        batch = queue.take()
        data += batch
        queue.sent(len(batch))
    return list(PacketParser().feed(data))


@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_packets_come_out_whole_and_in_order_whatever_overtakes(dice: random.Random, count):
    queue, put, got = SendQueue(), [], []
    parser = PacketParser()
    for n in range(count):
        if dice.random() < 0.3:
            queue.put_urgent(8, b"ping")
        payload = bytes((n,)) * dice.choice((0, 1, 16_384, PACKET_PAYLOAD_MAX))
        queue.put(12, payload)
        put.append(payload)
        if dice.random() < 0.4:
            batch = queue.take()
            assert len(batch) <= BATCH_MAX + 2 * PACKET_PAYLOAD_MAX
            queue.sent(len(batch))
            got += parser.feed(batch)
    got += everything(queue)
    assert [payload for kind, _, payload in got if kind == 12] == put
    assert all(payload == b"ping" for kind, _, payload in got if kind == 8)
    assert queue.unsent == 0


def test_control_packets_overtake():
    queue = SendQueue()
    for _ in range(100):
        queue.put(12, bytes(16_384))
    queue.put_urgent(9, bytes(8))
    assert queue.take()[0] == 9


def test_says_when_it_is_too_full():
    queue = SendQueue()
    while queue.put(12, bytes(16_384)):
        assert queue.unsent <= TRANSPORT_QUEUE_MAX
    assert queue.unsent > TRANSPORT_QUEUE_MAX
    assert not queue.put_urgent(9, bytes(8))


def test_an_oversize_packet_is_our_own_mistake():
    with pytest.raises(LocalProtocolError):
        SendQueue().put(12, bytes(PACKET_PAYLOAD_MAX + 1))


async def test_waits_for_calm():
    queue = SendQueue()
    await queue.wait_calm()
    while queue.unsent < TRANSPORT_QUEUE_MAX // 2:
        queue.put(12, bytes(16_384))
    calm = []

    async def wait():
        await queue.wait_calm()
        calm.append(queue.unsent)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        while not calm:
            batch = queue.take()
            queue.sent(len(batch))
            await anyio.wait_all_tasks_blocked()
    assert calm[0] < TRANSPORT_QUEUE_MAX // 4
