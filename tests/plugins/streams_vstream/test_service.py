"""The part over links in memory: the contract's suite, and what is its own."""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest

from skycore.contracts.streams import Service, Streams
from skycore.errors import DialError, PluginConflictError, StreamError, TransportClosedError
from skycore.model.limits import TRANSPORT_QUEUE_MAX
from skycore.testing.contracts.streams import StreamsContract, StreamsPair
from skycore.testing.fakes import FakeClock, identity
from skycore.testing.links import linked_transports
from streams_vstream.core.frames import DATA, FIN, RST, SYN, WINDOW_UPDATE, header
from streams_vstream.service import VStreams, open_vstream
from streams_vstream.settings import VStreamSettings

ECHO = Service("echo", 200, 4_200)
OTHER = Service("other", 201, 4_201)
ALICE, BOB, CAROL = (identity(name).public for name in ("alice", "bob", "carol"))
LIMIT_S = 30.0


@asynccontextmanager
async def nodes(settings=VStreamSettings(), keys=(ALICE, BOB), limit_s=LIMIT_S):  # noqa: B008
    """Nodes with links between them: `.a` and `.b` carry streams, `.ta` and `.tb` links."""
    with anyio.fail_after(limit_s):
        async with linked_transports(*keys) as links, AsyncExitStack() as stack:
            clock = FakeClock()
            node = SimpleNamespace(clock=clock)
            for name, link in zip("abc", links, strict=False):
                part = await stack.enter_async_context(open_vstream(settings, link, clock))
                setattr(node, name, part)
                setattr(node, "t" + name, link)
            yield node


async def settle(turns=50):
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()


async def echo(stream):
    while data := await stream.receive():
        await stream.send(data)
    await stream.aclose()


async def serve(listener):
    async with anyio.create_task_group() as tasks:
        while True:
            tasks.start_soon(echo, await listener.accept())


async def read_all(stream):
    parts = []
    while data := await stream.receive():
        parts.append(data)
    return b"".join(parts)


async def send_all(stream, data):
    await stream.send(data)
    await stream.send_eof()


def sessions(part):
    assert isinstance(part, VStreams)
    return [link.session for c in part._carriers.values() for link in c.links.values()]


def table(part):
    return sum(len(session.channels) for session in sessions(part))


class TestContract(StreamsContract):
    @pytest.fixture
    async def pair(self):
        async with nodes() as n:

            async def lose():
                for transport in n.ta.all():
                    await transport.aclose("unplugged")

            yield StreamsPair(n.a, n.b, ALICE, BOB, lose, CAROL)


def test_the_part_is_named():
    assert VStreams.name == "transport"
    assert isinstance(VStreams.name, str) and Streams


# --- correctness over one transport --------------------------------------------------------------


async def echo_many(n, count, size, seed):
    """`count` streams from each side at once, each sends `size` bytes and compares the echo."""
    good = []

    async def call(part, key, number):
        data = hashlib.shake_128(b"%d %d %b" % (seed, number, key)).digest(size)
        stream = await part.dial(key, ECHO)

        async def write():
            await stream.send(data)
            await stream.send_eof()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            assert await read_all(stream) == data
        await stream.aclose()
        good.append(number)

    async with n.a.listen(ECHO) as la, n.b.listen(ECHO) as lb, anyio.create_task_group() as tasks:
        tasks.start_soon(serve, la)
        tasks.start_soon(serve, lb)
        async with anyio.create_task_group() as calls:
            for number in range(count):
                calls.start_soon(call, n.a, BOB, number)
                calls.start_soon(call, n.b, ALICE, number)
        await settle()
        assert table(n.a) == table(n.b) == 0
        tasks.cancel_scope.cancel()
    assert len(good) == 2 * count
    assert len(n.ta.all()) == 1, "one transport carried all of them"
    for part in (n.a, n.b):
        assert [s.counters for s in sessions(part)] == [{}], "nothing dropped, nothing refused"


async def test_c42_a_thousand_streams_both_ways_over_one_transport():
    async with nodes() as n:
        await echo_many(n, 1_000, 2_000, seed=42)


@pytest.mark.soak
async def test_c42_a_thousand_streams_of_a_megabyte_both_ways():
    async with nodes(limit_s=600.0) as n:
        await echo_many(n, 1_000, 1_000_000, seed=43)


async def test_t4727_ten_mebibytes_echoed_by_64_streams_both_sides_opening():
    async with nodes() as n:
        await echo_many(n, 32, 10 * 1024 * 1024 // 64, seed=4727)


async def test_t4727_ten_mebibytes_on_one_stream():
    async with nodes() as n:
        await echo_many(n, 1, 10 * 1024 * 1024, seed=1)


@pytest.mark.parametrize("size", [65_535, 65_536, 70_042, 200_000, 262_144, 262_145])
async def test_o16_a_single_write_over_64_kib_arrives_whole(size):
    async with nodes() as n, n.b.listen(ECHO) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(serve, listener)
        data = hashlib.shake_128(b"o16").digest(size)
        stream = await n.a.dial(BOB, ECHO)
        async with anyio.create_task_group() as writing:
            writing.start_soon(stream.send, data)
            got = b""
            while len(got) < size:
                got += await stream.receive()
        assert got == data
        tasks.cancel_scope.cancel()


async def test_o15_two_diallers_get_their_own_bytes():
    async with (
        nodes(keys=(ALICE, BOB, CAROL)) as n,
        n.b.listen(ECHO) as listener,
    ):
        one, two = await n.a.dial(BOB, ECHO), await n.c.dial(BOB, ECHO)
        await one.send(b"from alice")
        await two.send(b"from carol")
        for _ in range(2):  # one queue spans both transports
            stream = await listener.accept()
            name = {ALICE: b"from alice", CAROL: b"from carol"}[stream.remote]
            assert await stream.receive() == name
            await stream.send(name.upper())
        assert await one.receive() == b"FROM ALICE"
        assert await two.receive() == b"FROM CAROL"
        assert one._channel.id == two._channel.id == 1


async def test_o17_the_part_stops_with_open_streams():
    with anyio.fail_after(LIMIT_S):
        async with (
            linked_transports(ALICE, BOB) as (ta, tb),
            open_vstream(VStreamSettings(), tb, FakeClock()) as b,
            b.listen(ECHO) as listener,
        ):
            async with open_vstream(VStreamSettings(), ta, FakeClock()) as a:
                near = await a.dial(BOB, ECHO)
                await near.send(b"x")
                far = await listener.accept()
                assert await far.receive() == b"x"
            assert not ta.handlers, "claims end with the part"
            with pytest.raises(StreamError, match="stopping"):
                await near.receive()
            with pytest.raises(StreamError, match="reset"):
                await far.receive()


async def test_ten_thousand_streams_leave_nothing():
    async with nodes() as n, n.b.listen(ECHO) as listener, anyio.create_task_group() as tasks:

        async def worker():
            while True:
                await echo(await listener.accept())

        for _ in range(4):
            tasks.start_soon(worker)

        async def calls():
            for _ in range(2_500):
                stream = await n.a.dial(BOB, ECHO)
                await stream.send(b"ping")
                assert await stream.receive() == b"ping"
                await stream.aclose()

        async with anyio.create_task_group() as four:
            for _ in range(4):
                four.start_soon(calls)
        await settle()
        for part in (n.a, n.b):
            (session,) = sessions(part)
            assert not session.channels and session.idle and session.opening == 0
            assert session.backlog == session.unread_bytes == 0
            assert session.counters == {}
        tasks.cancel_scope.cancel()


async def test_a_small_request_is_one_packet_each_way():
    async with nodes() as n, n.b.listen(ECHO) as listener:
        near = await n.a.dial(BOB, ECHO)
        (transport,) = n.ta.all()
        assert transport.packets_sent == 0, "the SYN waits for data"
        await near.send(b"request")
        far = await listener.accept()
        assert await far.receive() == b"request"
        await far.send(b"reply")
        assert await near.receive() == b"reply"
        assert (transport.packets_sent, transport.other.packets_sent) == (1, 1)


async def test_many_small_writes_share_packets():
    async with nodes() as n, n.b.listen(ECHO) as listener:
        streams = [await n.a.dial(BOB, ECHO) for _ in range(64)]
        for stream in streams:
            await stream.send(b"x" * 64)
            await stream.send_eof()
        for _ in range(64):
            assert await read_all(await listener.accept()) == b"x" * 64
        (transport,) = n.ta.all()
        assert transport.packets_sent <= 8


# --- back-pressure -------------------------------------------------------------------------------


async def test_the_transport_never_closes_for_a_full_queue_while_its_peer_reads():
    async with nodes() as n, n.b.listen(ECHO) as listener, anyio.create_task_group() as tasks:
        done = []

        async def write():
            stream = await n.a.dial(BOB, ECHO)
            await stream.send(bytes(200_000))
            await stream.send_eof()
            done.append(stream)

        first = await n.a.dial(BOB, ECHO)
        (transport,) = n.ta.all()
        transport.held = True
        for _ in range(100):  # 20 MB into windows that are all open
            tasks.start_soon(write)
        await settle()
        assert len(done) < 100
        assert transport._queued < TRANSPORT_QUEUE_MAX
        transport.release()
        for _ in range(100):
            assert len(await read_all(await listener.accept())) == 200_000
        assert not transport.closed
        await first.aclose()


async def test_f19_a_stalled_reader_uses_its_window_and_delays_nobody():
    async with nodes() as n, n.b.listen(ECHO) as listener, anyio.create_task_group() as tasks:
        stalled = await n.a.dial(BOB, ECHO)
        tasks.start_soon(stalled.send, bytes(1_000_000))
        far = await listener.accept()
        tasks.start_soon(serve, listener)
        await settle()
        for i in range(100):
            stream = await n.a.dial(BOB, ECHO)
            await stream.send(b"%d" % i)
            assert await stream.receive() == b"%d" % i
            await stream.aclose()
            assert far._channel.unread_bytes == 262_144
        tasks.cancel_scope.cancel()


async def test_a_sender_that_gives_up_its_turn_blocks_nobody():
    async with nodes() as n, n.b.listen(ECHO) as listener:
        streams = [await n.a.dial(BOB, ECHO) for _ in range(40)]
        (transport,) = n.ta.all()
        transport.held = True
        async with anyio.create_task_group() as given_up:
            for stream in streams[:30]:
                given_up.start_soon(send_all, stream, bytes(100_000))
            await settle()
            given_up.cancel_scope.cancel()
        async with anyio.create_task_group() as writing:
            for stream in streams[30:]:
                writing.start_soon(send_all, stream, b"\1" * 100_000)
            await settle()
            transport.release()
        whole = 0
        while whole < 10:
            far = await listener.accept()
            try:
                whole += await read_all(far) == b"\1" * 100_000
            except StreamError as broken:
                assert "reset" in str(broken)


async def test_a_send_cancelled_half_way_resets_the_stream():
    async with nodes() as n, n.b.listen(ECHO) as listener:
        near = await n.a.dial(BOB, ECHO)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(near.send, bytes(300_000))
            far = await listener.accept()
            await settle()
            tasks.cancel_scope.cancel()
        with pytest.raises(StreamError, match="cancelled half-way"):
            await near.send(b"x")
        with pytest.raises(StreamError, match="reset"):
            while await far.receive():
                pass


async def test_a_send_cancelled_before_its_first_byte_changes_nothing():
    async with nodes() as n, n.b.listen(ECHO) as listener:
        near = await n.a.dial(BOB, ECHO)
        await near.send(bytes(262_144))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(near.send, b"never")
            await settle()
            tasks.cancel_scope.cancel()
        await near.send_eof()
        assert len(await read_all(await listener.accept())) == 262_144


async def test_dial_waits_for_a_slow_acceptor_and_survives_cancellation():
    async with nodes() as n, n.b.listen(ECHO) as listener:
        opened = []

        async def call():
            stream = await n.a.dial(BOB, ECHO)
            await stream.send(b"x")
            opened.append(stream)

        async with anyio.create_task_group() as given_up:
            for _ in range(300):
                given_up.start_soon(call)
            await settle()
            assert len(opened) == 256, "the peer's backlog is not overrun"
            given_up.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            for _ in range(44):
                tasks.start_soon(call)
            await settle()
            assert len(opened) == 256
            for _ in range(300):
                assert await (await listener.accept()).receive() == b"x"
        assert len(opened) == 300
        assert [s.counters for s in sessions(n.b)] == [{}]


# --- loss and refusal ----------------------------------------------------------------------------


async def test_t4936_a_dead_transport_fails_all_its_streams_at_once():
    async with nodes() as n, n.b.listen(ECHO) as listener:
        failed = []

        async def blocked(stream):
            with pytest.raises(StreamError, match="gone: cable cut"):
                await stream.receive()
            failed.append(stream)

        async with anyio.create_task_group() as tasks:
            for _ in range(27):
                stream = await n.a.dial(BOB, ECHO)
                await stream.send(b"x")
                tasks.start_soon(blocked, stream)
                far = await listener.accept()
                await far.receive()
                tasks.start_soon(blocked, far)
            unsent = await n.a.dial(BOB, ECHO)
            waiting = await n.a.dial(BOB, ECHO)
            tasks.start_soon(blocked, waiting)
            writer = await n.a.dial(BOB, ECHO)

            async def write():
                with pytest.raises(StreamError, match="cable cut"):
                    await writer.send(bytes(1_000_000))
                failed.append(writer)

            tasks.start_soon(write)
            await settle()
            await n.ta.all()[0].aclose("cable cut")
        assert len(failed) == 56
        with pytest.raises(StreamError, match="cable cut"):
            await unsent.send(b"x")
        assert n.a._carriers == n.b._carriers == {}
        await unsent.aclose()


async def test_what_had_arrived_before_the_loss_is_still_read():
    async with nodes() as n, n.b.listen(ECHO) as listener:
        near = await n.a.dial(BOB, ECHO)
        await near.send(b"whole")
        await near.send_eof()
        far = await listener.accept()
        await settle()
        await n.ta.all()[0].aclose("cable cut")
        assert await read_all(far) == b"whole"


async def test_dial_tries_once_more_when_the_transport_dies_in_between():
    async with nodes() as n, n.b.listen(ECHO) as listener:
        ensure, deaths = n.ta.ensure, []

        async def dying(remote, label="ephemeral", **more):
            transport = await ensure(remote, label)
            if len(deaths) < limit:
                deaths.append(transport)
                await transport.aclose("died young")
            return transport

        n.ta.ensure = dying
        limit = 1
        stream = await n.a.dial(BOB, ECHO)
        await stream.send(b"x")
        assert await (await listener.accept()).receive() == b"x"
        await n.ta.all()[0].aclose("next")
        limit = 3
        with pytest.raises(DialError, match="died young"):
            await n.a.dial(BOB, ECHO)
        assert len(deaths) == 3


async def test_f15_used_up_ids_dial_a_new_transport_once_old_streams_are_done():
    async with nodes() as n, n.b.listen(ECHO) as listener:
        first = await n.a.dial(BOB, ECHO)
        (session,) = sessions(n.a)
        session._next_id, session._ids_left = 2**32 - 3, 2
        await first.send(b"first")
        assert first._channel.id == 2**32 - 3
        second = await n.a.dial(BOB, ECHO)
        await second.send(b"second")
        assert second._channel.id == 2**32 - 1
        session._ids_left = 0
        with pytest.raises(DialError, match="StreamsExhausted"):
            await n.a.dial(BOB, ECHO)
        for stream, word in ((first, b"first"), (second, b"second")):  # old streams finish
            far = await listener.accept()
            assert await far.receive() == word
            await far.send(word)
            assert await stream.receive() == word
            await stream.aclose()
            await far.aclose()
        await settle()
        old = n.ta.all()[0]
        third = await n.a.dial(BOB, ECHO)
        await third.send(b"third")
        assert await (await listener.accept()).receive() == b"third"
        assert n.ta.all() != (old,) and "ids are used up" in old.closed


async def test_a_full_transport_send_is_a_stream_error():
    async with nodes() as n, n.b.listen(ECHO):
        near = await n.a.dial(BOB, ECHO)
        (transport,) = n.ta.all()

        def gone(packet_type, payload):
            raise TransportClosedError("the peer does not read")

        transport.send = gone
        await near.send(b"x")  # handed over; the loss shows at the next call
        with pytest.raises(StreamError, match="does not read"):
            await near.receive()


async def test_f12_streams_that_nobody_accepts_are_reset_beyond_the_backlog():
    async with nodes() as n, n.b.listen(ECHO) as listener:
        await n.a.dial(BOB, OTHER)
        (transport,) = n.ta.all()
        for i in range(10_000):
            transport.send(ECHO.packet_type, header(DATA, SYN, 1 + 2 * i, 0))
        await settle(200)
        (session,) = [s for s in sessions(n.b) if s.channels]
        assert session.backlog == 256 and len(session.channels) == 256
        assert session.counters == {"StreamBacklogFull": 9_744}
        for _ in range(256):
            await (await listener.accept()).aclose()
        assert session.backlog == 0


async def test_the_queue_of_all_peers_is_bounded_and_forgets_the_dead():
    settings = VStreamSettings(accept_queue_max=10)
    async with nodes(settings, keys=(ALICE, BOB, CAROL)) as n, n.b.listen(ECHO) as listener:
        mine = [await n.a.dial(BOB, ECHO) for _ in range(10)]
        for stream in mine:
            await stream.send(b"a")
        await settle()
        late = await n.c.dial(BOB, ECHO)
        await late.send(b"c")
        with pytest.raises(StreamError, match="reset"):
            await late.receive()
        await n.ta.all()[0].aclose("alice leaves")
        late = await n.c.dial(BOB, ECHO)
        await late.send(b"c")
        stream = await listener.accept()
        assert stream.remote == CAROL


async def test_who_is_dialled_only_refuses_streams():
    async with nodes() as n:
        await n.a.dial(BOB, ECHO)  # claims the type without listening
        near = await n.b.dial(ALICE, ECHO)
        await near.send(b"x")
        with pytest.raises(StreamError, match="reset"):
            await near.receive()
        assert table(n.a) == 0


async def test_a_peer_that_does_not_serve_is_named_and_may_begin_to():
    async with nodes() as n:
        near = await n.a.dial(BOB, ECHO)
        await near.send(b"x")
        with pytest.raises(StreamError, match="not served"):
            await near.receive()
        await near.aclose()
        with pytest.raises(DialError, match="not served"):  # the Error packet comes rarely
            await n.a.dial(BOB, ECHO)
        assert table(n.a) == 0
        n.clock.advance(5.0)
        async with n.b.listen(ECHO) as listener:
            near = await n.a.dial(BOB, ECHO)
            await near.send(b"y")
            assert await (await listener.accept()).receive() == b"y"


async def test_listening_ends_and_queued_streams_are_refused():
    async with nodes() as n:
        async with n.b.listen(ECHO) as listener:
            near = await n.a.dial(BOB, ECHO)
            await near.send(b"x")
            await settle()
        with pytest.raises(StreamError):
            await near.receive()
        with pytest.raises(StreamError, match="not listened"):
            await listener.accept()
        assert table(n.b) == 0


async def test_a_type_claimed_by_somebody_else_is_named():
    async with nodes() as n:
        with n.ta.claim(ECHO.packet_type, object()), pytest.raises(PluginConflictError):
            await n.a.dial(BOB, ECHO)


@pytest.mark.parametrize("kind", [DATA, WINDOW_UPDATE])
async def test_section_4_no_payload_names_its_sender(kind):
    """Upstream took the peer's key from the payload; here the bytes are just bytes."""
    async with nodes(keys=(ALICE, BOB, CAROL)) as n, n.b.listen(ECHO) as listener:
        await n.a.dial(BOB, OTHER)
        (transport,) = n.ta.all()
        forged = bytes(8) + CAROL + b"\x01"
        if kind == WINDOW_UPDATE:
            transport.send(ECHO.packet_type, header(kind, SYN, 1, 0))
            transport.send(ECHO.packet_type, header(DATA, FIN, 1, len(forged)) + forged)
        else:
            transport.send(ECHO.packet_type, header(kind, SYN | FIN, 1, len(forged)) + forged)
        stream = await listener.accept()
        assert stream.remote == ALICE
        assert await read_all(stream) == forged


async def test_a_broken_rule_closes_the_transport_by_name_and_says_go_away():
    async with nodes() as n, n.b.listen(ECHO):
        await n.a.dial(BOB, OTHER)
        (transport,) = n.ta.all()
        seen = []
        send = transport.other.send
        transport.other.send = lambda t, p: (seen.append((t, p)), send(t, p))
        transport.send(ECHO.packet_type, header(DATA, SYN, 2, 0))
        await settle()
        assert "StreamIdInvalid" in transport.closed
        assert seen == [(ECHO.packet_type, header(3, 0, 0, 1))]
        assert n.b._carriers == {}


async def test_f11_a_peer_that_floods_and_does_not_read_is_cut_off():
    async with nodes() as n, n.b.listen(ECHO):
        await n.a.dial(BOB, OTHER)
        (transport,) = n.ta.all()
        transport.other.held = True
        sent = 0
        while not transport.closed and sent < 1_000_000:
            transport.send(ECHO.packet_type, header(DATA, SYN, 1 + 2 * sent, 0))
            sent += 1
            if sent % 256 == 0:
                await anyio.lowlevel.checkpoint()
        assert "OpenFlood" in transport.closed and sent < 20_000
        assert transport.other._queued < TRANSPORT_QUEUE_MAX


async def test_f13_open_and_reset_is_cut_off():
    async with nodes() as n, n.b.listen(ECHO):
        await n.a.dial(BOB, OTHER)
        (transport,) = n.ta.all()
        sent = 0
        while not transport.closed and sent < 100_000:
            both = header(DATA, SYN, 1 + 2 * sent, 0) + header(DATA, RST, 1 + 2 * sent, 0)
            transport.send(ECHO.packet_type, both)
            sent += 1
            if sent % 64 == 0:
                await anyio.lowlevel.checkpoint()
        assert "ResetFlood" in transport.closed and sent < 3_000
