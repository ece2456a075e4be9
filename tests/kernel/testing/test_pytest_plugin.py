"""The pytest plugin, as a project sees it that has skycore installed."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent

SCENARIO = """
    import anyio
    import pytest
    from skycore.testing import sim_backend

    @pytest.fixture
    def anyio_backend():
        return sim_backend(limit_s=100)

    def test_seed(sim_seed):
        assert sim_seed != 12, "an unlucky seed"

    @pytest.mark.anyio
    async def test_time_is_virtual():
        await anyio.sleep(99)
"""


def run_pytest(folder, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def test_seeds_widen_and_a_failure_says_how_to_repeat_it(tmp_path):
    (tmp_path / "test_scenario.py").write_text(dedent(SCENARIO))
    out = run_pytest(tmp_path, "--sim-seeds", "20")
    assert "20 passed, 1 failed" in out or "1 failed, 20 passed" in out
    assert (
        "seed 12; repeat with: pytest 'test_scenario.py::test_seed[seed=12]' --sim-seed 12" in out
    )
    assert "1 failed" in run_pytest(
        tmp_path, "test_scenario.py::test_seed[seed=12]", "--sim-seed", "12"
    )
    assert "2 passed" in run_pytest(tmp_path)


def test_a_project_that_uses_none_of_it_loads_none_of_it(tmp_path):
    (tmp_path / "test_foreign.py").write_text(
        dedent("""
        import sys

        def test_nothing_is_loaded():
            assert not {"skycore.node", "pydantic", "skycore.testing.world"} & set(sys.modules)
        """)
    )
    assert "1 passed" in run_pytest(tmp_path, "-p", "no:anyio", "-p", "no:hypothesispytest")
