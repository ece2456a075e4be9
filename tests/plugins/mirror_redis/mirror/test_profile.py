"""The profile `mirror`, as real processes: what it loads, what it says, what it survives."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.demo_redis import demo
from skycore.node import assemble
from skycore.settings import profile_names, read_layers
from skycore.testing.processes import NodeProcess, node_processes
from skycore.testing.recording import generate_recording
from skycore.testing.redisserver import RedisServer

NEVER = ("dht_kademlia", "security_noise", "transport_stcpr", "streams_vstream", "visor_rpc")


def test_there_is_a_profile():
    assert "mirror" in profile_names()


def test_it_has_no_transports_and_no_dht():
    assembly = assemble(*read_layers(profile="mirror"))
    parts = {provider.name for provider in assembly.plan.order}
    assert "publisher.open_publisher" in parts and "mirror_redis.open_redis_mirror" in parts
    assert not [name for name in parts if name.startswith("transports.")]
    contracts = {provider.contract.__name__ for provider in assembly.plan.order}
    assert not contracts & {"Dht", "Transports", "Security", "Streams", "TransportType"}


@pytest.mark.processes
def test_a_running_process_has_imported_none_of_it(tmp_path: Path) -> None:
    """What the interpreter itself says that it imported, from the start to the end."""
    data = tmp_path / "mirror"
    words = ["--data", str(data), "--profile", "mirror", "--set",
             "mirror_redis.url=redis://127.0.0.1:9/0"]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "skycore", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            node = NodeProcess(data)
            until = time.monotonic() + 30
            while node.command("visor", "info").returncode and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=15)
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines() if "|" in line}
    assert "mirror_redis.mirror" in imported and "store_sqlite.service" in imported
    assert "ready profile=mirror" in said
    for name in NEVER:
        assert not [module for module in imported if module.split(".")[0] == name], name


@pytest.mark.processes
def test_m1_with_no_redis_it_starts_and_says_what_to_do_and_heals(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis").start()
    server.stop()
    recording = tmp_path / "network.json"
    recording.write_bytes(generate_recording(seed=3, clients=60, visors_with_services=30))
    try:
        with node_processes(tmp_path, "authority", "mirror") as (authority, mirror):
            founded = authority.run("network", "new", "demo")
            salts = ("--salt", "svc", "--salt", "dmsg", "--salt", "tp")
            tokens = authority.run("network", "delegate", mirror.key(), *salts)["delegations"]
            mirror.start(
                f"network.name={json.dumps(founded['name'])}",
                f"network.authority={json.dumps(founded['authority'])}",
                f"mirror_redis.url={server.url}",
                profile="mirror",
            )
            said = mirror.log.read_text()
            assert re.search("WARNING .*redis is not usable .*state=down", said)
            assert "set [mirror_redis] url" in said
            given = [w for token in tokens.values() for w in ("--delegation", token)]
            done = mirror.run("mirror", "import", str(recording), "--at", "0", *given)
            assert done["queued"] == done["published"] == done["records"] > 60
            part = part_of(mirror)
            assert part["health"] == "down" and part["fields"]["waiting"] == done["records"]
            assert "it cannot be reached" in part["summary"] and part["fields"]["hint"]
            server.start()
            until = time.monotonic() + 30
            while part_of(mirror)["fields"]["waiting"] and time.monotonic() < until:
                time.sleep(0.05)
            assert part_of(mirror)["health"] == "ok"
            again = mirror.run("mirror", "import", str(recording), "--at", "0", *given)
            assert again["unchanged"] == done["records"]
            mirror.kill()  # -9: what it published is in its own store, and in Redis
            server.stop()
            server.start()
            mirror.start(
                f"network.name={json.dumps(founded['name'])}",
                f"network.authority={json.dumps(founded['authority'])}",
                f"mirror_redis.url={server.url}",
                profile="mirror",
            )
            while part_of(mirror)["fields"]["healed"] < done["records"]:
                assert time.monotonic() < until + 30
                time.sleep(0.05)
            assert mirror.stop() == 0
    finally:
        server.stop()


def part_of(node: NodeProcess) -> dict:
    parts = node.run("visor", "info")["parts"]
    return next(part for part in parts if part["name"] == "mirror_redis")


@pytest.mark.processes
def test_m4_an_evicting_redis_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru").start()
    try:
        node = NodeProcess(tmp_path / "mirror")
        done = node.command("--profile", "mirror", "--set", f"mirror_redis.url={server.url}")
        assert done.returncode == 1
        assert "it throws keys away when it is full" in done.stderr
        assert "hint: set its maxmemory-policy to noeviction" in done.stderr
    finally:
        server.stop()


@pytest.mark.processes
def test_the_demo_holds_on_a_generated_network(tmp_path: Path) -> None:
    recording = tmp_path / "generated.json"
    recording.write_bytes(
        generate_recording(seed=7, clients=600, visors_with_services=300, churn=0.02)
    )
    assert demo(tmp_path, recording).startswith("demo-redis: ")
