from __future__ import annotations

import anyio
import pytest

from skycore.contracts.security import Hello
from skycore.errors import RemoteProtocolError, TransportClosedError
from skycore.guards.links import Link
from skycore.guards.refusals import Refusals
from skycore.model.limits import TRANSPORT_QUEUE_MAX
from skycore.model.packets import PacketParser, encode_packet, transport_id
from skycore.testing.fakes import identity
from skycore.testing.loop import sim_backend
from skycore.testing.seams import SimClock

TICK_S = 10 / 3


@pytest.fixture
def anyio_backend():
    return sim_backend(3_600)


class Channel:
    """The peer, played by the test: what the link sent, and what it will receive."""

    def __init__(self):
        self.remote = identity("peer").public
        self.hello = Hello(1, (), self.remote, 0, b"i" * 16)
        self.sent = []
        self.closed = False
        self.reads = True
        self.lost = None
        self._held = []
        self._some = anyio.Event()

    def say(self, data):
        self._held.append(data)
        self._some.set()

    def lose(self, error):
        self.lost = error
        self._some.set()

    async def receive(self):
        while not self._held:
            if self.lost is not None:
                raise self.lost
            self._some = anyio.Event()
            await self._some.wait()
        return self._held.pop(0)

    async def send(self, data):
        if self.lost is not None:
            raise self.lost
        if not self.reads:
            await anyio.sleep_forever()
        self.sent.append(data)

    async def aclose(self):
        self.closed = True

    def packets(self):
        return [(kind, payload) for kind, _, payload in PacketParser().feed(b"".join(self.sent))]


class Owner:
    def __init__(self):
        self.clock = SimClock()
        self.refusals = Refusals(self.clock)
        self.handlers = {}
        self.closed = []
        self.ended = []

    def link_closed(self, link):
        self.closed.append(link)

    def link_ended(self, link):
        self.ended.append(link)


class Handler:
    def __init__(self, error=None):
        self.got = []
        self.refusals = []
        self.error = error

    def packet(self, transport, payload):
        self.got.append(payload)
        if self.error is not None:
            raise self.error

    def closed(self, transport):
        pass

    def refused(self, transport, reason):
        self.refusals.append(reason)


class Bench:
    """A link under test, its peer and its owner; leaving the context ends it."""

    def __init__(self, label="ephemeral", *, is_watched=False):
        self.channel, self.owner = Channel(), Owner()
        self.link = Link(
            self.owner,
            self.channel,
            link_id=transport_id(identity("me").public, self.channel.remote, "test"),
            transport_type="test",
            dialled=True,
            label=label,
            first_ping_s=0.0,
            ping_interval_s=10.0,
            is_watched=is_watched,
        )

    async def __aenter__(self):
        self.tasks = anyio.create_task_group()
        await self.tasks.__aenter__()
        self.tasks.start_soon(self.link.run)
        await anyio.wait_all_tasks_blocked()
        return self

    async def __aexit__(self, *error):
        self.tasks.cancel_scope.cancel()
        await self.tasks.__aexit__(*error)
        assert self.channel.closed
        assert self.owner.ended == [self.link] == self.owner.closed

    async def settle(self):
        await anyio.wait_all_tasks_blocked()

    async def tick(self, count=1, answer=False):
        for _ in range(count):
            await anyio.sleep(TICK_S)
            self.link.tick(self.owner.clock.now())
            await self.settle()
            if answer:
                for kind, payload in self.channel.packets():
                    if kind == 8:
                        self.channel.say(encode_packet(9, payload[:8]))
                self.channel.sent.clear()
                await self.settle()


async def test_packets_of_one_turn_leave_in_one_write():
    async with Bench() as bench:
        for n in range(64):
            bench.link.send(128, bytes((n,)))
        await bench.settle()
        assert len(bench.channel.sent) == 1
        assert bench.channel.packets() == [(128, bytes((n,))) for n in range(64)]
        assert bench.link.bytes_sent == 64 * 8 and bench.link.unsent == 0


async def test_dispatches_by_type_and_counts():
    async with Bench() as bench:
        one, other = Handler(), Handler()
        bench.owner.handlers.update({12: one, 128: other})
        data = encode_packet(12, b"a") + encode_packet(128, b"b") + encode_packet(12, b"")
        bench.channel.say(data)
        await bench.settle()
        assert one.got == [b"a", b""] and other.got == [b"b"]
        assert bench.link.bytes_received == len(data)


async def test_t4891_a_link_fed_byte_by_byte():
    async with Bench() as bench:
        bench.owner.handlers[12] = handler = Handler()
        for byte in encode_packet(12, b"hello") * 3:
            bench.channel.say(bytes((byte,)))
        await bench.settle()
        assert handler.got == [b"hello"] * 3


async def test_an_unclaimed_type_is_counted_and_answered_once_a_tick():
    async with Bench() as bench:
        bench.channel.say(encode_packet(200, b"x") * 1_000 + encode_packet(201, b""))
        await bench.settle()
        assert bench.link.packets_dropped == 1_001
        kinds = [kind for kind, _ in bench.channel.packets()]
        assert kinds == [6, 6]
        assert bench.channel.packets()[0][1] == b"\xc8packet type 200 is not served here"
        await bench.tick(answer=True)
        bench.channel.say(encode_packet(200, b"x"))
        await bench.settle()
        assert [kind for kind, _ in bench.channel.packets()] == [6]
        assert not bench.link.closed


async def test_error_never_answers_error():
    async with Bench() as bench:
        for text in (b"", b"\xc8", b"\xc8no", b"\x0cno", b"\xff" * 300):
            if text[:1] not in (b"", b"\0"):
                bench.channel.say(encode_packet(6, text))
        await bench.settle()
        assert bench.channel.sent == [] and not bench.link.closed


async def test_a_refusal_reaches_the_handler_of_its_type():
    async with Bench() as bench:
        bench.owner.handlers[14] = handler = Handler()
        bench.channel.say(encode_packet(6, b"\x0enot\nhere\x1b"))
        await bench.settle()
        assert handler.refusals == ["not?here?"]


async def test_an_error_about_the_link_is_the_reason_of_its_end():
    async with Bench() as bench:
        bench.channel.say(encode_packet(6, b"\0too many transports"))
        await bench.settle()
        assert bench.link.closed == "closed by the peer: too many transports"


async def test_foreign_routes_are_counted_and_dropped():
    async with Bench() as bench:
        bench.owner.handlers[12] = handler = Handler()
        bench.channel.say(encode_packet(12, b"x", 7) + encode_packet(250, b"x", 1))
        await bench.settle()
        assert handler.got == [] and bench.channel.sent == []
        assert bench.link.packets_dropped == 2


@pytest.mark.parametrize("payload", [b"", b"x" * 7, b"x" * 65])
async def test_f3_a_malformed_ping_closes_with_a_named_error(payload):
    async with Bench() as bench:
        bench.channel.say(encode_packet(8, payload))
        await bench.settle()
        assert bench.link.closed == (
            f"the peer broke the protocol: a transport ping of {len(payload)} bytes"
        )


async def test_a_handlers_protocol_error_closes_this_link_and_tells_the_peer():
    async with Bench() as bench:
        bench.owner.handlers[12] = Handler(RemoteProtocolError("bad frame"))
        bench.channel.say(encode_packet(12, b"x") * 2)
        await bench.settle()
        assert bench.link.closed == "the peer broke the protocol: bad frame"
        assert bench.channel.packets()[-1] == (6, b"\0the peer broke the protocol: bad frame")
        assert len(bench.owner.handlers[12].got) == 1


async def test_a_handlers_mistake_closes_this_link_and_is_logged_by_name(caplog):
    async with Bench() as bench:
        bench.owner.handlers[12] = Handler(KeyError("oops"))
        bench.channel.say(encode_packet(12, b"x"))
        await bench.settle()
        assert "Handler failed" in bench.link.closed
        assert "handler=Handler" in caplog.text


async def test_f11_a_peer_that_never_reads_costs_four_mebibytes_and_its_link():
    async with Bench() as bench:
        bench.channel.reads = False
        with pytest.raises(TransportClosedError, match="does not read"):
            while True:
                bench.link.send(12, bytes(16_384))
                assert bench.link.unsent <= TRANSPORT_QUEUE_MAX
        with pytest.raises(TransportClosedError):
            bench.link.send(12, b"x")


async def test_f11_a_flood_of_pings_without_reading_ends_the_link():
    async with Bench() as bench:
        bench.channel.reads = False
        pings = encode_packet(8, bytes(8)) * 10_000
        for _ in range(40):
            bench.channel.say(pings)
        await bench.settle()
        assert "does not read" in bench.link.closed
        assert bench.link.unsent <= TRANSPORT_QUEUE_MAX + 1_000


async def test_a_write_that_hangs_for_a_minute_ends_the_link_although_the_peer_talks():
    async with Bench() as bench:
        bench.channel.reads = False
        bench.link.send(12, b"x")
        await bench.settle()
        ticks = 0
        while not bench.link.closed:
            bench.channel.say(encode_packet(9, bytes(8)))
            await bench.tick()
            ticks += 1
        assert "nothing could be sent for a minute" in bench.link.closed
        assert 50 <= ticks * TICK_S <= 70


async def test_t3933_an_idle_link_lives_as_long_as_pings_are_answered():
    async with Bench() as bench:
        await bench.tick(180, answer=True)  # ten minutes
        assert not bench.link.closed
        assert bench.link.rtt_s is not None
        assert bench.link.bytes_sent == 180 / 3 * 16


async def test_t2942_a_silent_peer_is_noticed_within_twenty_seconds():
    async with Bench() as bench:
        await bench.tick(30, answer=True)
        began = anyio.current_time()
        while not bench.link.closed:
            await bench.tick()
        assert bench.link.closed == "no answer to 3 pings"
        assert 10 <= anyio.current_time() - began <= 20.1


@pytest.mark.parametrize("late", [0.01, 0.3, 0.5, 0.7, 0.99])
async def test_t2942_nor_later_if_its_last_byte_came_between_two_looks(late):
    async with Bench() as bench:
        bench.owner.handlers[12] = Handler()
        await bench.tick(9, answer=True)
        await anyio.sleep(late * TICK_S)
        bench.channel.say(encode_packet(12, b"x"))
        began = anyio.current_time()
        await anyio.sleep((1 - late) * TICK_S)
        bench.link.tick(bench.owner.clock.now())
        while not bench.link.closed:
            await bench.tick()
        assert 10 <= anyio.current_time() - began <= 20.1


async def test_u7_a_link_that_its_type_watches_over_is_silent_and_kept():
    async with Bench(is_watched=True) as bench, anyio.create_task_group() as tasks:
        await bench.tick(30, answer=True)
        noticed = []

        async def notice():
            await bench.link.wait_silent()
            noticed.append(anyio.current_time())

        tasks.start_soon(notice)
        began = anyio.current_time()
        await bench.tick(14)  # 47 s, longer than any type holds on by itself
        assert not bench.link.closed and bench.link.is_silent
        assert 10 <= noticed[0] - began <= 20.1
        bench.channel.say(encode_packet(9, bytes(8)))
        await bench.settle()
        assert not bench.link.is_silent  # at once, not at the next look
        await bench.tick(30, answer=True)
        assert not bench.link.is_silent and bench.link.rtt_s is not None
        began = anyio.current_time()
        while not bench.link.closed:
            await bench.tick()
        assert bench.link.closed == "no answer to 18 pings"
        assert 60 <= anyio.current_time() - began <= 70


async def test_a_closed_link_is_waited_for_no_more():
    async with Bench() as bench:
        bench.link.close("enough")
        await bench.link.wait_silent()


async def test_a_peer_that_is_heard_is_pinged_once_a_minute_only():
    async with Bench() as bench:
        bench.owner.handlers[12] = Handler()
        await bench.tick(2, answer=True)
        before = bench.link.bytes_sent
        for _ in range(180):  # ten minutes
            bench.channel.say(encode_packet(12, b"x"))
            await bench.tick(answer=True)
        assert 9 <= (bench.link.bytes_sent - before) / 16 <= 10
        bench.link.strengthen("user")  # and at once when there is something to say
        await bench.tick()
        assert bench.channel.packets()[-1][1][8:] == b"\1"


@pytest.mark.parametrize("phase", [0.0, 0.2, 0.5, 0.8])
async def test_two_idle_ends_take_turns_with_pinging(phase):
    async with Bench() as one, Bench() as two:
        pings = 0
        for _ in range(180):  # ten minutes
            await anyio.sleep((1 - phase) * TICK_S)
            for bench, other in ((one, two), (two, one)):
                bench.link.tick(bench.owner.clock.now())
                for _ in range(2):  # there and back
                    for end, far in ((bench, other), (other, bench)):
                        await end.settle()
                        pings += sum(kind == 8 for kind, _ in end.channel.packets())
                        for data in end.channel.sent:
                            far.channel.say(data)
                        end.channel.sent.clear()
                await anyio.sleep(phase * TICK_S if bench is one else 0)
        assert not one.link.closed and not two.link.closed
        assert one.link.rtt_s is not None and two.link.rtt_s is not None
        assert pings <= 0.65 * 2 * 60


async def test_a_peer_that_sends_is_alive_even_if_its_pongs_are_slow():
    async with Bench() as bench:
        bench.owner.handlers[12] = Handler()
        for _ in range(60):
            bench.channel.say(encode_packet(12, b"x"))
            await bench.tick()
        assert not bench.link.closed and bench.link.rtt_s is None


async def test_only_the_pong_of_our_ping_is_a_measurement():
    async with Bench() as bench:
        await bench.tick()
        bench.channel.say(encode_packet(9, b"12345678"))
        await bench.settle()
        assert bench.link.rtt_s is None
        stamp = bench.channel.packets()[-1][1][:8]
        await anyio.sleep(0.25)
        bench.channel.say(encode_packet(9, stamp))
        await bench.settle()
        assert bench.link.rtt_s == pytest.approx(0.25)
        bench.channel.say(encode_packet(9, stamp))
        await bench.settle()
        assert bench.link.rtt_s == pytest.approx(0.25)


async def test_pings_say_whether_the_link_is_wanted():
    async with Bench() as bench:
        await bench.tick(answer=False)
        assert bench.channel.packets()[-1][1][8:] == b"\0"
        bench.link.strengthen("user")
        bench.link.strengthen("automatic")
        assert bench.link.label == "user"
        await bench.tick()
        assert bench.channel.packets()[-1][1][8:] == b"\1"
        bench.channel.say(encode_packet(8, bytes(8)))
        await bench.settle()
        assert not bench.link.peer_keeps
        bench.channel.say(encode_packet(8, bytes(8) + b"\1"))
        await bench.settle()
        assert bench.link.peer_keeps
        assert bench.channel.packets()[-1] == (9, bytes(8))


async def test_t4998_closing_takes_no_longer_because_the_peer_does_not_read():
    async with Bench() as bench:
        bench.channel.reads = False
        bench.link.send(12, bytes(1_000))
        await bench.settle()
        began = anyio.current_time()
        await bench.link.aclose("enough")
        assert anyio.current_time() - began <= 0.1
        assert bench.channel.closed and bench.link.closed == "enough"


async def test_closing_sends_what_is_queued_then_the_reason():
    async with Bench() as bench:
        bench.link.send(12, b"last words")
        await bench.link.aclose("enough")
        assert bench.channel.packets() == [(12, b"last words"), (6, b"\0enough")]
        await bench.link.aclose("again")
        assert bench.link.closed == "enough"


async def test_closing_wakes_whoever_drains():
    async with Bench() as bench:
        bench.channel.reads = False
        bench.link.send(12, bytes(60_000))
        for _ in range(40):
            bench.link.send(12, bytes(60_000))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.link.drain)
            await bench.settle()
            await bench.link.aclose("enough")
        await bench.link.drain()


async def test_t4936_a_lost_connection_is_told_at_once():
    async with Bench() as bench:
        bench.channel.lose(TransportClosedError("reset"))
        await bench.settle()
        assert bench.link.closed == "closed by the peer: reset"
        assert bench.owner.ended == [bench.link]


async def test_a_forged_frame_is_a_named_end():
    async with Bench() as bench:
        bench.channel.lose(RemoteProtocolError("forged frame"))
        await bench.settle()
        assert bench.link.closed == "the peer broke the protocol: forged frame"


async def test_a_channel_with_a_mistake_ends_its_link_only(caplog):
    async with Bench() as bench:
        bench.channel.lose(KeyError("x"))
        await bench.settle()
        assert bench.link.closed == "reading failed"
    async with Bench() as bench:
        bench.channel.send = None
        bench.link.send(12, b"x")
        await bench.settle()
        assert bench.link.closed == "writing failed"


async def test_closed_before_it_ran():
    bench = Bench()
    bench.link.close("never mind", tell=False)
    await bench.link.run()
    assert bench.channel.closed and bench.owner.ended == [bench.link]
