"""Run by test_processes: be killed with -9 while writing, again and again, and count what is lost.

Prints one line of JSON. Each trial forks this process, which has everything imported, so a trial
costs milliseconds. The dice decide after how many acknowledged calls the killing comes; the child
goes on writing meanwhile, so it comes anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import struct
import sys
from pathlib import Path

import anyio

from skycore.testing.contracts.store_model import ranked, read_all
from skycore.testing.fakes import InlineWorkers, SeededEntropy
from store_sqlite.service import open_sqlite_store
from store_sqlite.settings import SqliteStoreSettings

_ACKNOWLEDGED = struct.Struct(">IQ")
_SLOTS = 40
BLOCKS = {hashlib.sha256(data).digest(): data for data in (b"%d " % n * 900 for n in range(20))}


class OneFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        return self._folder / name


def opened(folder: Path):
    return open_sqlite_store(
        SqliteStoreSettings(), OneFolder(folder), SeededEntropy(), InlineWorkers()
    )


def refs_of(slot: int, seq: int) -> list[bytes]:
    """Return the blocks that the item of a slot stands on at this seq: every other has some."""
    return [] if slot % 2 else random.Random(slot * 10**9 + seq).sample(list(BLOCKS), 3)


async def write_for_ever(folder: Path, seq: int, dice: random.Random, out: int) -> None:
    async with opened(folder) as store:
        while True:
            slots = dice.sample(range(_SLOTS), dice.randrange(1, 20))
            outcomes = await store.put_many(
                [
                    ranked(
                        b"s%d" % n,
                        seq=seq,
                        v=b"x" * dice.choice((9, 700, 20_000)),
                        refs=refs_of(n, seq),
                    )
                    for n in slots
                ],
                BLOCKS,
            )
            assert all(outcome.accepted for outcome in outcomes)
            os.write(out, b"".join(_ACKNOWLEDGED.pack(n, seq) for n in slots))
            seq += 1


async def what_is_held(folder: Path) -> dict[int, int]:
    async with opened(folder) as store:  # this runs quick_check
        held = {int(s.item.subject[1:]): s.item.seq for s in await read_all(store)}
        for slot, seq in held.items():
            assert None not in await store.blocks(refs_of(slot, seq)), "a head without its blocks"
        return held


def one_kill(folder: Path, seq: int, dice: random.Random) -> dict[int, int]:
    """Fork a writer, kill it; return what it acknowledged."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        anyio.run(write_for_ever, folder, seq, dice, write_end)
        os._exit(1)
    os.close(write_end)
    data = b""
    for _ in range(dice.randrange(1, 12)):
        data += os.read(read_end, 4096)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read_end, 4096):
        data += more
    os.close(read_end)
    whole = data[: len(data) // _ACKNOWLEDGED.size * _ACKNOWLEDGED.size]
    return dict(_ACKNOWLEDGED.iter_unpack(whole))


def main(folder: Path, trials: int) -> None:
    dice = random.Random(trials)
    acknowledged: dict[int, int] = {}
    lost = count = 0
    for _ in range(trials):
        seen = one_kill(folder, 1 + max(acknowledged.values(), default=0) + 1, dice)
        count += len(seen)
        acknowledged |= seen
        held = anyio.run(what_is_held, folder)
        assert not list(folder.glob("*.damaged*")), "the file was found damaged"
        lost += sum(held.get(n, 0) < seq for n, seq in acknowledged.items())
        acknowledged |= {n: max(seq, acknowledged.get(n, 0)) for n, seq in held.items()}
    print(json.dumps({"kills": trials, "acknowledged": count, "lost": lost}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
