"""Command line and start-up: `--help`, start to ready, and what an idle visor costs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Figure
from skycore.testing.processes import NodeProcess


def _seconds(*words: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=60)
    return time.perf_counter() - began


def _best(*words: str) -> float:
    return min(_seconds(*words) for _ in range(5))


def _ready(folder: Path) -> tuple[float, NodeProcess]:
    node = NodeProcess(folder)
    node.key()
    node.log.unlink(missing_ok=True)
    began = time.perf_counter()
    words = ["-m", "skycore", "--data", str(folder), "--set", "transport_stcpr.listen=127.0.0.1:0"]
    with node.log.open("wb") as log:
        node.process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log)
    while b" ready " not in node.log.read_bytes():
        if node.process.poll() is not None or time.perf_counter() - began > 30:
            raise RuntimeError(node.log.read_text())
        time.sleep(0.005)
    return time.perf_counter() - began, node


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines."""
    bare = _best("-c", "pass")
    yield Figure(
        "skynode --help", _best("-m", "skycore", "--help"), "s", 0.35, at_most=True,
        beside=f"bare Python {bare:.3f} s",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        took, node = _ready(Path(name))
        with node:
            yield Figure("visor, start to ready", took, "s", 1.0, at_most=True)
            assert node.process is not None
            proc = Path(f"/proc/{node.process.pid}")
            before, began = _cpu_s(proc), time.perf_counter()
            time.sleep(10)
            share = (_cpu_s(proc) - before) / (time.perf_counter() - began)
            yield Figure("idle visor, memory", _rss_mib(proc), "MiB", 60, at_most=True)
            yield Figure("idle visor, CPU", share * 100, "% of core", 1.0, at_most=True)


def _cpu_s(proc: Path) -> float:
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _rss_mib(proc: Path) -> float:
    text = (proc / "status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024
