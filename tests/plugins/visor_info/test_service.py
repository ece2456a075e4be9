"""Overview, Health and Summary."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from skycore import Live
from skycore.contracts.rpc import Caller, RpcContext
from skycore.contracts.runtime import NodeInfo
from skycore.contracts.status import Health, Status
from skycore.errors import StoreError
from skycore.testing.contracts.rpc import RpcServiceContract
from skycore.testing.fakes import AlwaysReady, FakeClock, identity
from skycore.testing.links import linked_transports
from visor_info.service import open_info
from visor_info.settings import VisorInfoSettings

ALICE, BOB = identity("alice"), identity("bob")
INFO = NodeInfo("visor", ("one", "two"), "1.2.3", "testnet")
CONTEXT = RpcContext(Caller())


class Part:
    def __init__(self, name, health=Health.OK, summary="fine", fields=None):
        self.name = name
        self._status = Status(health, summary, fields or {})

    async def status(self):
        return self._status


class Failing:
    def __init__(self, name, error):
        self.name = name
        self._error = error

    async def status(self):
        raise self._error


class Hanging:
    name = "hanging"

    async def status(self):
        await anyio.sleep_forever()


@asynccontextmanager
async def running(*parts, transports=None, clock=None, **settings):
    async with open_info(
        VisorInfoSettings(**settings),
        INFO,
        ALICE,
        clock or FakeClock(),
        AlwaysReady(),
        Live(list(parts)),
        transports,
    ) as service:
        methods = {m.name: m for m in service.methods}

        async def call(name):
            method = methods[name]
            told = await method.call(method.params(), CONTEXT)
            return msgspec.json.decode(msgspec.json.encode(told))

        yield call


class TestMethods(RpcServiceContract):
    @pytest.fixture
    async def service(self):
        async with open_info(
            VisorInfoSettings(), INFO, ALICE, FakeClock(), AlwaysReady(), Live([]), None
        ) as service:
            yield service


async def test_overview_says_what_the_node_is():
    clock = FakeClock()
    async with running(clock=clock) as call:
        clock.advance(61.04)
        assert await call("Overview") == {
            "public_key": ALICE.public.hex(),
            "version": "1.2.3",
            "network": "testnet",
            "profile": "visor",
            "plugins": ["one", "two"],
            "uptime_s": 61.0,
            "ready": True,
            "listening": [],
            "transport_count": 0,
            "transports": [],
        }


async def test_overview_lists_live_transports():
    async with linked_transports(ALICE.public, BOB.public) as (alice, _):
        link = await alice.ensure(BOB.public)
        async with running(transports=alice) as call:
            (row,) = (await call("Overview"))["transports"]
    assert row["id"] == str(link.id)
    assert (row["remote"], row["type"], row["label"]) == (
        BOB.public.hex(),
        link.type,
        "ephemeral",
    )


@pytest.mark.parametrize(
    ("healths", "worst"),
    [
        ([], "ok"),
        ([Health.OK, Health.OK], "ok"),
        ([Health.OK, Health.DEGRADED], "degraded"),
        ([Health.DEGRADED, Health.DOWN, Health.OK], "down"),
    ],
)
async def test_health_is_that_of_the_worst_part(healths, worst):
    parts = [Part(f"part{i}", health, f"words {i}") for i, health in enumerate(healths)]
    async with running(*parts) as call:
        told = await call("Health")
    assert told["health"] == worst
    assert [p["name"] for p in told["parts"]] == [p.name for p in parts]
    bad = [f"part{i}: words {i}" for i, h in enumerate(healths) if h is not Health.OK]
    assert told["reasons"] == bad


async def test_a_part_that_fails_or_hangs_is_said_and_hides_no_other():
    parts = (
        Part("well"),
        Failing("store", StoreError("the disk is full")),
        Failing("buggy", KeyError("x")),
        Hanging(),
    )
    async with running(*parts, status_timeout_s=0.01) as call:
        told = await call("Health")
    words = {p["name"]: (p["health"], p["summary"]) for p in told["parts"]}
    assert words == {
        "well": ("ok", "fine"),
        "store": ("down", "the disk is full"),
        "buggy": ("down", "asking it failed: KeyError"),
        "hanging": ("degraded", "did not answer within 0.01 s"),
    }
    assert told["health"] == "down"


async def test_summary_is_everything():
    parts = Part("b", fields={"items": 3}), Part("a", Health.DEGRADED, "starting")
    async with running(*parts) as call:
        told = await call("Summary")
        assert told["overview"] == await call("Overview")
        assert told["health"] == await call("Health")
    assert told["parts"] == [
        {"name": "a", "health": "degraded", "summary": "starting", "fields": {}},
        {"name": "b", "health": "ok", "summary": "fine", "fields": {"items": 3}},
    ]


async def test_a_part_that_stops_is_not_asked_any_more():
    up = [Part("one"), Part("two")]
    async with open_info(
        VisorInfoSettings(), INFO, ALICE, FakeClock(), AlwaysReady(), Live(up), None
    ) as service:
        health = next(m for m in service.methods if m.name == "Health")
        up.pop()
        told = await health.call(health.params(), CONTEXT)
    assert [p.name for p in told.parts] == ["one"]
