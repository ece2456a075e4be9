"""Types of transport are dialled beside each other, staggered; the first that stands wins."""

from __future__ import annotations

import random
import types
from collections import Counter

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skycore import Live
from skycore.contracts.transport import KeyedType, RelayType
from skycore.errors import DialError, TransportError
from skycore.guards.addresses import AddressBook
from skycore.guards.dials import Dials
from skycore.guards.links import LABELS
from skycore.guards.outbound import HEAD_START_S, NEXT_TYPE_S, Outbound
from skycore.guards.resolving import Resolver
from skycore.model.addresses import Address, Contact
from skycore.testing import simulate
from skycore.testing.fakes import identity
from skycore.testing.seams import SimClock

KEY = identity("bob").public
AT = {name: Address(name, f"198.51.100.{n}:7777") for n, name in enumerate(("stcpr", "sudph"), 1)}


class Stream:
    def __init__(self, kind):
        self.kind, self.is_closed = kind, False

    def extra(self, attribute, default=None):
        return default

    async def aclose(self):
        self.is_closed = True


class Link:
    def __init__(self, kind, stream):
        self.kind, self.stream, self.closed = kind, stream, ""

    def close(self, reason, *, tell=True):
        self.closed = reason


class Direct:
    def __init__(self, name, takes_s, works):
        self.name, self.takes_s, self.works = name, takes_s, works
        self.dialled, self.made, self.cancelled = [], [], 0

    async def dial(self, remote, addresses):
        self.dialled.append((anyio.current_time(), tuple(addresses)))
        try:
            await anyio.sleep(self.takes_s)
        except BaseException:
            self.cancelled += 1
            raise
        if not self.works:
            raise TransportError("refused")
        self.made.append(Stream(self.name))
        return self.made[-1]

    def listen(self):
        raise NotImplementedError


class Keyed(Direct):
    can_ask = True


class Relay(Keyed):
    async def find(self, remote):
        return ()


class Side:
    def __init__(self, tasks, *kinds, handshake_s=0.0):
        self.links, counters, clock = [], Counter(), SimClock()
        self.dials = Dials(
            lambda remote, dial: self.outbound.dial(remote, dial), tasks, clock, random.Random(1),
            at_once_max=64, limit_s=10, first_s=0.5, longest_s=20,
        )  # fmt: skip
        self.book = AddressBook(on_new=self.dials.clear)

        async def secured(stream, remote, listening):
            await anyio.sleep(handshake_s)
            return stream

        self.outbound = Outbound(
            {kind.name: kind for kind in kinds}, types.SimpleNamespace(outbound=secured),
            self.book, Resolver(Live([]), clock, counters, wait_s=1.5), counters,
            listening=lambda: (), learn=lambda *_: None, welcome=self.welcome, known_limit_s=5,
        )  # fmt: skip

    def welcome(self, kind, label, channel, line):
        self.links.append(Link(kind, channel))
        return self.links[-1]

    async def join(self, *addresses):
        began = anyio.current_time()
        if addresses:
            self.book.learn(Contact(KEY, addresses))
        self.outbound.check_known(KEY, look_up=False)
        link = await self.dials.join(KEY, LABELS[0], max, look_up=False)
        return link.kind, round(anyio.current_time() - began, 3)


def run(scenario, *kinds, **more):
    async def main():
        async with anyio.create_task_group() as tasks:
            await scenario(Side(tasks, *kinds, **more))
            tasks.cancel_scope.cancel()

    simulate(main)


def test_what_a_type_offers_decides_how_it_is_asked():
    assert isinstance(Keyed("sudph", 1, True), KeyedType)
    assert not isinstance(Keyed("sudph", 1, True), RelayType)
    assert not isinstance(Direct("stcpr", 1, True), KeyedType)
    assert isinstance(Relay("dmsg", 1, True), KeyedType)


def test_the_next_type_begins_a_moment_after_one_that_hangs():
    kinds = Direct("stcpr", 60, True), Keyed("sudph", 0.5, True), Relay("dmsg", 0.1, True)

    async def scenario(side):
        assert await side.join(*AT.values()) == ("sudph", NEXT_TYPE_S + 0.5)
        assert kinds[0].cancelled == 1 and not kinds[2].dialled

    assert 0.25 <= NEXT_TYPE_S <= 0.5
    run(scenario, *kinds)


def test_the_next_type_begins_at_once_when_one_failed():
    kinds = Direct("stcpr", 0.05, False), Keyed("sudph", 0.5, True)

    async def scenario(side):
        assert await side.join(*AT.values()) == ("sudph", 0.55)

    run(scenario, *kinds)


def test_a_key_without_an_address_is_dialled_by_who_can_find_it():
    sudph, relay = Keyed("sudph", 0.5, True), Relay("dmsg", 0.1, True)

    async def scenario(side):
        assert await side.join() == ("sudph", 0.5)
        assert sudph.dialled == [(0.0, ())] and not relay.dialled

    run(scenario, Direct("stcpr", 1, True), sudph, relay)


def test_a_relay_comes_last_and_after_its_head_start():
    kinds = Direct("stcpr", 60, True), Keyed("sudph", 60, True), Relay("dmsg", 0.1, True)

    async def scenario(side):
        kind, took = await side.join(*AT.values())
        assert kind == "dmsg" and took == pytest.approx(NEXT_TYPE_S + HEAD_START_S + 0.1)

    run(scenario, *kinds)


def test_all_addresses_of_a_type_that_tries_them_by_itself_are_given_at_once():
    sudph = Keyed("sudph", 0.1, True)
    other = Address("sudph", "198.51.100.9:1")

    async def scenario(side):
        await side.join(AT["sudph"], other)
        assert set(sudph.dialled[0][1]) == {AT["sudph"], other}

    run(scenario, sudph)


def test_all_that_failed_is_told():
    kinds = Direct("stcpr", 0.1, False), Keyed("sudph", 0.1, False), Relay("dmsg", 0.1, False)

    async def scenario(side):
        with pytest.raises(DialError, match=r"stcpr .*: refused; sudph .*: refused; dmsg: refused"):
            await side.join(*AT.values())

    run(scenario, *kinds)


def outcomes():
    return st.tuples(st.sampled_from((0.0, 0.1, 0.4, 0.5, 0.9, 1.0, 1.4, 3.0)), st.booleans())


@settings(max_examples=50, deadline=None)
@given(st.tuples(outcomes(), outcomes(), outcomes()), st.sampled_from((0.0, 0.1, 0.4)))
def test_one_link_is_left_and_every_loser_is_closed(each, handshake_s):
    """Whatever takes how long: at most one link, open, of a type that works; no stream is left."""
    names = ("stcpr", "sudph", "dmsg")
    made = zip((Direct, Keyed, Relay), names, each, strict=True)
    kinds = [one(name, takes_s, works) for one, name, (takes_s, works) in made]

    async def scenario(side):
        try:
            kind, _ = await side.join(*AT.values())
        except DialError:
            assert not any(works for _, works in each)
            return
        (link,) = (one for one in side.links if not one.closed)
        assert link.kind == kind and dict(zip(names, each, strict=True))[kind][1]
        for stream in (s for one in kinds for s in one.made):
            closed_link = any(one.stream is stream and one.closed for one in side.links)
            assert (stream is link.stream) != (stream.is_closed or closed_link)

    run(scenario, *kinds, handshake_s=handshake_s)
