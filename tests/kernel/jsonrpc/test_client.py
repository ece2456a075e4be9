"""The client: many calls on one stream, and nodes that answer badly or not at all."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from skycore.errors import (
    AccessDeniedError,
    RemoteProtocolError,
    RpcError,
    SkycoreError,
    StreamError,
    TooManyRequestsError,
)
from skycore.frames import FrameReader, frame
from skycore.jsonrpc import Client, ErrorCode, connect_control
from skycore.model.keys import PubKey
from skycore.model.limits import RPC_FRAME_MAX
from skycore.testing.streams import MemoryExchange, MemoryStream


def pair():
    exchange = MemoryExchange()
    near, far = (MemoryStream(exchange, b"", PubKey(b"x")) for _ in range(2))
    near.other, far.other = far, near
    return Client(near), far


async def answer(far, **fields):
    await far.send(frame(msgspec.json.encode({"jsonrpc": "2.0", **fields})))


async def test_c55_a_hundred_calls_share_one_stream(net):
    client = await net.client()
    results = {}

    async def one(i):
        results[i] = (await client.call("echo", {"text": str(i)}))["text"]

    async with anyio.create_task_group() as tasks:
        for i in range(100):
            tasks.start_soon(one, i)
    assert results == {i: str(i) for i in range(100)}


async def test_answers_may_come_in_any_order(net, settle):
    client, far = pair()
    got = {}

    async def one(i):
        got[i] = await client.call("m", {"i": i})

    async with anyio.create_task_group() as tasks:
        for i in range(5):
            tasks.start_soon(one, i)
        reader = FrameReader(far, RPC_FRAME_MAX)
        calls = [msgspec.json.decode(await reader.read()) for _ in range(5)]
        for call in (calls[i] for i in (3, 0, 4, 1, 2)):
            await answer(far, id=call["id"], result=call["params"]["i"] * 10)
    assert got == {i: i * 10 for i in range(5)}


async def test_a_cancelled_reader_hands_the_reading_on(settle):
    client, far = pair()
    got = []
    async with anyio.create_task_group() as tasks:
        first = anyio.CancelScope()

        async def reader():
            with first:
                await client.call("one")

        async def other():
            got.append(await client.call("two"))

        tasks.start_soon(reader)
        await settle()
        tasks.start_soon(other)
        await settle()
        first.cancel()
        await settle()
        await answer(far, id=1, result="late")  # of the call that was given up
        await answer(far, id=2, result="two")
    assert got == ["two"]


async def test_a_lost_stream_fails_every_call(settle):
    client, far = pair()
    failed = []

    async def one():
        try:
            await client.call("m")
        except StreamError as lost:
            failed.append(str(lost))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(one)
        await settle()
        await far.aclose()
    assert len(failed) == 5
    with pytest.raises(StreamError):
        await client.call("m")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.ACCESS_DENIED, AccessDeniedError),
        (ErrorCode.TOO_MANY_REQUESTS, TooManyRequestsError),
        (302, RpcError),
        (ErrorCode.METHOD_UNKNOWN, RpcError),
    ],
)
async def test_an_error_is_raised_with_message_and_hint(code, kind):
    client, far = pair()
    await answer(far, id=1, error={"code": code, "message": "no\x1b[2J", "data": {"hint": "h\n"}})
    with pytest.raises(kind) as told:
        await client.call("m")
    assert str(told.value) == "no [2J" and told.value.hint == "h " and told.value.code == code


async def test_an_error_without_an_id_is_about_the_stream():
    client, far = pair()
    await answer(far, id=None, error={"code": -32001, "message": "not authorised"})
    with pytest.raises(AccessDeniedError, match="not authorised"):
        await client.call("m")


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b'{"jsonrpc":"2.0","id":1,"result":1,"result":2}',
        b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"jsonrpc":"2.0","id":1,"error":"no"}',
        b'{"id":1,"result":1}',
        b"[]",
        b"\xff",
    ],
)
async def test_a_bad_answer_is_the_remotes_fault_by_name(body):
    client, far = pair()
    await far.send(frame(body))
    with pytest.raises(RemoteProtocolError):
        await client.call("m")


async def test_an_answer_over_the_limit_is_not_read():
    client, far = pair()
    await far.send((RPC_FRAME_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(RemoteProtocolError, match=str(RPC_FRAME_MAX)):
        await client.call("m")


async def test_an_answer_with_neither_result_nor_error():
    client, far = pair()
    await answer(far, id=1)
    with pytest.raises(RpcError):
        await client.call("m")


async def test_a_null_result_is_a_result():
    client, far = pair()
    await answer(far, id=1, result=None)
    assert await client.call("m") is None


async def test_progress_of_another_call_is_not_ours():
    client, far = pair()
    told = []
    news = {"done": 1, "total": 2, "text": "x"}
    for number in (1, 2, 1):
        await answer(far, method="progress", params=news | {"id": number})
    await answer(far, id=1, result=1)
    assert await client.call("m", progress=lambda *news: told.append(news)) == 1
    assert told == [(1, 2, "x")] * 2


async def test_a_call_over_the_limit_is_not_sent():
    client, _far = pair()
    with pytest.raises(RpcError) as told:
        await client.call("m", {"x": "y" * RPC_FRAME_MAX})
    assert told.value.code == ErrorCode.TOO_BIG


async def test_nothing_follows_a_call_that_was_sent_in_part(settle):
    client, far = pair()
    far._size = 2 * 1024 * 1024  # the buffer is full: the first send waits
    with anyio.move_on_after(0):
        await client.call("m")
    with pytest.raises(StreamError, match="in part"):
        await client.call("m")


@pytest.mark.parametrize("call_id", [None, 1])
async def test_why_a_node_closed_on_a_large_call_is_heard(settle, call_id):
    client, far = pair()
    far._size = 2 * 1024 * 1024  # the node reads no more: our send waits
    failed = []

    async def call():
        try:
            await client.call("m")
        except SkycoreError as why:
            failed.append(type(why))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await settle()
        await answer(far, id=call_id, error={"code": -32001, "message": "not authorised"})
        far.fail("closed")
        client._stream._broken = "reset"
        client._stream._wake()
    assert failed == [AccessDeniedError]


async def test_a_closed_client_says_so():
    client, _far = pair()
    await client.aclose()
    with pytest.raises(StreamError, match="closed"):
        await client.call("m")


async def test_where_no_node_runs_the_hint_says_how_to_start_one(tmp_path):
    with pytest.raises(SkycoreError, match="no node runs on") as told:
        async with connect_control(tmp_path):
            pass
    assert told.value.hint == f"start one with: skynode --data {tmp_path}"
