"""The contract, by the store in memory; and what only this one promises."""

from __future__ import annotations

import pytest

from skycore.contracts.store import ChangeFilter
from skycore.testing.contracts.store import StoreContract
from skycore.testing.contracts.store_house import history_within_its_bytes
from skycore.testing.contracts.store_model import START_S, lease_for, ranked
from skycore.testing.fakes import SeededEntropy
from store_memory.service import MemoryStore, open_memory_store
from store_memory.settings import MemoryStoreSettings


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def open_store(self):
        entropy = SeededEntropy()
        return lambda: open_memory_store(MemoryStoreSettings(), entropy)


async def test_each_store_has_an_id_of_its_own():
    entropy = SeededEntropy()
    async with (
        open_memory_store(MemoryStoreSettings(), entropy) as one,
        open_memory_store(MemoryStoreSettings(), entropy) as two,
    ):
        assert one.store_id != two.store_id


@pytest.mark.parametrize("versions", [0, 1, 100])
async def test_history_keeps_as_many_versions_as_the_settings_say(versions):
    settings = MemoryStoreSettings(history_versions_max=versions)
    async with open_memory_store(settings, SeededEntropy()) as store:
        await store.put_many([ranked(seq=i) for i in range(1, 111)])
        assert len(await store.history(ranked().target, 1_000)) == versions


async def test_c47_history_is_bounded_in_bytes_the_oldest_go_first():
    settings = MemoryStoreSettings(history_versions_max=50, history_bytes_max=20_000)
    async with open_memory_store(settings, SeededEntropy()) as store:
        await history_within_its_bytes(store, lambda: store._history.bytes)


@pytest.mark.parametrize("bad", [-1, 101])
def test_settings_are_bounded(bad):
    with pytest.raises(ValueError, match="history_versions_max"):
        MemoryStoreSettings(history_versions_max=bad)


async def test_rewriting_one_slot_for_ever_takes_no_memory():
    store = MemoryStore(b"i" * 16, 1)
    await store.put_many([ranked(b"s%d" % i) for i in range(100)])
    for seq in range(2, 6_000):
        new = ranked(seq=seq)
        await store.put_many([new])
        await store.renew([lease_for(new, START_S + 999)], 0)
    assert len(store._live) == 101
    assert len(store._logs[None]._positions) < 2_000
    assert len(store._logs[b"tp"]._positions) < 2_000
    assert len(store._ends) < 2_000


async def test_what_is_gone_takes_no_memory():
    store = MemoryStore(b"i" * 16, 2)
    for i in range(50):
        block = b"b%d" % i
        item = ranked(b"s%d" % i, salt=b"salt%d" % i, refs=[block.ljust(32)])
        await store.put_many([item], {block.ljust(32): block})
        await store.fingerprints(item.item.salt, [(bytes(32), b"\xff" * 32)])
    assert await store.sweep(START_S + 301) == 50
    await store.sweep(START_S + 500)
    assert set(store._logs) == set(store._shelves) == {None}
    for kept in (store._slots, store._live, store._history._slots, store._trees, store._salts,
                 store._signers, store._prints._known, store._blocks._data,
                 store._blocks._heads, store._blocks._idle, store._blocks._past,
                 store._history._ages):  # fmt: skip
        assert not kept


async def test_a_clock_set_back_does_not_keep_blocks_for_ever():
    store = MemoryStore(b"i" * 16, 0)
    late = (START_S + 3_600) * 10**9
    await store.put_many([ranked(refs=[b"h" * 32])], {b"h" * 32: b"x"})
    await store.put_many([ranked(seq=2, admitted_ns=late)])
    await store.sweep(START_S)
    await store.sweep(START_S + 121)
    assert await store.blocks([b"h" * 32]) == [None]


async def test_c32_a_put_touches_as_much_with_ten_items_as_with_ten_thousand(monkeypatch):
    store = MemoryStore(b"i" * 16, 2)
    touched = []
    monkeypatch.setattr(store, "_place", _counting(store._place, touched))
    monkeypatch.setattr(store, "_forget", _counting(store._forget, touched))
    for size in (10, 10_000):
        await store.put_many([ranked(b"%d/%d" % (size, i)) for i in range(size)])
        touched.clear()
        await store.put_many([ranked(b"%d/0" % size, seq=2)])
        assert len(touched) == 2


def _counting(function, calls):
    def counted(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return counted


async def test_a_page_far_along_the_log_does_not_read_from_its_start():
    store = MemoryStore(b"i" * 16, 0)
    await store.put_many([ranked(b"s%d" % i) for i in range(3_000)])
    half = await store.changes(None, ChangeFilter(), 2_990, 1 << 30)
    read = []
    log = store._logs[None]
    store._live = _Watched(store._live, read)
    page = await store.changes(half.cursor, ChangeFilter(), 100, 1 << 30)
    assert len(page.entries) == 10
    assert len(read) == 10
    assert len(log) == 3_000


class _Watched(dict):
    def __init__(self, held, read):
        super().__init__(held)
        self._read = read

    def __getitem__(self, key):
        self._read.append(key)
        return super().__getitem__(key)
