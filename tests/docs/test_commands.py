"""Every command line in the documents is one that the program knows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from skycore.cli.main import BUILT_IN
from skycore.cli.tree import build_tree
from skycore.contracts.command import Command
from skycore.plugins import Plugins, installed, is_first_party

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TAKES_A_VALUE = {"--data", "--profile", "--config", "--set", "--log-format", "--log-level"}


def lines() -> list[str]:
    found: dict[str, None] = {}
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                if line.startswith("skynode"):
                    found[line.partition(" #")[0].strip()] = None
    return list(found)


def tree() -> dict[str, object]:
    ours = [name for name, entry in installed().items() if is_first_party(entry)]
    answers = Plugins(ours).answers("skycore_commands")
    return build_tree([*BUILT_IN, *(one for _, found in answers for one in found)])


def command(line: str) -> list[str]:
    """Return the words of the command itself: no options of the program, no arguments."""
    words, path = shlex.split(line)[1:], []
    while words and words[0].startswith("-"):
        words = words[2:] if words[0] in TAKES_A_VALUE else words[1:]
    here: object = tree()
    while isinstance(here, dict):
        assert words or not path, f"{line!r} stops at a group"
        if not words:
            return []
        assert words[0] in here, f"there is no command {words[0]!r} in {line!r}"
        here = here[words[0]]
        path.append(words.pop(0))
    assert isinstance(here, Command)
    return path


def test_the_readme_has_some() -> None:
    assert len(lines()) >= 8


@pytest.mark.parametrize("line", lines())
def test_a_command_line_is_known_with_every_option(line: str) -> None:
    path = command(line)
    done = subprocess.run(
        [sys.executable, "-m", "skycore", *path, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"COLUMNS": "200", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    for option in re.findall(
        r"(?<=\s)--[a-z-]+", line.partition(" ".join(path))[2] if path else line
    ):
        assert option in done.stdout, f"{option} in {line!r}"
