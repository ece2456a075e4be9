"""A table in docs/protocols that names a constant of skycore.model.limits has its value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from skycore.model import limits

PAGES = sorted((Path(__file__).parents[2] / "docs" / "protocols").glob("*.md"))
UNITS = {"KiB": 1024, "MiB": 1024**2, "s": 1, "min": 60, "h": 3600, "days": 86_400}
VALUE = re.compile(r"(?:exactly )?([\d,]+(?:\.\d+)?) ?([A-Za-z]+)?")
NAME = re.compile(r"\b[A-Z][A-Z0-9_]{3,}\b")


def rows(page: Path) -> Iterator[tuple[str, Decimal, str]]:
    """Yield (constant, value, row): values stand in the second column, parted by semicolons."""
    for row in re.findall(r"^\|.*\|$", page.read_text(), re.MULTILINE):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        names = [n for n in NAME.findall(cells[0]) if n in limits.__all__]
        for name, text in zip(names, cells[1].split(";"), strict=bool(names)):
            found = VALUE.match(text.strip())
            assert found, f"{page.name}: no number in {row}"
            yield name, Decimal(found[1].replace(",", "")) * UNITS.get(found[2], 1), row


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_table_has_the_values_of_the_constants_it_names(page: Path) -> None:
    found = list(rows(page))
    assert found, f"{page.name} names no limit"
    for name, value, row in found:
        assert value == getattr(limits, name), row


def test_every_limit_stands_in_some_table() -> None:
    documented = {name for page in PAGES for name, _, _ in rows(page)}
    assert documented == set(limits.__all__)
