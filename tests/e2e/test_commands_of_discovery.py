"""Commands of the discovery services where they cannot do their work: named errors, exit codes.

With no node, with a node that lacks their plugins, and where nobody reads on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skycore.cli.main import main
from skycore.testing.processes import NodeProcess

pytestmark = pytest.mark.processes
KEY = "ab" * 32
T_ID = "00000000-0000-0000-0000-000000000001"
BARE = 'node.plugins=["rpc_local","visor_info"]'
COMMANDS = {
    "tp all": "over HTTP: no transport discovery service",
    "tp all --source dht": "only a node can be asked",
    "svc ls": "over HTTP: nobody knows services",
    "svc ls --source dht": "only a node can be asked",
    "dmsg servers": "over HTTP: nobody knows DMSG servers",
    "dmsg servers --source dht": "only a node can be asked",
    "tp ls": "",
    f"tp add {KEY}": "",
    f"tp rm {T_ID}": "",
    "visor dht verify --against http": "",
}
"""What is said besides that there is no node, or that it lacks a plugin."""


def check(data: Path, words: str, told: pytest.CaptureFixture[str], *expected: str) -> None:
    """Run a command in this process: an error of one line, a hint, and exit code 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["skynode", "--data", str(data), *words.split()])
        with pytest.raises(SystemExit) as ended:
            main()
    lines = told.readouterr().err.splitlines()
    assert ended.value.code == 1, (words, lines)
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"], (words, lines)
    assert all(text in lines[0] for text in expected), (words, lines)
    assert len(lines[1]) > len("hint: "), (words, lines)


def closed_pipe(data: Path, *words: str) -> tuple[int, str]:
    """Run a command whose reader is gone; return its exit code and what it says of that."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "skycore", "--data", str(data), *words],
            stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    return done.returncode, done.stderr


def test_no_node_and_a_node_without_the_plugins_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, besides in COMMANDS.items():
        check(tmp_path / "nowhere", words, capsys, "no node runs on", besides)
    with NodeProcess(tmp_path / "bare") as node:
        node.start(BARE)
        for words, besides in COMMANDS.items():
            check(node.data, words, capsys, "plugin" if besides else "", besides)
        assert closed_pipe(node.data, "visor", "info") == (1, "")
