"""Transport types that lead through somebody else: last, after a head start, without an address."""

from __future__ import annotations

import random
import types
from collections import Counter

import anyio
import pytest

from skycore import Live
from skycore.contracts.transport import RelayType
from skycore.errors import DialError, TransportError
from skycore.guards.addresses import AddressBook, as_seen
from skycore.guards.dials import Dials
from skycore.guards.links import LABELS
from skycore.guards.outbound import HEAD_START_S, Outbound
from skycore.guards.resolving import Resolver
from skycore.guards.transports import relays_last
from skycore.model.addresses import Address, Contact
from skycore.testing.fakes import identity
from skycore.testing.loop import sim_backend
from skycore.testing.seams import SimClock

KEY = identity("bob").public
DIRECT, RELAYED = Address("stcpr", "198.51.100.7:7777"), Address("dmsg", "00@198.51.100.8:1")


@pytest.fixture
def anyio_backend():
    return sim_backend(100_000)


class Direct:
    name = "stcpr"

    def __init__(self, takes_s=0.1, works=True):
        self.takes_s, self.works, self.dialled = takes_s, works, []

    async def dial(self, remote, addresses):
        self.dialled.append((anyio.current_time(), tuple(addresses)))
        await anyio.sleep(self.takes_s)
        if not self.works:
            raise TransportError("refused")
        return types.SimpleNamespace(kind=self.name, extra=lambda *a: ("", 0), aclose=anyio.sleep)

    def listen(self):
        raise NotImplementedError


class Relay(Direct):
    name = "dmsg"

    def __init__(self, can_ask=True, found=(), **more):
        super().__init__(**more)
        self.can_ask, self.found, self.asked = can_ask, found, 0

    async def find(self, remote):
        self.asked += 1
        await anyio.sleep(0.2)
        return self.found


class Side:
    """The dialling side of a node whose handshakes always work."""

    def __init__(self, tasks, *kinds):
        counters, clock = Counter(), SimClock()
        self.dials = Dials(
            lambda remote, dial: outbound.dial(remote, dial), tasks, clock, random.Random(1),
            at_once_max=64, limit_s=10, first_s=0.5, longest_s=20,
        )  # fmt: skip
        self.book = AddressBook(on_new=self.dials.clear)
        self.outbound = outbound = Outbound(
            {kind.name: kind for kind in kinds},
            types.SimpleNamespace(outbound=_secured), self.book,
            Resolver(Live([]), clock, counters, wait_s=1.5), counters,
            listening=lambda: (), learn=lambda *_: None,
            welcome=lambda kind, label, channel, host: kind, known_limit_s=5,
        )  # fmt: skip

    async def join(self, *addresses, look_up=True):
        """Dial; return what type the link is of, and how long that took."""
        began = anyio.current_time()
        if addresses:
            self.book.learn(Contact(KEY, addresses))
        self.outbound.check_known(KEY, look_up=look_up)
        kind = await self.dials.join(KEY, LABELS[0], max, look_up=look_up)
        return kind, anyio.current_time() - began


async def _secured(stream, remote, listening):
    return stream


@pytest.fixture
async def sides():
    async with anyio.create_task_group() as tasks:

        def make(*kinds):
            return Side(tasks, *kinds)

        yield make
        tasks.cancel_scope.cancel()


def test_relays_come_last_whatever_their_names():
    relay, direct = Relay(), Direct()
    assert isinstance(relay, RelayType) and not isinstance(direct, RelayType)
    assert list(relays_last([relay, direct])) == [direct, relay]


async def test_a_direct_way_that_works_leaves_relays_alone(sides):
    direct, relay = Direct(takes_s=HEAD_START_S - 0.1), Relay()
    assert await sides(direct, relay).join(DIRECT, RELAYED) == ("stcpr", pytest.approx(0.9))
    assert not relay.dialled


async def test_a_direct_way_that_hangs_is_waited_for_one_second(sides):
    direct, relay = Direct(takes_s=60), Relay()
    kind, took = await sides(direct, relay).join(DIRECT, RELAYED)
    assert kind == "dmsg" and took == pytest.approx(HEAD_START_S + 0.1)


async def test_a_direct_way_that_fails_is_not_waited_for(sides):
    kind, took = await sides(Direct(works=False), Relay()).join(DIRECT, RELAYED)
    assert kind == "dmsg" and took == pytest.approx(0.2)


async def test_a_direct_way_may_still_win_over_a_slow_relay(sides):
    kind, took = await sides(Direct(takes_s=1.5), Relay(takes_s=3)).join(DIRECT, RELAYED)
    assert kind == "stcpr" and took == pytest.approx(1.5)


async def test_without_an_address_whoever_can_be_asked_is(sides):
    relay = Relay()
    assert (await sides(Direct(), relay).join(look_up=False))[0] == "dmsg"
    assert [addresses for _, addresses in relay.dialled] == [()]
    assert not relay.asked


async def test_a_relay_looks_up_only_for_who_wants_lookups(sides):
    relay = Relay(can_ask=False, found=(RELAYED,))
    side = sides(Direct(), relay)
    with pytest.raises(DialError, match="no address"):
        await side.join(look_up=False)
    assert not relay.asked
    assert (await side.join())[0] == "dmsg"
    assert relay.dialled[0][1] == (RELAYED,)


async def test_all_that_failed_is_said(sides):
    side = sides(Direct(works=False), Relay(works=False))
    with pytest.raises(DialError) as caught:
        await side.join(DIRECT, RELAYED)
    assert DIRECT.endpoint in str(caught.value) and "dmsg: refused" in str(caught.value)


def test_what_a_relayed_connection_has_no_host_for_is_dropped():
    told = (Address("stcpr", ":7777"), Address("stcpr", "192.0.2.1:7777"), RELAYED)
    assert as_seen(told, "key-0011223344556677") == told[1:]
    assert as_seen(told, "192.0.2.9")[0].endpoint == "192.0.2.9:7777"
