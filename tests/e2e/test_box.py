"""What is in the box: the wheel, the demo, the examples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo import demo
from skycore.testing.recording import generate_recording

pytestmark = pytest.mark.processes
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("transport", ["stcpr", "sudph"])
def test_the_demo_holds_on_a_generated_network(tmp_path: Path, transport: str) -> None:
    recording = tmp_path / "generated.json"
    recording.write_bytes(
        generate_recording(seed=7, clients=600, visors_with_services=300, churn=0.02)
    )
    assert demo(tmp_path, recording, transport).startswith(f"demo over {transport}: ")


def test_a_visor_inside_a_program() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "embed_visor.py")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "hello from inside a program" in done.stdout, done.stderr


def test_the_wheel_works_in_a_fresh_environment(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    wheel = next(tmp_path.glob("*.whl"))
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "v")], check=True, timeout=120)
    python = str(tmp_path / "v" / "bin" / "python")
    subprocess.run(
        [python, "-m", "pip", "install", "-q", str(wheel)],
        check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    skynode = str(tmp_path / "v" / "bin" / "skynode")
    data = ["--data", str(tmp_path / "n")]
    for words in (["--help"], [*data, "config", "check", "--profile", "fullnode"],
                  [*data, "keys", "new"], [*data, "plugins"]):  # fmt: skip
        done = subprocess.run(
            [skynode, *words], capture_output=True, text=True, timeout=60, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
