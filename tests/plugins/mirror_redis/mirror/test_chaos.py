"""Three nodes and four mirrors on one Redis, killed at random: nothing lost, nothing goes back.

Whoever is killed leaves without a word: what it was doing is cut off, and its small files are not
written any more. It comes back with its store as it was. Redis is killed too, and starts empty:
there a mirror that may be killed in the same second keeps its copies first (`copy_s = 0`).
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack

import anyio
import pytest

from skycore.errors import SkycoreError
from skycore.model.items import mutable_item_target
from skycore.testing.fakes import SeededEntropy, identity
from skycore.testing.seams import SimFiles
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings

SUBJECTS = [f"visor{i}" for i in range(12)]
ROUNDS = 25
LIVES = 4


def target_of(subject: str) -> bytes:
    return mutable_item_target(identity(subject).public, b"note")


class World:
    """What mirrors were told is theirs, and what nodes have seen."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.regressed: list[str] = []
        self.notes: dict[tuple[str, int], str] = {}
        self.done = 0
        self.kills = 0
        self.is_over = False


async def live_as_mirror(world, service, url, name, dice, store, copy_s) -> None:
    """Publish, be killed, come back."""
    disk: dict[str, bytes] = {}
    for life in range(LIVES):
        files = SimFiles(disk)
        with anyio.CancelScope() as scope:
            async with service(
                url, name, store=store, files=files, grace_s=0.02, audit_s=0.2, copy_s=copy_s
            ) as one:
                for number in range(ROUNDS):
                    subject = dice.choice(SUBJECTS)
                    text = f"{name} {life} {number}"
                    done = await one.publish(text, subject)
                    if any(report.stored for report in done.reports):
                        seq = world.acknowledged.get(subject, 0)
                        world.acknowledged[subject] = max(seq, done.seq)
                        world.notes[subject, done.seq] = text
                    await anyio.sleep(dice.uniform(0, 0.01))
                    if life < LIVES - 1 and dice.random() < 0.1:
                        files.is_dead = True
                        world.kills += 1
                        scope.cancel()
                        await anyio.sleep(0)
                if life < LIVES - 1:
                    continue
                world.done += 1
                while not world.is_over:
                    await anyio.sleep(0.02)


async def live_as_node(world, reader, url, name, dice) -> None:
    """Read and sweep, be killed, come back; what was seen of this Redis never goes back."""
    while not world.is_over:
        seen: dict[str, tuple[bytes, int]] = {}
        with anyio.CancelScope() as scope:
            async with reader(url, name) as full:
                for _ in range(dice.randrange(5, 40)):
                    if world.is_over:
                        return
                    subject = dice.choice(SUBJECTS)
                    try:
                        before = full.items.store_id
                        slots = await full.items.get(target_of(subject))
                        if full.items.store_id != before:
                            continue  # it was emptied meanwhile
                        seq = slots[0].item.seq if slots else 0
                        store, last = seen.get(subject, (before, 0))
                        if store == before and seq < last:
                            world.regressed.append(subject)
                        seen[subject] = (before, seq)
                        if dice.random() < 0.2:
                            await full.items.sweep()
                    except SkycoreError:
                        await anyio.sleep(0.05)
                    await anyio.sleep(dice.uniform(0, 0.01))
                scope.cancel()
                await anyio.sleep(0)


async def is_whole(world, full) -> bool:
    for subject, seq in world.acknowledged.items():
        slots = await full.items.get(target_of(subject))
        if not slots or slots[0].item.seq != seq:
            return False
        if await full.note(subject) != world.notes[subject, seq]:
            return False
    return True


@pytest.mark.parametrize(("seed", "redis_dies"), [(1, 0), (2, 0), (3, 2), (4, 3)])
async def test_c35_three_nodes_and_four_mirrors_lose_nothing(
    own_redis, service, reader, until, seed, redis_dies
):
    server, world, dice = own_redis(), World(), random.Random(seed)
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        for number in range(4):
            store = await stack.enter_async_context(
                open_memory_store(MemoryStoreSettings(), SeededEntropy(number))
            )
            own = random.Random(dice.random())
            tasks.start_soon(
                live_as_mirror,
                world,
                service,
                server.url,
                f"mirror{number}",
                own,
                store,
                0 if redis_dies else 1,
            )
        for number in range(3):
            own = random.Random(dice.random())
            tasks.start_soon(live_as_node, world, reader, server.url, f"node{number}", own)
        for _ in range(redis_dies):
            await anyio.sleep(dice.uniform(0.1, 0.4))
            server.stop()
            await anyio.sleep(dice.uniform(0, 0.1))
            server.start()
        async with reader(server.url, "judge") as full:
            await until(lambda: world.done == 4, 30)
            await until(lambda: is_whole(world, full), 30)
        world.is_over = True
    assert not world.regressed
    assert world.acknowledged.keys() == set(SUBJECTS)
    assert world.kills >= 4


@pytest.mark.parametrize("seed", range(2))
async def test_m8_m9_c20_flushed_and_cut_off_while_records_of_all_sizes_come(
    redis, service, reader, until, seed
):
    """Four writers in one service; notes of 1 B to 90 KB, and deletes, in batches of all sizes."""
    dice = random.Random(seed)
    last: dict[str, str | None] = {}

    async def write(one, number: int) -> None:
        texts = (None, "a", "b", "big" * 10, "big" * 30_000)
        for turn in range(40):
            names = {f"v{dice.randrange(60)}-{number}" for _ in range(dice.choice((1, 1, 2, 40)))}
            notes = {name: dice.choice((*texts, f"{turn}")) for name in sorted(names)}
            last.update(notes)
            await one.publish_all(notes)
            if dice.random() < 0.05:
                redis.send("FLUSHALL")
            if dice.random() < 0.1:
                redis.send("CLIENT", "KILL", "TYPE", "normal")

    async with service(redis.url, audit_s=0.05, check_s=0.05) as one, reader(redis.url) as full:
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(write, one, number)

        async def is_as_published() -> bool:
            return all([await full.note(name) == text for name, text in last.items()])

        await until(is_as_published, 90)
        fields = await one.fields()
        assert (fields.waiting, fields.dropped, fields.uncopied) == (0, 0, 0)
