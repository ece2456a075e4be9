"""registry_sqlite passes what every registry passes, in memory and in a file."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import count

import pytest

from registry_sqlite.service import open_sqlite_registry
from registry_sqlite.settings import SqliteRegistrySettings
from skycore.runtime.files import FolderFiles
from skycore.runtime.workers import ThreadWorkers
from skycore.testing.contracts.registry import RegistryContract
from skycore.testing.fakes import InlineWorkers, MemoryFiles, SeededEntropy

_seeds = count()


@asynccontextmanager
async def _open(files, clock, *, workers=None, **bounds):
    settings = SqliteRegistrySettings(**bounds)
    seed = SeededEntropy(next(_seeds))
    async with open_sqlite_registry(
        settings, files, clock, seed, workers or InlineWorkers()
    ) as registry:
        yield registry


class TestInMemory(RegistryContract):
    @pytest.fixture
    def open_registry(self):
        return lambda clock, **bounds: _open(MemoryFiles(), clock, **bounds)


class TestInAFile(RegistryContract):
    """With threads, as in a node."""

    @pytest.fixture
    def open_registry(self, tmp_path):
        folders = count()

        def open_registry(clock, **bounds):
            folder = tmp_path / str(next(folders))
            return _open(FolderFiles(folder), clock, workers=ThreadWorkers(), **bounds)

        return open_registry

    test_random_work_agrees_with_the_model = None  # in memory it is the same, and faster
