"""Bulk sync between two whole nodes, every item verified; and what a repeat costs."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Figure
from benchmarks.limits import check_rate
from benchmarks.nodes import (
    CLIENT,
    ITEM_LIFE_S,
    NETWORK,
    Second,
    in_loop,
    open_node,
    second_process,
)
from benchmarks.workloads import signed_items
from skycore.contracts.dht import Dht, SyncReport
from skycore.contracts.transport import Transports
from skycore.model.addresses import parse_contact
from skycore.model.keys import PubKey
from skycore.node import Node
from skycore.runtime.clock import RealClock

ITEMS = 20_000
CHECKS = 4_000


class _Timed:
    """One sync: what it did, how long it took, the CPU of this process, bytes on the link."""

    def __init__(self, report: SyncReport, took_s: float, cpu_s: float, moved: int) -> None:
        self.report, self.took_s, self.cpu_s, self.moved = report, took_s, cpu_s, moved


async def _sync(node: Node, remote: PubKey) -> _Timed:
    transports = node.get(Transports)
    link = await transports.ensure(remote, "user")
    before, cpu, began = link.bytes_received, time.process_time(), time.perf_counter()
    report = await node.get(Dht).sync(remote)
    took = time.perf_counter() - began
    assert report.complete, report.reasons
    return _Timed(report, took, time.process_time() - cpu, link.bytes_received - before)


async def _syncs(second: Second, store: str, folder: Path | None) -> list[_Timed]:
    contact = parse_contact(NETWORK.suite, second.told["contact"])
    async with open_node(CLIENT, store=store, full=True, data=folder) as node:
        node.get(Transports).addresses.learn(contact, pinned=True)
        found = [await _sync(node, contact.public)]
        assert found[0].report.stored >= ITEMS, found[0].report  # and the peer's advert
        found.append(await _sync(node, contact.public))
        second.ask("change", share=0.01)
        found.append(await _sync(node, contact.public))
        assert found[2].report.stored >= ITEMS // 100, found[2].report
    return found


def _lines(store: str, syncs: list[_Timed], checks: float, check_cpu_s: float) -> Iterator[Figure]:
    first, again, little = syncs
    rate = ITEMS / first.took_s
    yield Figure(
        f"{store}: {ITEMS:,} items, all verified", rate, "items/s", 0.75 * checks,
        beside=f"{rate / checks:.0%} of {checks:,.0f} bare checks/s on one core; CPU an item "
        f"{first.cpu_s / ITEMS * 1e6:.0f} µs, of a bare check {check_cpu_s * 1e6:.0f} µs",
    )  # fmt: skip
    yield Figure(
        f"{store}: second sync, nothing changed", again.moved, "B", 1_024, at_most=True,
        beside=f"{again.took_s * 1e3:.1f} ms",
    )  # fmt: skip
    yield Figure(
        f"{store}: second sync, 1 % changed", little.moved / 1024, "KiB",
        0.015 * first.moved / 1024, at_most=True,
        beside=f"{little.took_s * 1e3:.0f} ms; all of it was {first.moved / 2**20:.1f} MiB, "
        f"{first.took_s * 1e3:,.0f} ms",
    )  # fmt: skip


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines."""
    until = RealClock().wall_s() + ITEM_LIFE_S
    sample = signed_items(NETWORK, CHECKS, until=until, seed=1)
    for store in ("memory", "sqlite"):
        with (
            second_process("node", "uvloop", full=True, items=ITEMS, until=until) as second,
            contextlib.ExitStack() as stack,
        ):
            cpu, before = time.process_time(), check_rate(NETWORK, sample)
            check_cpu_s = (time.process_time() - cpu) / CHECKS
            folder = None
            if store == "sqlite":
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            syncs = in_loop("uvloop", _syncs, second, f"store_{store}", folder)
            checks = (before + check_rate(NETWORK, sample)) / 2
            yield from _lines(store, syncs, checks, check_cpu_s)
