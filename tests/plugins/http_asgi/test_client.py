"""The client against the server, on real sockets."""

from __future__ import annotations

import pytest

from skycore.testing.contracts.http import HttpClientContract


class TestClient(HttpClientContract):
    @pytest.fixture
    async def client(self, kit):
        async with kit.client() as client:
            yield client

    @pytest.fixture
    async def url(self, kit):
        async with kit.server(kit.Routes(kit.lab.app, prefix=""), stop_s_max=0.1) as server:
            yield server.url

    @pytest.fixture
    async def dead_url(self, kit):
        async with kit.network.listen_tcp("127.0.0.1", 0) as listener:
            port = listener.port
        return f"http://127.0.0.1:{port}/"
