"""The contract, by the store in a file: on the disk, and in memory where there is no folder."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from skycore.testing.contracts.store import StoreContract
from skycore.testing.fakes import InlineWorkers, MemoryFiles, SeededEntropy
from store_sqlite.service import open_sqlite_store
from store_sqlite.settings import SqliteStoreSettings


class FolderAt:
    """Files in a folder of a test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        return self._folder / name


class TestSqliteStoreInMemory(StoreContract):
    @pytest.fixture
    def open_store(self):
        entropy = SeededEntropy()
        return lambda: open_sqlite_store(
            SqliteStoreSettings(), MemoryFiles(), entropy, InlineWorkers()
        )


class TestSqliteStoreInAFile(StoreContract):
    @pytest.fixture
    def open_store(self, tmp_path):
        entropy = SeededEntropy()

        @asynccontextmanager
        async def opened():
            folder = tmp_path / entropy.bytes(8).hex()
            folder.mkdir()
            arguments = (SqliteStoreSettings(), FolderAt(folder), entropy, InlineWorkers())
            async with open_sqlite_store(*arguments) as store:
                yield store
            for left in folder.iterdir():
                assert left.name == "items.db", "a closed store is one file"
                left.unlink()

        return opened
