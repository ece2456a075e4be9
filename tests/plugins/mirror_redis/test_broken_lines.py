"""Connections that end in ways of their own: whatever the library raises has a name outside."""

from __future__ import annotations

import socket
import struct

import anyio
import pytest
from anyio.abc import SocketAttribute

from mirror_redis import dialing
from mirror_redis.service import open_store_link
from mirror_redis.settings import RedisStoreSettings
from skycore.errors import StoreUnreachableError
from skycore.runtime.clock import RealClock
from skycore.testing.contracts.store_model import ranked


class Between:
    """Stands between a client and a server, and may reset every connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: list[anyio.abc.SocketStream] = []

    async def serve(self, client: anyio.abc.SocketStream) -> None:
        self._clients.append(client)
        server = await anyio.connect_tcp("127.0.0.1", self._port)
        async with client, server, anyio.create_task_group() as tasks:
            for one, other in ((client, server), (server, client)):
                tasks.start_soon(self._carry, one, other, tasks.cancel_scope)

    async def _carry(self, one, other, both: anyio.CancelScope) -> None:
        try:
            async for data in one:
                await other.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        both.cancel()

    async def reset(self) -> None:
        """End every connection with RST, as a firewall or a dead host does."""
        for client in self._clients:
            raw = client.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await anyio.aclose_forcefully(client)
        self._clients.clear()
        await anyio.sleep(0.05)  # until the other end has been told


async def _reset_while_idle(port: int) -> None:
    between = Between(port)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"redis://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/0"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, between.serve)
        async with open_store_link(RedisStoreSettings(url=url, timeout_s=10), RealClock()) as link:
            for _ in range(5):
                assert await link.call([(b"PING",)]) == [b"PONG"]
                await between.reset()
            assert await link.call([(b"PING",)]) == [b"PONG"]
            assert link.counters["reconnects"] == 5
        tasks.cancel_scope.cancel()
    await listener.aclose()


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_a_connection_that_was_reset_while_idle_is_replaced(redis, use_uvloop):
    """uvloop raises RuntimeError where one writes to a connection that was reset (no OSError)."""
    if use_uvloop:
        pytest.importorskip("uvloop")
    options = {"use_uvloop": use_uvloop}
    anyio.run(_reset_while_idle, redis.port, backend_options=options)


@pytest.mark.parametrize("bug", [RuntimeError("a bug"), AttributeError("None"), KeyError(7)])
async def test_errors_of_the_library_that_nobody_foresaw_are_named_and_logged(
    redis, opened, monkeypatch, caplog, bug
):
    async with opened(redis, retry_s=0.02) as (store, link):
        await store.put_many([ranked()])

        async def fail(self, *given, **more):
            raise bug

        with monkeypatch.context() as patched:
            patched.setattr(dialing.library.Connection, "send_packed_command", fail)
            with pytest.raises(StoreUnreachableError):
                await store.get([ranked().target])
        assert link.counters["down"]
        assert "Traceback" in caplog.text and "in an error of the library" in caplog.text
        with anyio.fail_after(10):
            while link.state != "up":
                await anyio.sleep(0.01)
        assert (await store.get([ranked().target]))[0]


@pytest.mark.parametrize("place", ["standing", "cells", "log"])
async def test_m10_what_others_put_into_our_indexes_ends_in_a_named_error_or_nothing(
    redis, opened, place
):
    from mirror_redis.mirror_store import MirrorStore
    from skycore.contracts.store import ChangeFilter, ItemKey
    from skycore.errors import StoreError
    from skycore.testing.contracts.store_model import EVERYTHING
    from skycore.testing.fakes import SeededEntropy, identity

    async with opened(redis) as (store, link):
        item = ranked()
        await store.put_many([item, ranked(b"bob")])
        member = b"%s:3" % item.target.hex().encode()
        if place == "standing":
            redis.send("HSET", b"dht:" + member, "rank", "no rank", "until", "nor an end")
            network = identity("me").network.id
            mirror = MirrorStore(link, SeededEntropy(5), network)
            [there] = await mirror.standing([ItemKey(item.target, 3)])
            assert (there.rank, there.is_listed) == (b"", False)
        elif place == "cells":
            redis.send("ZADD", "dht:cells", "99", "xyz")
            redis.send("ZADD", "dht:targets", "0", "f" * 64 + ":?")
            redis.send("HSET", "dht:" + "f" * 64 + ":?", "rank", "0" * 80, "until", "0" * 16)
            [found] = await store.fingerprints(None, [EVERYTHING])
            assert found.items == 2
        else:
            redis.send("ZADD", "dht:log", "+inf", "f" * 64 + ":3")
            try:
                await store.changes(None, ChangeFilter(), 1, 1 << 20)
                await store.changes(None, ChangeFilter(), 9, 1 << 20)
            except StoreError as named:
                assert "changed by somebody else" in str(named)
