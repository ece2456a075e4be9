"""Keys are free and addresses are not: how much of a table the keys of one address may take."""

from __future__ import annotations

import hashlib
import random
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from pydantic import ValidationError

from skycore.contracts.registry import Listed, RegistryWrite
from skycore.discovery.directory import open_directory
from skycore.discovery.quotas import QuotaSettings, SourceQuotas
from skycore.discovery.registries import RegistryBounds
from skycore.errors import RequestRefusedError
from skycore.testing import sim_backend
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.seams import SimClock

HERE, THERE = "198.51.100.7", "203.0.113.9"
TABLE = "transport-discovery"
MIB = 1 << 20


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=100 * 3_600)


def key(name):
    return hashlib.sha256(str(name).encode()).digest()


def entries(count, size=100, first=0):
    return tuple(Listed(b"%08d" % n, b"x" * size) for n in range(first, first + count))


class Server:
    """A table, and the quotas before it."""

    def __init__(self, **settings):
        self.settings = QuotaSettings(**{"address_keys_max": 4, "address_mib_max": 1, **settings})
        self.clock = SimClock()
        self.registry = DictRegistry(self.clock, bounds=RegistryBounds(body_bytes_max=MIB))

    @asynccontextmanager
    async def running(self):
        async with open_directory(self.registry, TABLE, self.clock, sweep_s=30) as self.directory:
            self.quotas = SourceQuotas(self.settings, self.directory, self.clock)
            yield self

    async def say(self, name, host=HERE, put=None, *, life_s=300.0, whole=False, **more):
        put = entries(1) if put is None else put
        write = RegistryWrite(key(name), put=put, lifetime_s=life_s, whole=whole, **more)
        with self.quotas.admit(write.subject, host, put, whole=whole):
            await self.directory.write([write])

    async def refused(self, name, host=HERE, put=None, **more):
        with pytest.raises(RequestRefusedError) as said:
            await self.say(name, host, put, **more)
        assert said.value.code == 507
        return str(said.value)


@pytest.fixture
async def server():
    async with Server().running() as running:
        yield running


async def test_many_keys_of_one_address_take_a_bounded_part_of_a_table(server):
    for n in range(4):
        await server.say(n)
    why = await server.refused("more")
    assert "198.51.100.7" in why and "4 keys" in why and "address_keys_max" in why
    assert "trusted_proxies" in why, "what to do about it is said"
    assert len(server.directory) == 4
    await server.say("more", THERE)
    for n in range(4):
        await server.say(n, put=entries(5))
    assert len(server.directory) == 5


async def test_a_key_that_only_beats_or_reads_counts_too(server):
    """A heartbeat and a nonce are rows."""
    for n in range(4):
        await server.say(n, put=(), beat=True)
    await server.refused("more", put=(), beat=True)
    await server.say(3, put=(), beat=True)
    day = "2027-01-15"
    assert len(await server.directory.beats(day)) == 4


async def test_keys_that_come_and_go_count_for_a_day(server):
    """Else whoever lists and delists leaves nonces and heartbeats of ever more keys."""
    for n in range(4):
        await server.say(n, life_s=30)
    await anyio.sleep(3_600)
    assert len(server.directory) == 0
    await server.refused("more")
    await anyio.sleep(23 * 3_600)
    for n in range(10, 14):
        await server.say(n)
    await server.refused("more")
    assert len(server.quotas) == 4


async def test_known_keys_go_on_from_wherever_they_are(server):
    await server.say("alice", THERE)
    for n in range(4):
        await server.say(n)
    await server.say("alice")  # it moved to where there is no room: it goes on
    await server.say("alice", put=entries(3))
    await server.say(0, THERE)  # it moves where there is room, and leaves room
    await server.say("bob")
    await server.refused("carol")


async def test_bytes_of_one_address_are_bounded_over_all_its_keys(server):
    much = entries(4, MIB // 10)
    await server.say("alice", put=much)
    await server.say("bob", put=much)
    why = await server.refused("carol", put=much)
    assert "1 MiB" in why and "address_mib_max" in why
    await server.say("carol", put=entries(1))
    await server.say("alice", put=much)  # what is listed already needs no room
    await server.refused("alice", put=entries(3, MIB // 10, first=4))
    await server.say("alice", put=entries(2, MIB // 10), whole=True)
    await server.say("carol", put=entries(1, MIB // 10))
    await server.say("dave", THERE, put=much)


async def test_requests_at_once_are_no_way_around_it(server):
    ended = []

    async def one(n):
        try:
            await server.say(n, put=entries(4, MIB // 20))
            ended.append(n)
        except RequestRefusedError:
            pass

    async with anyio.create_task_group() as tasks:
        for n in range(40):
            tasks.start_soon(one, n)
    assert len(ended) == 4 == len(server.directory)
    assert not server.quotas._coming and not server.quotas._bytes_coming


async def test_a_write_that_fails_takes_no_room(server):
    """So that whoever repeats others' requests cannot count them on another address."""
    for n in range(20):
        with pytest.raises(RequestRefusedError), server.quotas.admit(key(n), HERE, entries(1)):
            raise RequestRefusedError("SW-Nonce does not match", code=401)
    assert len(server.quotas) == 0
    await server.say("alice")


async def test_of_ipv6_the_64_and_the_48_count():
    async with Server(address_keys_max=2).running() as server:
        await server.say("a", "2001:db8:1:1::1")
        await server.say("b", "2001:db8:1:1:ffff::9")
        assert "2001:db8:1:1::/64" in await server.refused("c", "2001:db8:1:1::2")
        for n in range(3):
            for half in range(2):
                await server.say((n, half), f"2001:db8:1:{n + 2:x}::1")
        assert "2001:db8:1::/48" in await server.refused("more", "2001:db8:1:ffff::1")
        await server.say("more", "2001:db8:2::1")
        await server.say("c", f"::ffff:{HERE}")
        await server.say("d", HERE)
        assert HERE in await server.refused("e", f"::ffff:{HERE}")


async def test_400_visors_behind_one_nat_are_no_attack_by_default():
    """All at once, as after a service's restart with an empty registry; each with 8 transports."""
    async with Server().running() as server:
        server.quotas = SourceQuotas(QuotaSettings(), server.directory, server.clock)
        async with anyio.create_task_group() as tasks:
            for n in range(400):
                tasks.start_soon(server.say, n, HERE, entries(8, 400))
        assert len(server.directory) == 400 == len(server.quotas)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", ""])
async def test_this_host_has_no_limit_for_a_proxy_may_stand_there(server, host):
    for n in range(20):
        await server.say(n, host)
    assert len(server.directory) == 20 and len(server.quotas) == 0


async def test_networks_without_limits_are_a_setting_and_so_is_no_limit():
    async with Server(addresses_unlimited=("198.51.100.0/24",)).running() as server:
        for n in range(9):
            await server.say(n)
        for n in range(9, 13):
            await server.say(n, "127.0.0.1")
        await server.refused("more", "127.0.0.1")
    async with Server(address_keys_max=0).running() as server:
        for n in range(9):
            await server.say(n)
    with pytest.raises(ValidationError):
        QuotaSettings(addresses_unlimited=("here",))


async def test_after_a_restart_what_is_listed_goes_on_and_counts_again(server):
    for n in range(4):
        await server.say(n)
    async with server.running():
        await server.say("new")  # nobody has said yet where he is
        for n in range(4):
            await server.say(n)
        await server.refused("newer")
        await server.refused(0, put=entries(11, MIB // 10))  # and its bytes count
        assert len(server.directory) == 5


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_comes_no_address_has_more_than_its_part(seed):
    dice = random.Random(seed)
    hosts = [HERE, THERE, "2001:db8::1", "2001:db8::2"]
    async with Server().running() as server:
        for _ in range(300):
            name, host = dice.randrange(30), dice.choice(hosts)
            put = entries(dice.randrange(4), dice.choice([10, MIB // 8]))
            with suppress(RequestRefusedError):
                await server.say(
                    name, host, put, whole=dice.random() < 0.5, life_s=dice.choice([60, 3_600])
                )
            await anyio.sleep(dice.choice([0, 1, 400]))
            assert len(server.directory) <= 3 * 4
            for group, keys in server.quotas._keys.items():
                assert len(keys) <= (16 if group.endswith("/48") else 4)
            for counted, seen in server.quotas._seen.items():
                assert all(counted in server.quotas._keys[g.name] for g in seen.groups)
            total = sum(map(server.directory.size_of, map(key, range(30))))
            assert total == sum(
                len(e.key) + len(e.body) for one in server.directory for e in one.entries
            )


async def test_who_is_remembered_is_bounded(server, monkeypatch):
    monkeypatch.setattr("skycore.discovery.quotas.REMEMBERED_MAX", 50)
    monkeypatch.setattr("skycore.discovery.quotas.TOLD_MAX", 5)
    for n in range(200):
        await server.say(n, f"198.51.{n // 100}.{n % 100 + 1}", life_s=30)
    assert len(server.quotas) == 50 == len(server.quotas._keys)
    for n in range(20):
        for m in range(5):
            try:
                await server.say((n, m), f"203.0.113.{n}")
            except RequestRefusedError:
                continue
    assert len(server.quotas._told) == 5
