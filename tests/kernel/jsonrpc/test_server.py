"""The server: answers, order, bounds, and callers that misbehave or go away."""

from __future__ import annotations

import logging
import struct

import anyio
import msgspec
import pytest

from skycore.errors import AccessDeniedError, RpcError
from skycore.frames import FrameReader, frame
from skycore.jsonrpc import ErrorCode, ServerLimits
from skycore.model.limits import RPC_FRAME_MAX
from skycore.testing.fakes import identity
from skycore.testing.loop import sim_backend
from skycore.testing.streams import MemoryStream

BOB = identity("bob").public


@pytest.fixture
def anyio_backend():
    return sim_backend()


def call(call_id=1, method="echo", **params):
    return frame(
        msgspec.json.encode({"jsonrpc": "2.0", "id": call_id, "method": method, "params": params})
    )


async def answers(stream, count=1):
    reader = FrameReader(stream, RPC_FRAME_MAX)
    return [msgspec.json.decode(await reader.read()) for _ in range(count)]


async def test_a_call_is_answered(net):
    stream = await net.stream()
    await stream.send(call(7, text="hello"))
    assert await answers(stream) == [
        {"jsonrpc": "2.0", "id": 7, "result": {"text": "hello", "caller": "remote"}}
    ]


async def test_an_id_may_be_text_and_comes_back_as_it_was(net):
    stream = await net.stream()
    await stream.send(call('a"b', text="x"))
    assert (await answers(stream))[0]["id"] == 'a"b'


async def test_f5_a_call_may_come_byte_by_byte(net):
    stream = await net.stream()
    for byte in call(text="x") + call(2, text="y"):
        await stream.send(bytes((byte,)))
    assert [a["id"] for a in await answers(stream, 2)] == [1, 2]


async def test_many_calls_in_one_write_are_answered_in_order(net):
    stream = await net.stream()
    await stream.send(b"".join(call(i, text=str(i)) for i in range(100)))
    assert [a["id"] for a in await answers(stream, 100)] == list(range(100))


async def test_a_call_that_waits_does_not_hold_up_later_ones(net):
    stream = await net.stream()
    await stream.send(call(1, "slow", text="late") + call(2, text="early") + call(3, "slow"))
    assert [a["id"] for a in await answers(stream)] == [2]
    net.methods.gate.set()
    assert sorted(a["id"] for a in await answers(stream, 2)) == [1, 3]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", ErrorCode.PARSE),
        (b'{"jsonrpc":"2.0","id":1,"method":"echo","method":"slow"}', ErrorCode.PARSE),
        (b"[" * 100 + b"]" * 100, ErrorCode.PARSE),
        (b"\xff", ErrorCode.PARSE),
        (b"[]", ErrorCode.INVALID_REQUEST),
        (b'{"id":1,"method":"echo"}', ErrorCode.INVALID_REQUEST),
        (b'{"jsonrpc":"1.0","id":1,"method":"echo"}', ErrorCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","method":"echo"}', ErrorCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":null,"method":"echo"}', ErrorCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":true,"method":"echo"}', ErrorCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1.0,"method":"echo"}', ErrorCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":-1,"method":"echo"}', ErrorCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', ErrorCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":"echo","extra":1}', ErrorCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":"nothing"}', ErrorCode.METHOD_UNKNOWN),
        (b'{"jsonrpc":"2.0","id":1,"method":"echo","params":[1]}', ErrorCode.INVALID_PARAMS),
        (b'{"jsonrpc":"2.0","id":1,"method":"echo","params":null}', ErrorCode.INVALID_PARAMS),
        (b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"x":1}}', ErrorCode.INVALID_PARAMS),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"number":true}}',
            ErrorCode.INVALID_PARAMS,
        ),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"number":1.0}}',
            ErrorCode.INVALID_PARAMS,
        ),
    ],
)
async def test_a_bad_call_gets_a_named_error_and_the_stream_lives(net, body, code):
    stream = await net.stream()
    await stream.send(frame(body) + call(2))
    bad, good = await answers(stream, 2)
    assert bad["error"]["code"] == code
    assert bad["error"]["message"]
    assert good["id"] == 2 and "result" in good


@pytest.mark.parametrize("size", [0, RPC_FRAME_MAX + 1, 2**32 - 1])
async def test_f1_a_frame_of_a_wrong_size_is_named_and_ends_the_stream(net, size):
    stream = await net.stream()
    await stream.send(struct.pack(">I", size))
    reader = FrameReader(stream, RPC_FRAME_MAX)
    answer = msgspec.json.decode(await reader.read())
    assert str(size) in answer["error"]["message"] and answer["id"] is None
    assert await reader.read() is None
    assert net.server.malformed.count == 1


async def test_f2_a_call_cut_anywhere_leaves_nothing_behind(net, settle):
    whole = call(text="hello")
    for at in range(len(whole)):
        stream = await net.stream()
        await stream.send(whole[:at])
        await stream.aclose()
    await settle()
    assert net.server.streams == 0 and net.methods.entered == 0


async def test_r13_a_caller_that_goes_away_ends_its_calls(net, settle):
    streams = [await net.stream() for _ in range(3)]
    for stream in streams:
        await stream.send(call(1, "slow") + call(2, "slow"))
    await settle()
    assert net.methods.running == 6
    for stream in streams:
        await stream.aclose()
    await settle()
    assert net.methods.running == 0 and net.methods.cancelled == 6
    assert net.server.streams == 0


async def test_r13_also_when_its_transport_is_lost(net, settle):
    stream = await net.stream()
    await stream.send(call(1, "slow"))
    await settle()
    stream.other.fail("the transport is lost")
    await settle()
    assert net.methods.cancelled == 1 and net.server.streams == 0


async def test_r14_a_bug_in_a_method_shows_nothing_of_it(net, caplog):
    caplog.set_level(logging.ERROR)
    stream = await net.stream()
    await stream.send(call(1, "bug"))
    (answer,) = await answers(stream)
    assert answer["error"]["code"] == ErrorCode.INTERNAL
    assert "secret" not in str(answer) and "/home" not in str(answer)
    assert "Traceback" not in str(answer)
    assert "rpc method failed method='bug'" in caplog.text


async def test_r14_no_path_in_an_error_for_remote_callers(net):
    remote = await net.client()
    with pytest.raises(RpcError) as told:
        await remote.call("refuses")
    assert str(told.value) == "cannot open (path)" and told.value.hint == "see (path)"
    local = await net.client(caller=None)
    with pytest.raises(RpcError) as told:
        await local.call("refuses")
    assert str(told.value) == "cannot open /home/alice/items.db"


async def test_an_error_keeps_its_number_and_hint(net):
    client = await net.client()
    with pytest.raises(RpcError) as told:
        await client.call("seq_low")
    assert (told.value.code, told.value.hint) == (302, "read it again")


async def test_r11_sixteen_run_at_once_and_the_rest_wait(net, settle):
    clients = [await net.client() for _ in range(100)]
    results = []
    async with anyio.create_task_group() as tasks:

        async def one(client, i):
            results.append(await client.call("slow", {"text": str(i)}))

        for i, client in enumerate(clients):
            tasks.start_soon(one, client, i)
        await settle()
        assert net.methods.running == 16
        net.methods.gate.set()
    assert sorted(results, key=int) == [str(i) for i in range(100)]
    assert net.methods.running_most == 16


async def test_r11_a_thousand_at_once_are_too_many(net, settle):
    stream = await net.stream()
    other = await net.stream(caller=None)
    await stream.send(b"".join(call(i, "slow") for i in range(1_000)))
    refused = await answers(stream, 1_000 - 256)
    assert {a["error"]["code"] for a in refused} == {ErrorCode.TOO_MANY_REQUESTS}
    assert net.methods.running == 16
    await other.send(call(1))
    assert "result" in (await answers(other))[0]  # another caller notices nothing
    net.methods.gate.set()
    assert all("result" in a for a in await answers(stream, 256))


async def test_r11_many_calls_leave_nothing_behind(net, settle):
    for _ in range(500):
        async with await net.client() as client:
            await client.call("echo")
    await settle()
    assert net.server.streams == 0 and net.server.callers() == []
    assert net.server.calls == 500


async def test_a_call_that_waits_for_its_turn_can_be_cancelled(serving, settle):
    async with serving(ServerLimits(running_max=1)) as net:
        first, second, third = [await net.stream() for _ in range(3)]
        for stream in (first, second, third):
            await stream.send(call(1, "slow"))
            await settle()
        await second.aclose()
        await settle()
        assert net.methods.entered == 1
        await first.aclose()
        await settle()
        assert net.methods.entered == 2 and net.methods.running == 1
        net.methods.gate.set()
        assert "result" in (await answers(third))[0]


async def test_one_caller_holds_a_bounded_number_of_bytes(serving, settle):
    async with serving(ServerLimits(held_bytes_max=100_000)) as net:
        streams = [await net.stream() for _ in range(4)]
        for stream in streams:
            await stream.send(struct.pack(">I", 90_000) + b"x" * 40_000)
            await settle()
        (answer,) = await answers(streams[2])
        assert answer["error"]["code"] == ErrorCode.TOO_MANY_REQUESTS
        assert net.server.streams == 2
        for stream in streams:
            await stream.aclose()
        await settle()
        async with await net.client() as client:
            assert await client.call("echo", {"text": "x" * 90_000})


async def test_f7_a_stream_without_a_whole_call_is_closed(serving, settle):
    async with serving(ServerLimits(quiet_s=60)) as net:
        silent, trickling, working = [await net.stream() for _ in range(3)]
        await working.send(call(1, "slow"))
        await trickling.send(struct.pack(">I", 100))
        for _ in range(7):
            await settle()
            net.clock.advance(10)
            await trickling.send(b"x")  # bytes do not buy time
            if net.clock.now() <= 60:
                assert net.server.hang_up_quiet() == 0
        assert net.server.hang_up_quiet() == 2
        await settle()
        assert await silent.receive() == b""
        assert net.server.streams == 1  # the one that works
        net.methods.gate.set()
        assert "result" in (await answers(working))[0]


async def test_f11_an_answer_that_nobody_reads_is_given_up(serving, settle):
    async with serving(ServerLimits(quiet_s=60)) as net:
        stream = await net.stream()
        await stream.send(call(1, "big", number=3 * 2**20))
        await settle()
        net.clock.advance(61)
        assert net.server.hang_up_quiet() == 1
        await settle()
        assert net.server.streams == 0


async def test_f11_no_call_is_begun_for_a_caller_that_reads_no_answers(serving, settle):
    limits = ServerLimits(running_max=2, unsent_bytes_max=2**20)
    async with serving(limits) as net:
        stream, other = await net.stream(), await net.client(caller=None)
        net.methods.gate.set()
        for i in range(10):
            await stream.send(call(i, "slow", text="x" * 2**20))
        await settle()
        assert net.methods.entered <= 3
        assert await other.call("echo")
        assert len(await answers(stream, 10)) == net.methods.entered == 10


async def test_an_answer_too_big_for_a_frame_is_an_error(net):
    client = await net.client()
    with pytest.raises(RpcError) as told:
        await client.call("big", {"number": RPC_FRAME_MAX})
    assert told.value.code == ErrorCode.TOO_BIG
    assert await client.call("echo")


async def test_until_every_part_is_up_it_says_so(net):
    net.lifecycle.ready = False
    client = await net.client(caller=None)
    with pytest.raises(RpcError, match="still starting") as told:
        await client.call("echo")
    assert told.value.code == ErrorCode.STARTING
    net.lifecycle.ready = True
    assert await client.call("echo")


async def test_r5_hanging_up_cuts_streams_and_calls(net, settle):
    stream = await net.stream()
    idle = await net.stream()
    local = await net.stream(caller=None)
    await stream.send(call(1, "slow"))
    await local.send(call(1, "slow"))
    await settle()
    (remote,) = net.server.callers()
    assert net.server.hang_up(remote) == 2
    await settle()
    assert net.methods.running == 1 and net.server.callers() == []
    assert await stream.receive() == b"" and await idle.receive() == b""
    assert net.server.hang_up(remote) == 0


async def test_refusing_answers_with_the_calls_id_and_runs_nothing(net):
    near, far = (MemoryStream(net.exchange, b"", BOB) for _ in range(2))
    near.other, far.other = far, near
    await near.send(call(9, "slow"))
    await net.server.refuse(far, AccessDeniedError("no", hint="ask"))
    (answer,) = await answers(near)
    assert answer == {
        "jsonrpc": "2.0",
        "id": 9,
        "error": {"code": -32001, "message": "no", "data": {"hint": "ask"}},
    }
    assert await near.receive() == b"" and net.methods.entered == 0


async def test_progress_is_told_and_cannot_paint_the_screen(net):
    client = await net.client()
    told = []
    assert await client.call("working", progress=lambda *news: told.append(news)) == "worked"
    assert told and told[-1][:2] == (3, 3)
    assert [n[0] for n in told] == sorted(n[0] for n in told)
    assert all(text.isprintable() for _, _, text in told)


async def test_f25_malformed_calls_do_not_flood_the_log(net, caplog):
    stream = await net.stream()
    await stream.send(frame(b"{") * 500)
    await answers(stream, 500)
    lines = [r for r in caplog.records if "malformed" in r.getMessage()]
    assert len(lines) == 20 and net.server.malformed.count == 500
    net.clock.advance(1)
    await stream.send(frame(b"{"))
    await answers(stream)
    assert "kept_back=480" in caplog.text
