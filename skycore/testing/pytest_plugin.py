"""What pytest learns from skycore: seeds, and worlds that repeat from them.

    @pytest.fixture
    def anyio_backend():
        return sim_backend(limit_s=3_600)        # async tests run on virtual time

    async def test_they_meet(world):             # a World with the test's seed
        await world.full_node()
        ...

`pytest --sim-seeds 200` runs each test that asks for `sim_seed` or `world` with 200 seeds, and
`--sim-seed 137` repeats one. Loaded through an entry point in every project that has skycore
installed, so it imports nothing of skycore until a fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from skycore.testing.world import World

__all__ = ["sim_seed", "world", "world_options"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --sim-seed and --sim-seeds."""
    group = parser.getgroup("skycore", "skycore simulation")
    group.addoption("--sim-seed", type=int, default=1, help="the first seed of simulated tests")
    group.addoption(
        "--sim-seeds", type=int, default=1, help="how many seeds each of them is run with"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that ask for a seed once for each."""
    if "sim_seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--sim-seed")
        seeds = range(first, first + metafunc.config.getoption("--sim-seeds"))
        metafunc.parametrize("sim_seed", seeds, ids=lambda seed: f"seed={seed}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with which seed a test failed, and how to repeat it."""
    report = yield
    seed = getattr(item, "funcargs", {}).get("sim_seed")
    if report.failed and seed is not None:
        text = f"seed {seed}; repeat with: pytest {item.nodeid!r} --sim-seed {seed}"
        report.sections.append(("skycore simulation", text))
    return report


@pytest.fixture
def sim_seed() -> int:
    """The seed of this run of the test; parametrised by --sim-seed and --sim-seeds."""
    raise AssertionError("parametrised by pytest_generate_tests")


@pytest.fixture
def world_options() -> Mapping[str, Any]:
    """Arguments of the `world` fixture's World besides the seed; override it in your module."""
    return {}


@pytest.fixture
async def world(sim_seed: int, world_options: Mapping[str, Any]) -> AsyncIterator[World]:
    """A World of this seed. Needs an `anyio_backend` that returns `sim_backend()`."""
    from skycore.testing.world import World

    async with World(sim_seed, **world_options) as made:
        yield made
