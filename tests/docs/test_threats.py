"""docs/threats.md names tests; each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "threats.md").read_text()))
    assert len(named) > 50
    there: set[str] = set()
    for folder in ("tests", "skycore/testing/contracts"):
        for path in (ROOT / folder).rglob("*.py"):
            there |= set(re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.M))
    assert named <= there, f"not there: {sorted(named - there)}"
