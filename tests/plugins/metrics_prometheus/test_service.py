"""C45: what a node counts, read as Prometheus reads it, from whole nodes on virtual time."""

from __future__ import annotations

import pytest

from skycore.contracts.http import HttpClient
from skycore.testing import World, sim_backend

ON = {
    "node": {"enable": ["http_server", "http_client", "metrics_prometheus"]},
    "http_server": {"listen": ":9080"},
    "metrics_prometheus": {"fresh_s": 0},
}


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=3_600)


async def test_a_simulated_node_serves_metrics_and_reads_them_itself():
    async with World(seed=1) as world:
        (node,) = await world.spawn("visor", settings=ON)
        response = await node.get(HttpClient).get("http://127.0.0.1:9080/metrics")
        assert b"skycore_build_info{" in response.expect(200).body
