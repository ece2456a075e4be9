"""World: real nodes that start, crash, die and come back, and leave the world standing."""

from __future__ import annotations

import sys
from importlib import metadata

import anyio
import pytest

from skycore import node, plugins
from skycore.contracts.transport import Transports
from skycore.errors import ConfigError, DialError
from skycore.model.addresses import Address, Contact
from skycore.testing.loop import simulate
from skycore.testing.world import World

PROFILE = """
summary = "Links and nothing above them."
[node]
plugins = ["security_noise", "transport_stcpr", "streams_vstream"]
"""


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / "links.toml"
    path.write_text(PROFILE)
    return path


def knows(node, other):
    address = Address("stcpr", f"{other.address}:7777")
    node.get(Transports).addresses.learn(Contact(other.public, (address,)), pinned=True)


def run(scenario, profile, seed=1, **options):
    async def main():
        async with World(seed, **options) as world:
            await scenario(world, profile)
        return world

    return simulate(main, seed=seed, limit_s=100_000)


async def meet(world, profile):
    alice, bob = await world.spawn(profile, n=2)
    knows(alice, bob)
    link = await alice.get(Transports).ensure(bob.public, "user")
    await world.until(lambda: bob.get(Transports).find(alice.public), limit_s=5)
    return alice, bob, link


def test_nodes_meet_over_the_simulated_network(profile):
    async def scenario(world, profile):
        alice, bob, link = await meet(world, profile)
        assert link.remote == bob.public
        assert bob.get(Transports).find(alice.public).id == link.id
        assert repr(alice) == f"<{alice.name} 10.0.0.1 up>"
        assert alice.contact == f"{alice.public.hex()}@10.0.0.1:7777"
        assert world.network.connections(bob.address) == 1

    assert run(scenario, profile).trace.count > 0


def test_the_same_seed_is_the_same_run_and_another_is_not(profile):
    async def scenario(world, profile):
        _, bob, _ = await meet(world, profile)
        await anyio.sleep(100)
        await world.kill(bob)
        await anyio.sleep(100)

    first, again, other = (run(scenario, profile, seed) for seed in (1, 1, 2))
    assert first.trace.digest == again.trace.digest != other.trace.digest
    assert [n.public for n in first.nodes] == [n.public for n in again.nodes]


def test_a_killed_node_is_reset_and_comes_back_with_its_key_and_disk(profile):
    async def scenario(world, profile):
        alice, bob, link = await meet(world, profile)
        files = bob._files
        files.write("kept", b"1")
        await world.kill(bob)
        files.write("kept", b"2")
        await world.until(lambda: link.closed, limit_s=1)
        assert bob.node is None
        with pytest.raises(RuntimeError, match="does not run"):
            bob.get(Transports)
        with pytest.raises(DialError):
            await alice.get(Transports).ensure(bob.public)
        key, instance = bob.public, link.remote_hello.instance_id
        await world.start(bob)
        with pytest.raises(RuntimeError, match="already"):
            await world.start(bob)
        await anyio.sleep(60)
        link = await alice.get(Transports).ensure(bob.public)
        assert bob.node.identity.public == key
        assert link.remote_hello.instance_id != instance
        assert bob.disk["kept"] == b"1"
        assert bob.starts == 2

    run(scenario, profile)


def test_stop_is_a_goodbye_and_restart_is_both(profile):
    async def scenario(world, profile):
        alice, bob, link = await meet(world, profile)
        await world.stop(bob)
        await world.stop(bob)
        await world.until(lambda: link.closed, limit_s=5)
        await world.restart(bob)
        await world.restart(bob)
        assert bob.starts == 3
        assert alice.node is not None

    run(scenario, profile)


CRASHER = """
from contextlib import asynccontextmanager
import anyio
from skycore import hookimpl

@asynccontextmanager
async def open_crasher():
    async def work():
        await anyio.sleep(50)
        raise OSError("it broke")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        yield None
        tasks.cancel_scope.cancel()

@hookimpl
def skycore_services():
    return [open_crasher]
"""


@pytest.fixture
def crasher(tmp_path, monkeypatch):
    """A stranger's plugin that breaks after 50 s, installed for the length of the test."""
    (tmp_path / "crasher_plugin.py").write_text(CRASHER)
    monkeypatch.syspath_prepend(tmp_path)
    entry = metadata.EntryPoint("crasher", "crasher_plugin", plugins.GROUP)
    found = {**plugins.installed(), "crasher": entry}
    for module in (plugins, node):
        monkeypatch.setattr(module, "installed", lambda: found)
    yield "crasher"
    sys.modules.pop("crasher_plugin", None)


def test_a_crash_stops_one_node_and_is_not_overlooked(profile, crasher):
    async def scenario(world, profile):
        alice, bob = await world.spawn(profile, n=2)
        (mallory,) = await world.spawn(profile, settings={"node": {"enable": [crasher]}})
        with pytest.raises(ExceptionGroup, match="crashed"):
            await world.until(lambda: False, limit_s=500)
        assert anyio.current_time() == pytest.approx(50, abs=0.2)
        assert mallory.node is None
        assert alice.node is not None
        assert bob.node is not None

    with pytest.raises(ExceptionGroup, match="world seed=3") as caught:
        run(scenario, profile, seed=3)
    (group,) = caught.value.exceptions
    assert [str(e) for e in group.exceptions] == ["it broke"]
    assert group.__notes__ == ["in plugin crasher"]

    async def expected(world, profile):
        (mallory,) = await world.spawn(profile, settings={"node": {"enable": [crasher]}})
        await anyio.sleep(60)
        assert mallory.crash is not None
        mallory.crash = None

    run(expected, profile)


def test_a_node_that_cannot_start_says_why_at_once(profile):
    async def scenario(world, profile):
        with pytest.raises(ConfigError, match=r"transport_stcpr\.listen"):
            await world.spawn(profile, settings={"transport_stcpr": {"listen": "nonsense"}})
        await world.spawn(profile)

    run(scenario, profile)


def test_an_error_of_the_test_arrives_bare_with_seed_and_time(profile):
    async def scenario(world, profile):
        await world.spawn(profile)
        await anyio.sleep(12)
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        run(scenario, profile, seed=8)
    assert caught.value.__notes__ == ["world seed=8 t=12.000 s", "simulation seed=8"]


def test_until_has_a_limit(profile):
    async def scenario(world, profile):
        assert await world.until(lambda: True, limit_s=0) == 0
        with pytest.raises(TimeoutError, match=r"not so after 7 s: pigs fly"):
            await world.until(lambda: False, limit_s=7, what="pigs fly")

    run(scenario, profile)


def test_settings_of_the_world_of_a_spawn_and_of_nobody(profile):
    async def scenario(world, profile):
        (one,) = await world.spawn(profile)
        (other,) = await world.spawn(
            profile, settings={"transport_stcpr": {"dial_timeout_s": 9}, "network": {"name": "b"}}
        )
        assert one.settings["network"]["name"] == "a"
        assert other.settings["network"]["name"] == "b"
        assert other.settings["transport_stcpr"]["listen"] == f"{other.address}:7777"

    run(scenario, profile, settings={"network": {"name": "a"}})


async def test_a_world_needs_virtual_time():
    with pytest.raises(RuntimeError, match="sim_backend"):
        async with World():
            pass


@pytest.mark.parametrize("began_s", [0.1, 33.3, 9e4 + 0.7])
def test_until_ends_where_what_is_left_of_its_limit_would_not_move_the_clock(profile, began_s):
    async def scenario(world, profile):
        await anyio.sleep(began_s)
        with pytest.raises(TimeoutError, match=r"not so after 3\.3 s"):
            await world.until(lambda: False, limit_s=3.3)

    run(scenario, profile)
