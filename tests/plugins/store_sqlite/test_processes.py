"""Several processes and one file: killed writers, and nodes that want the same (Q1, Q4, Q8)."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import pytest

from skycore.errors import StoreBusyError
from skycore.testing.contracts.store_model import ranked, read_all
from skycore.testing.fakes import InlineWorkers, SeededEntropy
from store_sqlite.service import open_sqlite_store
from store_sqlite.settings import SqliteStoreSettings

pytestmark = pytest.mark.processes
HERE = Path(__file__).parent


class OneFolder:
    def __init__(self, folder):
        self._folder = folder

    def path(self, name):
        return self._folder / name


class Threads:
    async def run(self, function):
        return await anyio.to_thread.run_sync(function)


def opened(folder, workers=None):
    settings = SqliteStoreSettings(lock_wait_s=0.05)
    return open_sqlite_store(
        settings, OneFolder(folder), SeededEntropy(), workers or InlineWorkers()
    )


@pytest.mark.parametrize("kills", [100, pytest.param(1_000, marks=pytest.mark.soak)])
def test_q01_kill_9_takes_nothing_that_was_acknowledged(kills):
    script = HERE / "kill_child.py"
    # The kernel outlives the process, so memory is as good a disk as any here, and faster.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as at:
        done = subprocess.run(
            [sys.executable, str(script), at, str(kills)],
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] == kills
    assert report["acknowledged"] > kills
    assert report["lost"] == 0


_HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def holder_of(folder):
    return subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder / "items.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def test_q04_a_file_that_another_process_holds_is_refused_by_name(tmp_path):
    async with opened(tmp_path) as store:
        await store.put_many([ranked()])
    with holder_of(tmp_path) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreBusyError) as refused:
            async with opened(tmp_path, Threads()):
                pass
        assert "another node" in refused.value.hint
        assert "items.db" in str(refused.value)
        holder.stdin.close()
    async with opened(tmp_path) as store:
        assert len(await read_all(store)) == 1


async def test_q08_the_second_node_on_a_file_is_refused_and_the_first_goes_on(tmp_path):
    async with opened(tmp_path) as store:
        await store.put_many([ranked()])
        with pytest.raises(StoreBusyError, match=r"items\.db"):
            async with opened(tmp_path):
                pass
        with holder_of(tmp_path) as second:
            assert b"locked" in second.communicate(b"")[1]
        [outcome] = await store.put_many([ranked(seq=2)])
        assert outcome.accepted


async def test_the_loop_never_waits_for_the_disk(tmp_path):
    import threading

    here, seen = threading.get_ident(), []

    class Watched(Threads):
        async def run(self, function):
            def noted():
                seen.append(threading.get_ident())
                return function()

            return await super().run(noted)

    async with opened(tmp_path, Watched()) as store:
        await store.put_many([ranked()])
        await read_all(store)
    assert len(seen) == 4, "one worker call for each: start, put, listing, stop"
    assert here not in seen
