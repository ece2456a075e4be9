"""The page of figures names what there is, and the work behind it is the same for everybody."""

from __future__ import annotations

import importlib
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()
NAMES = sorted(p.stem.removeprefix("bench_") for p in (ROOT / "benchmarks").glob("bench_*.py"))


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_is_run_by_default_and_on_the_page(name):
    module = importlib.import_module(f"benchmarks.bench_{name}")
    assert list(inspect.signature(module.figures).parameters) == ["peers"]
    assert name in importlib.import_module("benchmarks.__main__").BENCHES
    assert f"python -m benchmarks {name}" in PAGE


def test_every_row_with_a_goal_has_its_verdict():
    rows = [line.split("|") for line in PAGE.splitlines() if re.match(r"\| .*\d", line)]
    judged = [row for row in rows if row[-2].strip() in ("met", "missed")]
    assert len(judged) >= 15


def test_workloads_are_the_same_from_the_same_seed():
    from benchmarks.workloads import changed, fleet, signed_items
    from skycore.testing.fakes import TEST_NETWORK

    items = signed_items(TEST_NETWORK, 30, until=2_000_000_000)
    assert items == signed_items(TEST_NETWORK, 30, until=2_000_000_000)
    assert items != signed_items(TEST_NETWORK, 30, until=2_000_000_000, seed=1)
    assert {i.target for i in changed(TEST_NETWORK, items, 0.1)} < {i.target for i in items}
    assert all(200 <= len(i.v) <= 1_000 for i in items)
    assert fleet() == fleet() != fleet(1)


def test_w_fleet_has_productions_shape():
    from benchmarks.workloads import FLEET_HUBS, fleet

    pairs = fleet()
    edges = Counter(end for a, b, _ in pairs for end in (a, b))
    kinds = Counter(kind for _, _, kind in pairs)
    assert len(pairs) == 4_615
    assert tuple(edges[hub] for hub in range(6)) == FLEET_HUBS
    assert 0.68 < kinds["sudph"] / len(pairs) < 0.74
    assert 0.25 < kinds["stcpr"] / len(pairs) < 0.31
    assert 3 <= sorted(edges.values())[len(edges) // 2] <= 6
