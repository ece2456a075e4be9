"""A mirror whose primary fails over: what the new one lacks is brought again (M13)."""

from __future__ import annotations

import signal

import anyio
import pytest

from skycore.errors import StoreError
from skycore.testing.redisserver import RedisSentinel, RedisServer

SUBJECTS = tuple(f"visor{i}" for i in range(20))


async def follows(server: RedisServer, primary: RedisServer) -> None:
    """Wait until a server has all that a primary had."""
    server.send("REPLICAOF", "127.0.0.1", str(primary.port))
    with anyio.fail_after(20):
        while b"master_link_status:up" not in server.send("INFO", "replication"):
            await anyio.sleep(0.02)


def notes(text: str) -> dict[str, str]:
    return dict.fromkeys(SUBJECTS, text)


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.soak)])
async def test_m13_what_no_replica_had_is_brought_to_the_new_primary(
    own_redis, service, reader, until, tmp_path, times
):
    """Acknowledged by a primary that was cut off, and then died: lost there, and not here."""
    primary, other = own_redis(), own_redis()
    await follows(other, primary)
    sentinel = RedisSentinel(tmp_path / "sentinel", "main", primary).start()
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0"
    try:
        async with service(url, audit_s=60, check_s=0.2) as one:
            for number in range(times):
                with anyio.fail_after(20):  # until it has found the replica
                    while b"num-slaves\r\n$1\r\n1" not in sentinel.send("SENTINEL", "MASTERS"):
                        await anyio.sleep(0.02)
                await one.publish_all(notes(f"{number}: both have it"))
                other.signal(signal.SIGSTOP)
                primary.send("CLIENT", "KILL", "TYPE", "replica")
                await one.publish_all(notes(f"{number}: the old one had it"))
                await one.settled()
                primary.stop()
                other.signal(signal.SIGCONT)
                async with reader(url) as full:

                    async def served(text: str = f"{number}: the old one had it") -> bool:
                        try:
                            found = [await full.note(who) for who in SUBJECTS]
                        except StoreError:  # nobody is primary yet
                            return False
                        return found == [text] * len(SUBJECTS)

                    await until(served, 60)
                await until(lambda done=number + 1: one.link.counters["other_store"] == done)
                assert (await one.fields()).healed >= len(SUBJECTS) * (number + 1)
                primary.start()
                await follows(primary, other)
                primary, other = other, primary
            assert (await one.fields()).health.value == "ok"
    finally:
        sentinel.stop()
