from __future__ import annotations

import pytest

from skycore.runtime.clock import RealClock
from skycore.runtime.network import RealNetwork
from skycore.testing import SimClock, SimNetwork, sim_backend
from skycore.testing.contracts.transport import TransportTypeContract
from skycore.testing.fakes import SeededEntropy, identity
from transport_sudph.service import open_sudph
from transport_sudph.settings import SudphSettings


class TestSudphInSimulation(TransportTypeContract):
    @pytest.fixture
    def anyio_backend(self):
        return sim_backend(3_600)

    @pytest.fixture
    async def transport_type(self, anyio_backend):
        async with open_sudph(
            SudphSettings(listen="127.0.0.1:0"),
            identity("alice"),
            SimClock(),
            SeededEntropy(),
            SimNetwork().host("127.0.0.1"),
        ) as sudph:
            yield sudph


class TestSudphOnSockets(TransportTypeContract):
    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"

    @pytest.fixture
    async def transport_type(self, anyio_backend):
        async with open_sudph(
            SudphSettings(listen="127.0.0.1:0", dial_timeout_s=1.0),
            identity("alice"),
            RealClock(),
            SeededEntropy(),
            RealNetwork(),
        ) as sudph:
            yield sudph
