"""Registries in a file."""

from __future__ import annotations

from itertools import count

import pytest

from registry_sqlite.service import open_sqlite_registry
from registry_sqlite.settings import SqliteRegistrySettings
from skycore.testing.fakes import FakeClock, InlineWorkers, SeededEntropy

_seeds = count(1_000)


class OneFolder:
    def __init__(self, folder):
        self._folder = folder

    def path(self, name):
        return self._folder / name


@pytest.fixture
def opened():
    """Return a function that opens the registry of a folder."""

    def opened(folder, clock=None, workers=None, **settings):
        return open_sqlite_registry(
            SqliteRegistrySettings(**settings), OneFolder(folder), clock or FakeClock(),
            SeededEntropy(next(_seeds)), workers or InlineWorkers(),
        )  # fmt: skip

    return opened
