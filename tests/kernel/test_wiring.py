"""Wiring: needs decide the order, the order of a list decides nothing, and mistakes have names."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.errors import (
    AmbiguousProviderError,
    DependencyCycleError,
    MissingProviderError,
    WiringError,
)
from skycore.wiring import Live, Provider, make_plan, running


class Store(Protocol):
    pass


class Gate(Protocol):
    pass


class Dht(Protocol):
    pass


class Carrier(Protocol):
    pass


class Source(Protocol):
    pass


class Clock(Protocol):
    pass


class Diary(list):
    """Notes who starts and stops; makes factories that do."""

    def part(self, name, fail=None):
        @asynccontextmanager
        async def lifetime():
            self.append(f"+{name}")
            yield name
            self.append(f"-{name}")
            if fail:
                raise fail

        return lifetime()

    def providers(self):
        """A node in small: the DHT speaks over carriers, and one carrier is found by the DHT."""
        diary = self

        def open_store(clock: Clock):
            return diary.part("store")

        def open_gate(store: Store):
            return diary.part("gate")

        def open_tcp(clock: Clock):
            return diary.part("tcp")

        def open_relay(sources: Live[Source]):
            return diary.part("relay")

        def open_dht(gate: Gate, carriers: tuple[Carrier, ...], hint: Source | None):
            assert carriers == ("relay", "tcp")
            assert hint is None or hint == "http"
            return diary.part("dht")

        def open_report(dht: Dht | None, live: Live[Carrier]):
            return diary.part("report")

        return [
            Provider(Store, open_store, "store_plugin", on_demand=True),
            Provider(Gate, open_gate, "gate", on_demand=True),
            Provider(Carrier, open_tcp, "tcp_plugin"),
            Provider(Carrier, open_relay, "relay_plugin"),
            Provider(Dht, open_dht, "dht_plugin"),
            Provider(object, open_report, "report_plugin"),
        ]


GIVEN = {Clock: "clock"}
FULL = ["relay", "store", "tcp", "gate", "dht", "report"]


def names(plan):
    return [p.name for p in plan.order]


async def test_parts_start_by_need_and_stop_in_reverse():
    diary = Diary()
    plan = make_plan(diary.providers(), GIVEN)
    async with running(plan, GIVEN) as up:
        assert sorted(diary) == sorted(f"+{n}" for n in FULL)
        started = [line[1:] for line in diary]
        assert started.index("store") < started.index("gate") < started.index("dht")
        assert max(started.index("tcp"), started.index("relay")) < started.index("dht")
        assert started.index("dht") < started.index("report")
        assert up[Dht] == ["dht"]
        diary.clear()
    assert [line[1:] for line in diary] == started[::-1]


@given(seed=st.integers())
def test_c55_the_order_of_the_list_changes_nothing(seed):
    providers = Diary().providers()
    expected = names(make_plan(providers, GIVEN))
    random.Random(seed).shuffle(providers)
    assert names(make_plan(providers, GIVEN)) == expected


def test_on_demand_is_planned_only_if_needed():
    providers = [p for p in Diary().providers() if p.contract in (Store, Gate, Carrier)]
    assert names(make_plan(providers, GIVEN)) == ["relay_plugin.open_relay", "tcp_plugin.open_tcp"]


async def test_maybe_is_none_where_there_is_none_and_all_may_be_empty():
    seen = []

    @asynccontextmanager
    async def open_alone(dht: Dht | None, carriers: tuple[Carrier, ...], live: Live[Carrier]):
        seen.extend([dht, carriers, list(live), len(live)])
        yield None

    plan = make_plan([Provider(object, open_alone, "p")], {})
    async with running(plan, {}):
        assert seen == [None, (), [], 0]


async def test_live_sees_parts_come_and_go_and_orders_nothing():
    seen = {}

    @asynccontextmanager
    async def open_early(sources: Live[Source]):
        seen["live"] = sources
        seen["at start"] = list(sources)
        yield "early"
        seen["at stop"] = list(sources)

    @asynccontextmanager
    async def open_late(dht: Dht):
        yield "late"
        seen["when late stops"] = list(seen["live"])

    plan = make_plan([Provider(Dht, open_early, "a"), Provider(Source, open_late, "b")], {})
    async with running(plan, {}):
        assert list(seen["live"]) == ["late"]
    assert seen["at start"] == seen["at stop"] == seen["when late stops"] == []


async def test_equal_parts_are_not_confused_when_they_leave():
    here = []

    def provider(plugin):
        @asynccontextmanager
        async def open_same(live: Live[Carrier]):
            here.append(live)
            yield (1, plugin == plugin)

        return Provider(Carrier, open_same, plugin)

    async with running(make_plan([provider("a"), provider("b")], {}), {}):
        assert len(here[0]) == 2
    assert len(here[0]) == 0


def test_a_given_value_wins_over_providers():
    @asynccontextmanager
    async def open_x(clock: Clock):
        yield None

    @asynccontextmanager
    async def open_clock():
        yield None

    providers = [Provider(object, open_x, "x"), Provider(Clock, open_clock, "c")]
    plan = make_plan(providers, GIVEN)
    assert [n.form for n in plan.needs[providers[0]].values()] == ["given"]


def test_a_missing_provider_is_named_with_a_hint():
    providers = [p for p in Diary().providers() if p.contract is not Store]
    with pytest.raises(MissingProviderError, match=r"gate\.open_gate needs Store") as caught:
        make_plan(providers, GIVEN, hint_for=lambda contract: f"add a {contract.__name__}")
    assert caught.value.hint == "add a Store"


def test_two_stores_are_a_mistake_to_report():
    def open_other_store():
        raise AssertionError

    providers = [*Diary().providers(), Provider(Store, open_other_store, "other_plugin")]
    with pytest.raises(AmbiguousProviderError, match="one Store; other_plugin, store_plugin"):
        make_plan(providers, GIVEN)


def test_a_cycle_is_named_whole():
    def open_relay(sources: tuple[Source, ...]):
        raise AssertionError

    def open_source(dht: Dht):
        raise AssertionError

    def open_dht(carriers: tuple[Carrier, ...]):
        raise AssertionError

    providers = [
        Provider(Carrier, open_relay, "relay"),
        Provider(Source, open_source, "finder"),
        Provider(Dht, open_dht, "dht_plugin"),
    ]
    with pytest.raises(DependencyCycleError) as caught:
        make_plan(providers, GIVEN)
    for name in ("relay.open_relay", "finder.open_source", "dht_plugin.open_dht"):
        assert name in str(caught.value)
    assert "Live" in caught.value.hint


def test_the_same_circle_through_live_is_none():
    def open_source(dht: Dht):
        raise AssertionError

    providers = [p for p in Diary().providers() if p.plugin != "dht_plugin"]

    def open_dht(carriers: tuple[Carrier, ...]):
        raise AssertionError

    providers += [Provider(Dht, open_dht, "d"), Provider(Source, open_source, "s")]
    order = names(make_plan(providers, GIVEN))
    assert order.index("relay_plugin.open_relay") < order.index("d.open_dht")
    assert order.index("d.open_dht") < order.index("s.open_source")


@pytest.mark.parametrize("annotation", [Store, Store | None, tuple[Store, ...], Live[Store]])
def test_a_private_contract_is_refused_in_every_form(annotation):
    def open_thief(store):
        raise AssertionError

    open_thief.__annotations__["store"] = annotation
    thief = Provider(object, open_thief, "thief")
    with pytest.raises(WiringError, match=r"thief\.open_thief asks for Store, which only gate"):
        make_plan([*Diary().providers(), thief], GIVEN, private={Store: "gate"})
    make_plan(Diary().providers(), GIVEN, private={Store: "gate"})


def test_annotations_that_cannot_be_read_are_named():
    def open_bare(store):
        raise AssertionError

    def open_unknown(store):
        raise AssertionError

    open_unknown.__annotations__["store"] = "NobodyImportedThis"
    with pytest.raises(WiringError, match="'store' has no annotation"):
        make_plan([Provider(object, open_bare, "p")], {})
    with pytest.raises(WiringError, match="NobodyImportedThis") as caught:
        make_plan([Provider(object, open_unknown, "p")], {})
    assert "run time" in caught.value.hint


# --- errors and where they came from --------------------------------------------------------------


def leaves(error, notes=()):
    """Yield (innermost error, notes of it and of every group around it)."""
    notes = [*notes, *getattr(error, "__notes__", ())]
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner, notes)
    else:
        yield error, notes


def layered(crash_in=""):
    """Three parts, each with a task group; one may crash after a second."""

    async def work(name):
        await anyio.sleep(0.001)
        if name == crash_in:
            raise OSError("it broke")
        await anyio.sleep_forever()

    def provider(contract, name, need):
        @asynccontextmanager
        async def open_part(below):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work, name)
                yield name
                tasks.cancel_scope.cancel()

        open_part.__wrapped__.__annotations__["below"] = need
        return Provider(contract, open_part, name)

    return [
        provider(Store, "bottom", Clock),
        provider(Gate, "middle", Store),
        provider(Dht, "top", Gate),
    ]


@pytest.mark.parametrize("culprit", ["bottom", "middle", "top"])
async def test_a_crash_ends_everything_and_names_its_plugin_alone(culprit):
    plan = make_plan(layered(culprit), GIVEN)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running(plan, GIVEN):
            await anyio.sleep_forever()
    assert [(type(e), notes) for e, notes in leaves(caught.value)] == [
        (OSError, [f"in plugin {culprit}"])
    ]


async def test_an_error_of_the_embedder_is_no_plugins():
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running(make_plan(layered(), GIVEN), GIVEN):
            raise KeyError("mine")
    assert [(type(e), notes) for e, notes in leaves(caught.value)] == [(KeyError, [])]


async def test_a_part_that_cannot_start_stops_those_before_it():
    diary = Diary()

    @asynccontextmanager
    async def open_broken(dht: Dht):
        raise OSError("no such disk")
        yield

    providers = [*diary.providers(), Provider(Source, open_broken, "broken")]
    providers = [p for p in providers if p.plugin != "report_plugin"]

    def open_dht():
        return diary.part("dht")

    providers = [p for p in providers if p.contract is not Dht]
    plan = make_plan([*providers, Provider(Dht, open_dht, "dht_plugin")], GIVEN)
    with pytest.raises(OSError, match="no such disk") as caught:
        async with running(plan, GIVEN):
            raise AssertionError("never up")
    assert caught.value.__notes__ == ["in plugin broken"]
    assert "-dht" not in diary  # the error passed through it: its context saw it


async def test_an_error_while_stopping_names_its_plugin():
    diary = Diary()

    def open_bad():
        return diary.part("bad", fail=OSError("cannot stop"))

    plan = make_plan([Provider(Store, open_bad, "bad_plugin")], {})
    with pytest.raises(OSError, match="cannot stop") as caught:
        async with running(plan, {}):
            pass
    assert caught.value.__notes__ == ["in plugin bad_plugin"]
