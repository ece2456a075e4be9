"""The tutorial's plugin is installed from the page, enabled, and used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "writing-a-plugin.md"

USE_IT = """
import sys
sys.path.insert(0, sys.argv[1])
import anyio
from skycore import Node
from skycore.contracts.rpc import Caller, Rpc
from skycore.errors import RpcError, ConfigError

async def main():
    settings = {
        "node": {"enable": ["notes"]},
        "notes": {"length_max": 20},
        "transport_stcpr": {"listen": "127.0.0.1:0"},
    }
    async with Node.open("visor", settings) as node:
        rpc = node.get(Rpc)
        me = Caller()
        assert await rpc.call(me, "notes.write", {"text": "hello"}) == {"text": "hello"}
        assert await rpc.call(me, "notes.read", {}) == {"text": "hello"}
        try:
            await rpc.call(me, "notes.write", {"text": "x" * 21})
        except RpcError as bad:
            assert "20 characters" in bad.hint
        else:
            raise AssertionError("a long note was accepted")
    print("ok")

anyio.run(main)
"""


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_tutorials_plugin_runs(tmp_path: Path) -> None:
    source = block("python")
    code = [line for line in source.splitlines() if line.strip()]
    assert len(code) <= 60
    (tmp_path / "notes.py").write_text(source)
    entry = re.search(r"\[project\.entry-points.*", block("toml"), re.DOTALL)
    assert entry
    info = tmp_path / "skycore_notes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: skycore-notes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[skycore.plugins]\nnotes = notes\n")
    done = subprocess.run(
        [sys.executable, "-c", USE_IT, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip().endswith("ok"), done.stderr
