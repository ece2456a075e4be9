"""A node whose servers hang, drip, lie or are not there: it lives on, and stops within 3 s."""

from __future__ import annotations

import anyio
import pytest

from skycore.contracts.dmsg import DmsgPresence
from skycore.contracts.services import OfferedServices, OwnAddress
from skycore.errors import SkycoreError

HOST, PORT = "10.77.0.1", 9_080
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
ANSWERS = {
    "page": HEAD + b"connection: close\r\ncontent-length: 13\r\n\r\n<html></html>",
    "wrong": b"HTTP/1.1 500 No\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno",
    "garbage": b"\x00\xff" * 500,
    "nothing": b"",
}


async def answer(stream, how):
    """Serve one connection, badly."""
    try:
        if how == "hangs":
            await anyio.sleep_forever()
        if how in ("drips", "pours"):
            await stream.send(HEAD + b"\r\n[")
            while True:
                await stream.send(b" " * (2**20 if how == "pours" else 1))
                await anyio.sleep(0.01 if how == "pours" else 0.5)
        await stream.send(ANSWERS[how])
    except (SkycoreError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass
    finally:
        await stream.aclose()


async def serve(network, how, *, task_status=anyio.TASK_STATUS_IGNORED):
    async with network.listen_tcp(HOST, PORT) as listener, anyio.create_task_group() as tasks:
        task_status.started()
        while True:
            tasks.start_soon(answer, await listener.accept(), how)


@pytest.mark.parametrize("how", ["hangs", "drips", "pours", *ANSWERS, "nobody"])
async def test_a_node_among_servers_in_trouble(country, how):
    world = country.world
    (full,) = await world.spawn("fullnode")
    network = world.network.host(HOST)
    async with anyio.create_task_group() as tasks:
        if how != "nobody":
            await tasks.start(serve, network, how)
        url = f"http://{HOST}:{PORT}"
        node = await country.visor(
            f"{url}/ar",
            seeds=[full],
            node={"enable": ["http_client", "discovery_address", "discovery_service",
                             "discovery_dmsg"]},
            discovery_service={"url": f"{url}/sd", "services": [{"type": "vpn", "port": 44}]},
            discovery_dmsg={"url": f"{url}/dmsgd"},
        )  # fmt: skip
        node.get(DmsgPresence).set_servers([full.public])
        await anyio.sleep(120)
        assert node.get(OwnAddress).entry() and node.get(OfferedServices).published
        assert not node.get(DmsgPresence).registered
        began = anyio.current_time()
        await world.stop(node)
        assert anyio.current_time() - began <= 3
        tasks.cancel_scope.cancel()
