"""The contract that memory and SQLite pass, by the store in Redis, on a real server."""

from __future__ import annotations

import pytest

from skycore.testing.contracts.store import StoreContract


class TestRedisStore(StoreContract):
    @pytest.fixture
    def open_store(self, open_store):
        return open_store
