"""The registry: access before anything else, strict parameters, an explicit list of names."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.contracts.access import Decision, Level
from skycore.contracts.rpc import Caller, RpcContext, RpcMethod
from skycore.errors import (
    AccessDeniedError,
    LocalProtocolError,
    PluginConflictError,
    RpcError,
    SeqTooLowError,
)
from skycore.guards.access import open_access
from skycore.guards.rpc import open_rpc
from skycore.testing.fakes import FakeClock, identity

LOCAL = Caller()
READER, OPERATOR, ADMIN, STRANGER = (
    Caller(identity(name).public) for name in ("reader", "operator", "admin", "stranger")
)
LEVELS = {READER.remote: Level.READ, OPERATOR.remote: Level.OPERATE, ADMIN.remote: Level.ADMIN}


class Inner(msgspec.Struct):
    n: int


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str = ""
    number: int = 0
    inner: Inner | None = None


class Reply(msgspec.Struct):
    seq: str
    raw: bytes
    by_number: dict[int, str]
    pair: tuple[int, int] = (1, 2)


class Listed:
    def decide(self, peer, level):
        held = LEVELS.get(peer)
        return Decision.ALLOW if held is not None and held >= level else Decision.ABSTAIN

    @contextmanager
    def on_change(self, callback):
        yield


class Service:
    def __init__(self, *names):
        self.calls = []

        async def call(params, context):
            self.calls.append((params, context))
            return Reply(str(2**63 - 1), b"\x00\xff", {1: "one"})

        async def fails(params, context):
            raise SeqTooLowError("too low")

        plain = [(f"test.{level.name.lower()}", level) for level in Level]
        self.methods = [RpcMethod(n, lv, Params, Reply, call, "x") for n, lv in plain]
        self.methods += [
            RpcMethod("test.proxy", Level.READ, Params, Reply, call, "x", local_only=True),
            RpcMethod("test.fails", Level.READ, Params, Reply, fails, "x"),
        ]
        self.methods += [RpcMethod(name, Level.READ, Params, Reply, call, "x") for name in names]


@asynccontextmanager
async def registry(*services):
    async with open_access((Listed(),)) as access, open_rpc(services, access, FakeClock()) as rpc:
        yield rpc


@pytest.fixture
def service():
    return Service()


@pytest.fixture
async def rpc(service):
    async with registry(service) as rpc:
        yield rpc


async def test_a_call_returns_plain_json_data(rpc, service):
    result = await rpc.call(LOCAL, "test.read", {"text": "x", "inner": {"n": 1}})
    assert result == {
        "seq": "9223372036854775807",
        "raw": "AP8=",
        "by_number": {"1": "one"},
        "pair": [1, 2],
    }
    ((params, context),) = service.calls
    assert isinstance(params, Params) and params.inner == Inner(1)
    assert isinstance(context, RpcContext) and context.caller is LOCAL


async def test_both_ways_of_calling_give_the_same(rpc):
    text = await rpc.call_json(LOCAL, "test.read", b'{"number":1}')
    assert msgspec.json.decode(text) == await rpc.call(LOCAL, "test.read", {"number": 1})


@pytest.mark.parametrize(
    ("caller", "allowed"),
    [
        (LOCAL, {"read", "operate", "admin"}),
        (ADMIN, {"read", "operate", "admin"}),
        (OPERATOR, {"read", "operate"}),
        (READER, {"read"}),
        (STRANGER, set()),
    ],
)
async def test_r8_a_caller_reaches_what_his_level_includes(rpc, service, caller, allowed):
    reached = set()
    for level in ("read", "operate", "admin"):
        try:
            await rpc.call(caller, f"test.{level}", {})
            reached.add(level)
        except AccessDeniedError as denied:
            assert denied.hint
    assert reached == allowed and len(service.calls) == len(allowed)


async def test_r1_a_stranger_gets_one_answer_whatever_he_asks(rpc, service, caplog):
    told = set()
    for method in (*(m.name for m in rpc.methods()), "no.such.method", "__class__"):
        with pytest.raises(AccessDeniedError) as denied:
            await rpc.call_json(STRANGER, method, b"\xff not json: nothing decodes this")
        told.add((str(denied.value), denied.value.hint))
    assert len(told) == 1 and not service.calls
    assert STRANGER.remote.hex() in told.pop()[1]
    assert f"rpc refused peer={STRANGER.remote[:4].hex()}" in caplog.text


async def test_access_is_judged_before_parameters_are_decoded(rpc):
    with pytest.raises(AccessDeniedError):
        await rpc.call_json(READER, "test.admin", b"not even json")
    with pytest.raises(AccessDeniedError):
        await rpc.call(READER, "test.admin", {"unknown": 1})


async def test_r6_a_proxy_is_for_local_callers_whatever_the_level(rpc, service):
    for caller in (READER, OPERATOR, ADMIN):
        with pytest.raises(AccessDeniedError):
            await rpc.call(caller, "test.proxy", {})
    await rpc.call(LOCAL, "test.proxy", {})
    assert len(service.calls) == 1


@pytest.mark.parametrize(
    "name",
    ["__class__", "_private", "methods", "call", "test", "test.read.x", "", "x" * 10_000, "a\nb"],
)
async def test_r9_only_listed_names_can_be_called(rpc, name):
    with pytest.raises(RpcError) as unknown:
        await rpc.call(LOCAL, name, {})
    assert unknown.value.code == -32601 and len(str(unknown.value)) < 200


@pytest.mark.parametrize(
    "params",
    [
        {"unknown": 1},
        {"text": 1},
        {"number": "1"},
        {"number": True},
        {"number": 1.0},
        {"number": None},
        {"inner": {"m": 1}},
        [1],
        "text",
        7,
    ],
)
async def test_j7_parameters_that_do_not_fit_are_refused(rpc, service, params):
    for call in (
        lambda: rpc.call(LOCAL, "test.read", params),
        lambda: rpc.call_json(LOCAL, "test.read", msgspec.json.encode(params)),
    ):
        with pytest.raises(RpcError) as bad:
            await call()
        assert bad.value.code == -32602 and bad.value.hint
    assert not service.calls


@given(st.binary(max_size=60))
async def test_j12_any_bytes_as_parameters_are_a_call_or_a_named_error(body):
    async with registry(Service()) as rpc:
        try:
            await rpc.call_json(LOCAL, "test.read", body)
        except RpcError as bad:
            assert bad.code == -32602


async def test_an_error_of_the_method_passes_as_it_is(rpc):
    with pytest.raises(SeqTooLowError):
        await rpc.call(LOCAL, "test.fails", {})


async def test_no_parameters_are_empty_ones(rpc, service):
    await rpc.call(LOCAL, "test.read", None)
    assert service.calls[0][0] == Params()


async def test_two_plugins_with_one_name_stop_the_start():
    with pytest.raises(PluginConflictError, match=r"twice\.named"):
        async with registry(Service("twice.named"), Other("twice.named")):
            pass


async def test_the_registrys_own_name_is_taken():
    with pytest.raises(PluginConflictError, match=r"rpc\.methods"):
        async with registry(Service("rpc.methods")):
            pass


class Other:
    def __init__(self, name, params=Params):
        async def call(params, context):
            return None

        self.methods = [RpcMethod(name, Level.READ, params, object, call, "x")]


class AsArray(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    n: int = 0


class Forgetful(msgspec.Struct):
    n: int = 0


@pytest.mark.parametrize("params", [dict, AsArray, Forgetful, int])
async def test_params_must_be_a_struct_that_refuses_what_it_does_not_know(params):
    with pytest.raises(LocalProtocolError, match=r"x\.y"):
        async with registry(Other("x.y", params)):
            pass


async def test_every_method_can_be_listed(rpc):
    rows = await rpc.call(READER, "rpc.methods", {})
    assert [r["name"] for r in rows] == sorted(m.name for m in rpc.methods())
    proxy = next(r for r in rows if r["name"] == "test.proxy")
    assert proxy == {"name": "test.proxy", "level": "read", "summary": "x", "local_only": True}


async def test_f25_refusals_do_not_flood_the_log_nor_forge_lines(rpc, caplog):
    caplog.set_level(logging.WARNING)
    for _ in range(1_000):
        with pytest.raises(AccessDeniedError):
            await rpc.call(STRANGER, "a\nrpc refused peer=forged", {})
    assert len(caplog.records) == 20
    assert all("\n" not in record.getMessage() for record in caplog.records)
