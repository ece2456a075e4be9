"""These tests run on the virtual clock."""

from __future__ import annotations

import pytest

from skycore.testing import sim_backend


@pytest.fixture
def anyio_backend():
    return sim_backend()
