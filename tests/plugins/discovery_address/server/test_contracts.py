from __future__ import annotations

import pytest

from skycore.testing.contracts.http import HttpRoutesContract
from skycore.testing.contracts.status import StatusSourceContract


class TestRoutes(HttpRoutesContract):
    @pytest.fixture
    async def routes(self, ar):
        return ar.routes


class TestStatus(StatusSourceContract):
    @pytest.fixture
    async def source(self, ar):
        return ar.status
