"""Dials with what sources say: one that lies costs a few dials, and nothing that is known."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import anyio
import pytest

from skycore import Live
from skycore.contracts.discovery import Record
from skycore.errors import DialError, TransportError
from skycore.guards.addresses import AddressBook
from skycore.guards.dials import Dials
from skycore.guards.links import LABELS
from skycore.guards.outbound import Outbound
from skycore.guards.resolving import Resolver
from skycore.model.addresses import Address, Contact
from skycore.model.entries import AddressBind, AddressEntry
from skycore.model.limits import HELLO_ADDRESSES_MAX
from skycore.testing.fakes import identity
from skycore.testing.loop import sim_backend
from skycore.testing.seams import SimClock

KEY = identity("bob").public
GOOD = Address("stcpr", "198.51.100.7:7777")


@pytest.fixture
def anyio_backend():
    return sim_backend(100_000)


class Liar:
    """A source that says eight other places, or the same eight, whenever it is asked."""

    name, salts, is_local = "http", frozenset({b"addr"}), False

    def __init__(self, *, is_fresh):
        self.asked, self._hosts = 0, itertools.count() if is_fresh else None

    async def find(self, salt, subject):
        self.asked += 1
        first = 8 * next(self._hosts) if self._hosts else 0
        hosts = tuple(f"203.0.{n // 250}.{n % 250 + 1}" for n in range(first, first + 8))
        return Record(salt, subject, AddressEntry(stcpr=AddressBind("7", hosts)), 1, 2**40, "http")


class Nobody:
    """A type of transport by which nobody is reached."""

    name = "stcpr"

    def __init__(self):
        self.dialled = []

    async def dial(self, remote, addresses):
        self.dialled += addresses
        await anyio.sleep(0.05)
        raise TransportError("refused")


class Side:
    """The dialling side of a node, without links."""

    def __init__(self, tasks, source):
        self.type, counters = Nobody(), Counter()
        clock = SimClock()
        self.dials = Dials(
            lambda remote, dial: outbound.dial(remote, dial), tasks, clock, random.Random(1),
            at_once_max=64, limit_s=10, first_s=0.5, longest_s=20,
        )  # fmt: skip
        self.book = AddressBook(on_new=self.dials.clear)
        resolver = Resolver(Live([source]), clock, counters, wait_s=1.5)
        outbound = Outbound(
            {"stcpr": self.type}, None, self.book, resolver, counters,
            listening=lambda: (), learn=lambda *_: None, welcome=None, known_limit_s=5,
        )  # fmt: skip

    async def insist(self, seconds):
        """Ask for a link five times a second."""
        end = anyio.current_time() + seconds
        while anyio.current_time() < end:
            with pytest.raises(DialError):
                await self.dials.join(KEY, LABELS[0], max)
            await anyio.sleep(0.2)


@pytest.mark.parametrize("is_fresh", [True, False])
async def test_a_lying_source_does_not_end_the_patience_of_dials(is_fresh):
    source = Liar(is_fresh=is_fresh)
    async with anyio.create_task_group() as tasks:
        side = Side(tasks, source)
        await side.insist(600)
        tasks.cancel_scope.cancel()
    assert source.asked < 600 / 20 * 1.3 + 10
    assert len(side.type.dialled) <= HELLO_ADDRESSES_MAX * source.asked


async def test_a_lying_source_pushes_nothing_out_of_the_book():
    async with anyio.create_task_group() as tasks:
        side = Side(tasks, Liar(is_fresh=True))
        side.book.learn(Contact(KEY, (GOOD,)))
        side.book.worked(KEY, GOOD)
        await side.insist(120)
        tasks.cancel_scope.cancel()
    assert side.book.find(KEY) == (GOOD,)
