"""Importing back and forth while Redis is slow, cut off, killed and emptied: every end is named.

A real mirror process (its own event loop, its own store), a real Redis. An import may be refused,
with a reason that a person can read; it may not end in an error that nobody foresaw, and the
process may not write a traceback. Once Redis is well, it holds what was imported last.
"""

from __future__ import annotations

import json
import random
import signal
from functools import partial
from pathlib import Path

import anyio
import pytest

from skycore.errors import SkycoreError
from skycore.importing import pages, row_of
from skycore.jsonrpc import connect_control
from skycore.model.recording import facts, latest_facts, read_recording, step
from skycore.testing.processes import node_processes
from skycore.testing.recording import generate_recording
from skycore.testing.redisserver import RedisServer

SALTS = ("svc", "dmsg", "tp")


async def replace(client, listed, delegations) -> dict[str, int]:
    """Do what `mirror import --replace` does; return what became of it."""
    held = []
    for salt in SALTS:
        page = await client.call("publish.mirrored", {"salt": salt})
        held += [(salt.encode(), bytes.fromhex(subject)) for subject in page["subjects"]]
    rows = [row_of(fact) for fact in listed]
    gone = step(held, listed).gone
    rows += [{"salt": s.decode(), "subject": k.hex(), "delete": True} for s, k in gone]
    total = {"refused": 0, "published": 0}
    for page in pages(rows):
        done = await client.call("publish.facts", {"facts": page, "delegations": delegations})
        total = {name: total[name] + done[name] for name in total}
        assert not [reason for reason in done["reasons"] if "internal" in reason]
    return total


async def trouble(server: RedisServer, dice: random.Random) -> None:
    """Do something to Redis, and undo it a moment later."""
    run = anyio.to_thread.run_sync
    match dice.choice(("stop", "kill", "cut", "flush", "script", "none")):
        case "stop":
            server.signal(signal.SIGSTOP)
            await anyio.sleep(dice.choice((0.1, 0.6, 1.5)))
            server.signal(signal.SIGCONT)
        case "kill":
            server.stop()
            await anyio.sleep(dice.uniform(0, 0.4))
            await run(server.start)
        case "cut":
            for _ in range(5):
                await run(partial(server.send, "CLIENT", "KILL", "TYPE", "normal"))
                await anyio.sleep(0.01)
        case "flush":
            await run(partial(server.send, "FLUSHALL"))
        case "script":
            await run(partial(server.send, "SCRIPT", "FLUSH"))


async def back_and_forth(mirror, server, lists, delegations, seed: int, rounds: int) -> None:
    dice = random.Random(seed)
    is_over = False
    ends: dict[str, int] = {}

    async def make_trouble() -> None:
        while not is_over:
            await trouble(server, dice)
            await anyio.sleep(dice.uniform(0, 0.1))

    async with connect_control(mirror.data) as client, connect_control(mirror.data) as other:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(make_trouble)
            for number in range(rounds):
                for at, line in ((number % 2, client), (1 - number % 2, other)):
                    tasks.start_soon(_import, line, lists[at], delegations, ends)
                    await anyio.sleep(dice.uniform(0, 0.2))
                await _import(client, lists[0], delegations, ends)
            is_over = True
        last = await replace(client, lists[1], delegations)
        assert not last["refused"]
        await _is_there(client, server)
    assert ends.pop("done") > rounds


async def _import(client, listed, delegations, ends) -> None:
    try:
        await replace(client, listed, delegations)
        end = "done"
    except SkycoreError as bad:
        assert "internal" not in str(bad), bad
        end = type(bad).__name__
    ends[end] = ends.get(end, 0) + 1


async def _is_there(client, server: RedisServer) -> None:
    """Wait until Redis holds all records of the mirror."""
    with anyio.fail_after(60):
        while True:
            parts = (await client.call("Summary"))["parts"]
            told = next(part for part in parts if part["name"] == "mirror_redis")["fields"]
            held = int(server.send("ZCARD", "dht:targets").strip(b":\r\n"))
            if told["state"] == "up" and not told["waiting"] and held >= told["records"]:
                return
            await anyio.sleep(0.2)


def _run(folder: Path, seed: int, rounds: int) -> None:
    server = RedisServer(folder / "redis").start()
    recording = read_recording(
        generate_recording(seed=seed, clients=400, visors_with_services=200, churn=0.3)
    )
    lists = [facts(recording, 0), latest_facts(recording)]
    try:
        with node_processes(folder, "authority", "mirror") as (authority, mirror):
            founded = authority.run("network", "new", "demo")
            salts = [word for salt in SALTS for word in ("--salt", salt)]
            tokens = authority.run("network", "delegate", mirror.key(), *salts)["delegations"]
            mirror.start(
                f"network.name={json.dumps(founded['name'])}",
                f"network.authority={json.dumps(founded['authority'])}",
                f"mirror_redis.url={server.url}",
                profile="mirror",
            )
            work = partial(
                back_and_forth, mirror, server, lists, list(tokens.values()), seed, rounds
            )
            anyio.run(work)
            assert mirror.stop() == 0
            log = mirror.log.read_text()
            assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4_000]
    finally:
        server.stop()


@pytest.mark.processes
def test_m1_m2_m8_no_import_ends_in_an_error_without_a_name(tmp_path: Path) -> None:
    _run(tmp_path, seed=1, rounds=3)


@pytest.mark.soak
@pytest.mark.processes
@pytest.mark.parametrize("seed", range(2, 6))
def test_m1_m2_m8_nor_do_many(tmp_path: Path, seed: int) -> None:
    _run(tmp_path, seed=seed, rounds=25)
