"""A node from its profile: assembled, opened, embedded, and ended by a part that fails."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import anyio
import pytest

from skycore import Node, hookimpl, plugins
from skycore.contracts.dht import Dht
from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.store import Items, ItemStore
from skycore.errors import (
    AmbiguousProviderError,
    MissingProviderError,
    PluginConflictError,
    SkycoreError,
    WiringError,
)
from skycore.node import Assembly, assemble
from skycore.settings import read_layers

QUIET = {"transport_stcpr": {"listen": "127.0.0.1:0"}}


def put_together(profile: str, **node: Any) -> Assembly:
    return assemble(*read_layers(profile=profile, assigned={"node": node} if node else {}))


class Entry:
    """An installed stranger, made in the test."""

    dist = None

    def __init__(self, name: str, **hooks: Any) -> None:
        self.name, self.value = name, f"{name}.plugin"
        self._module = ModuleType(name)
        for hook, answer in hooks.items():
            setattr(self._module, hook, _named(hook, answer))

    def load(self) -> ModuleType:
        return self._module


def _named(hook: str, answer: Any) -> Any:
    def implementation() -> Any:
        return answer

    implementation.__name__ = hook
    return hookimpl(implementation)


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Any:
    real = list(plugins.metadata.entry_points(group=plugins.GROUP))

    def add(*entries: Entry) -> None:
        monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: [*real, *entries])

    return add


@pytest.mark.parametrize("profile", ["visor", "fullnode"])
def test_the_order_in_which_plugins_are_listed_changes_nothing(profile: str) -> None:
    expected = [p.name for p in put_together(profile).plan.order]
    names = list(put_together(profile).plugins.names)
    for seed in range(5):
        random.Random(seed).shuffle(names)
        assert [p.name for p in put_together(profile, plugins=names).plan.order] == expected


@pytest.mark.parametrize("profile", ["visor", "fullnode"])
def test_only_the_gate_is_given_a_store(profile: str) -> None:
    plan = put_together(profile).plan
    holders = {
        p.plugin for p in plan.order for n in plan.needs[p].values() if n.contract is ItemStore
    }
    assert holders == {"gate"}


def test_a_plugin_that_asks_for_the_store_is_refused_by_name(offer: Any) -> None:
    @asynccontextmanager
    async def open_thief(store: ItemStore) -> AsyncIterator[object]:
        yield store

    offer(Entry("thief", skycore_services=[open_thief]))
    with pytest.raises(WiringError, match=r"thief\.open_thief asks for ItemStore"):
        put_together("visor", enable=["thief"])


def test_two_stores_are_a_mistake_not_a_race() -> None:
    with pytest.raises(AmbiguousProviderError, match="store_memory, store_sqlite") as bad:
        put_together("visor", enable=["store_sqlite"])
    assert "disable" in bad.value.hint


def test_a_missing_part_names_who_could_provide_it() -> None:
    with pytest.raises(MissingProviderError, match="ItemStore") as bad:
        put_together("visor", disable=["store_memory"])
    assert "store_memory" in bad.value.hint
    assert "store_sqlite" in bad.value.hint


async def test_what_nothing_asks_for_is_not_started_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not put_together("visor").idle
    settings = {**QUIET, "node": {"enable": ["metrics_prometheus"]}}
    async with Node.open("visor", settings):
        pass
    told = [r.getMessage() for r in caplog.records if "not started" in r.getMessage()]
    assert told == ["not started, nothing here asks for it part=metrics_prometheus.open_metrics"]


def test_two_plugins_with_one_salt_are_refused(offer: Any) -> None:
    from namespaces_skywire.declarations import TP

    offer(Entry("second", skycore_namespaces=[TP]))
    with pytest.raises(PluginConflictError, match="tp"):
        put_together("visor", enable=["second"])


async def test_a_node_is_embedded_and_leaves_nothing_behind() -> None:
    async with Node.open("visor", QUIET) as node:
        overview = await node.get(Rpc).call(Caller(), "Overview", {})
        assert overview["public_key"] == node.identity.public.hex()
        assert overview["ready"]
        assert await node.get(Items).usage() == {}
        assert node.get(Dht).peer_count == 0
        with pytest.raises(SkycoreError, match="this node has no"):
            node.get(int)


async def test_two_nodes_live_in_one_process() -> None:
    async with Node.open("visor", QUIET) as one, Node.open("visor", QUIET) as other:
        assert one.identity.public != other.identity.public


async def test_a_part_that_fails_ends_the_node_and_is_named(offer: Any) -> None:
    closed: list[str] = []

    @asynccontextmanager
    async def open_fragile(items: Items) -> AsyncIterator[object]:
        async def fall() -> None:
            await anyio.sleep(0.01)
            raise OSError("the floor gave way")

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fall)
                yield object()
        finally:
            closed.append("fragile")

    offer(Entry("fragile", skycore_services=[open_fragile]))
    with pytest.raises(ExceptionGroup) as caught:
        async with Node.open("visor", {**QUIET, "node": {"enable": ["fragile"]}}):
            await anyio.sleep(30)
    assert closed == ["fragile"]
    assert caught.group_contains(OSError, match="the floor gave way")
    assert "in plugin fragile" in _notes(caught.value)


def _notes(error: BaseException) -> list[str]:
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [*getattr(error, "__notes__", ()), *(n for e in inner for n in _notes(e))]
