"""Ten thousand malformed frames at every layer of one node; the wide ones run in `make soak`.

Every test sends as many as `many` says and asserts that the victim counted each of them under a
name, that the attacker's own connection is all that was lost, and what `watched` asserts.
"""

from __future__ import annotations

import json
import random
import socket
import struct
from collections.abc import Iterator

import anyio
import pytest
from attackers import (
    DHT,
    GROWTH_MAX_KIB,
    VISOR_RPC,
    WAIT_S,
    HostileLink,
    Stranger,
    Victim,
    control,
    dice_of,
    flood,
    frame,
    program,
    read_frame,
    rude_close,
    settle,
    source,
    tcp,
    until_end,
    victim_process,
    watched,
)

from skycore.contracts.streams import Service, Streams
from skycore.errors import SkycoreError, TransportError
from skycore.model.numbers import PacketType
from skycore.node import Node
from skycore.testing.fakes import identity

pytestmark = pytest.mark.processes
SHORT, LONG = 1_000, 10_000
"""How often where each costs the victim a whole handshake; there are two cores in CI."""


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    listed = (identity("listed").public.hex(),)
    with victim_process(tmp_path_factory.mktemp("floods"), whitelist=listed) as node:
        yield node


@pytest.fixture(params=[SHORT, pytest.param(LONG, marks=pytest.mark.soak)])
def many(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def risen(victim: Victim, before: dict[str, int]) -> dict[str, int]:
    """Return which counters rose, and by how much."""
    now = victim.counters()
    return {name: count - before.get(name, 0) for name, count in now.items() if
            count != before.get(name, 0)}  # fmt: skip


async def counted(victim: Victim, before: dict[str, int], name: str, count: int) -> None:
    """Wait until a counter has risen by so much."""
    with anyio.move_on_after(WAIT_S):
        while risen(victim, before).get(name, 0) < count:
            await anyio.sleep(0.05)
    assert risen(victim, before).get(name, 0) == count, risen(victim, before)


# --- TCP and the handshake ---------------------------------------------------------------------

LOW_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def hello(number: int, dice: random.Random) -> bytes:
    """Return what no handshake begins with."""
    kind = number % 6
    if kind == 0:  # forged
        return struct.pack(">H", 48) + dice.randbytes(48)
    if kind == 1:  # a point that makes every shared secret zero
        return struct.pack(">H", 48) + dice.choice(LOW_ORDER) + dice.randbytes(16)
    if kind == 2:  # oversize, and no body
        return struct.pack(">H", dice.randint(49, 65_535))
    if kind == 3:  # undersize
        return struct.pack(">H", dice.randint(0, 47)) + dice.randbytes(8)
    if kind == 4:  # cut
        return struct.pack(">H", 48) + dice.randbytes(dice.randint(0, 47))
    return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_f4_handshakes(victim: Victim, request: pytest.FixtureRequest) -> None:
    dice, before = dice_of(request), victim.counters()

    async def one(number: int) -> None:
        stream = tcp(victim.port, source(number % 64))
        await stream.send(hello(number, dice))
        if number % 6 == 4:
            await stream.send_eof()
        await until_end(stream)
        await rude_close(stream)

    async with watched(victim):
        await flood(LONG, one)
    await counted(victim, before, "handshakes_failed", LONG)
    names = risen(victim, before)
    assert names["HandshakeKeyError"] >= LONG // 6
    assert names["HandshakeAuthError"] >= LONG // 6
    assert names["HandshakeMalformedError"] >= LONG // 2
    assert "error=HandshakeKeyError: " in victim.node.log.read_text()


async def test_f25_ten_thousand_refusals_do_not_fill_the_log(victim: Victim) -> None:
    lines = victim.node.log.read_text().count("handshake failed")
    assert 0 < lines < LONG / 2


# --- Noise frames after the handshake ----------------------------------------------------------


async def spoil(link: HostileLink, number: int, dice: random.Random) -> None:
    sealed = bytes(link.channel._sealer.seal(dice.randbytes(dice.randint(1, 200))))
    kind = number % 5
    if kind == 0:  # one bit
        at = dice.randint(2, len(sealed) - 1)
        sealed = sealed[:at] + bytes([sealed[at] ^ 1 << dice.randint(0, 7)]) + sealed[at + 1 :]
    elif kind == 1:  # forged from nothing
        sealed = struct.pack(">H", 100) + dice.randbytes(100)
    elif kind == 2:  # too short to have a tag
        sealed = struct.pack(">H", dice.randint(0, 15)) + bytes(15)
    elif kind == 3:  # replayed
        whole = bytes(link.channel._sealer.seal(b"\x08" + bytes(4) + b"\0\x08" + bytes(8)))
        sealed = sealed[:0] + whole + whole
        link.channel._sealer.seal(b"")
    else:  # out of order: the frame before is never sent
        sealed = bytes(link.channel._sealer.seal(b"later"))
    await link.raw.send(sealed)


async def broken_links(victim: Victim, many: int, dice: random.Random, bad) -> None:
    """Make links, spoil each, and see that each is closed."""
    before = victim.counters()

    async def one(number: int) -> None:
        async with Stranger(f"stranger {number % 40}").armed() as stranger:
            link = await stranger.connect(victim, source(number % 64))
            await bad(link, number, dice)
            said = await link.until_closed()
            assert not said or said.startswith("the peer broke the protocol"), said
            await rude_close(link.raw)

    async with watched(victim):
        await flood(many, one, 8)
    await counted(victim, before, "RemoteProtocolError", many)


async def test_f4_noise_frames(victim: Victim, many: int, request: pytest.FixtureRequest) -> None:
    await broken_links(victim, many, dice_of(request), spoil)


# --- packets -----------------------------------------------------------------------------------


async def bad_packet(link: HostileLink, number: int, dice: random.Random) -> None:
    kind = dice.choice((PacketType.TRANSPORT_PING, PacketType.TRANSPORT_PONG))
    size = dice.choice((0, 1, 7, 65, 1_000))
    await link.packet(kind, dice.randbytes(size))


async def test_f4_packets_that_end_a_link(
    victim: Victim, many: int, request: pytest.FixtureRequest
) -> None:
    await broken_links(victim, many // 4, dice_of(request), bad_packet)


async def test_f4_packets_of_no_type(victim: Victim, request: pytest.FixtureRequest) -> None:
    dice = dice_of(request)
    claimed = set(PacketType) - {PacketType.DMSG_CLIENT}  # a full node serves clients, and is none
    free = [n for n in range(256) if n not in claimed]
    async with watched(victim), Stranger("of no type").armed() as stranger:
        link = await stranger.connect(victim)
        async with anyio.create_task_group() as tasks:
            refused: set[int] = set()

            async def listen() -> None:
                while True:
                    for kind, _, payload in await link.packets():
                        if kind == PacketType.ERROR:
                            refused.add(payload[0])
                        if kind == PacketType.TRANSPORT_PONG:
                            tasks.cancel_scope.cancel()

            tasks.start_soon(listen)
            for number in range(LONG):
                if number % 3:
                    await link.packet(dice.choice(free), dice.randbytes(dice.randint(0, 300)))
                else:
                    await link.packet(dice.randint(0, 255), dice.randbytes(30), route=number + 1)
            await link.packet(PacketType.TRANSPORT_PING, bytes(8))  # the link still lives
        assert refused >= {free[0], free[-1]}
        await link.aclose()


# --- yamux -------------------------------------------------------------------------------------


async def bad_yamux(link: HostileLink, number: int, dice: random.Random) -> None:
    service = dice.choice((PacketType.DHT, PacketType.VISOR_RPC, PacketType.DMSG_SERVER))
    bad = [
        struct.pack(">BBHII", dice.randint(1, 255), 0, 0, 1, 0),  # version
        struct.pack(">BBHII", 0, dice.randint(4, 255), 0, 1, 0),  # type
        struct.pack(">BBHII", 0, 0, 1 << dice.randint(4, 15), 1, 0),  # flag
        struct.pack(">BBHII", 0, 0, 1, 2, 0),  # wrong parity
        struct.pack(">BBHII", 0, 0, 1, 0, 0),  # id 0
        struct.pack(">BBHII", 0, 1, 1, 3, 0) * 2,  # twice
        struct.pack(">BBHII", 0, 0, 1, 1, 262_145),  # CVE-2026-32314
        struct.pack(">BBHII", 0, 1, 1, 1, 2**32 - 1),  # window
    ]
    await link.packet(service, bad[number % len(bad)])


async def test_f4_yamux(victim: Victim, many: int, request: pytest.FixtureRequest) -> None:
    await broken_links(victim, many, dice_of(request), bad_yamux)


async def test_f21_frames_of_no_stream_are_borne_within_bounds(victim: Victim) -> None:
    """They may cross the end of a stream, so an honest peer sends some: a flood ends the link."""
    async with watched(victim), Stranger("of no stream").armed() as stranger:
        link = await stranger.connect(victim)
        junk = struct.pack(">BBHII", 0, 0, 2, 99, 0) + struct.pack(">BBHII", 0, 2, 2, 0, 7)
        with anyio.fail_after(WAIT_S):
            try:
                while not link.raw._closed:
                    await link.packet(PacketType.DHT, junk * 500)
                    await anyio.sleep(0)
            except TransportError:
                pass
        await rude_close(link.raw)


# --- frames on streams -------------------------------------------------------------------------


async def one_answer(node: Node, victim: Victim, service: Service, data: bytes, eof: bool) -> bytes:
    """Send bytes on a stream of their own; return all that is answered."""
    stream = await node.get(Streams).dial(victim.public, service)
    got = b""
    try:
        with anyio.fail_after(WAIT_S):
            await stream.send(data)
            if eof:
                await stream.send_eof()
            while more := await stream.receive():
                got += more
    except SkycoreError:
        pass
    finally:
        await stream.aclose()
    return got


def dht_frame(number: int, dice: random.Random) -> tuple[bytes, bool]:
    kind = number % 6
    if kind == 0:
        return struct.pack(">I", dice.randint(4 * 2**20 + 1, 2**32 - 1)), False
    if kind == 1:
        return struct.pack(">I", 0), False
    if kind == 2:
        return frame(bytes([dice.randint(1, 6)]) + dice.randbytes(dice.randint(0, 60))), True
    if kind == 3:  # cut
        return struct.pack(">I", 500) + dice.randbytes(dice.randint(1, 400)), True
    if kind == 4:  # nested, and a count that lies
        return frame(bytes([6]) + dice.choice((b"\x91" * 5_000, b"\xdd\xff\xff\xff\xff"))), False
    return frame(bytes([2]) + b"\x91\xc4\x03abc"), False  # a target of three bytes


async def test_f4_dht_frames(victim: Victim, request: pytest.FixtureRequest) -> None:
    dice = dice_of(request)
    before = victim.fields("dht")["malformed"]
    async with watched(victim), program(victim) as node:

        async def one(number: int) -> None:
            data, eof = dht_frame(number, dice)
            got = await one_answer(node, victim, DHT, data, eof)
            if number % 6 in (4, 5):
                assert got[4] == 0, "an error reply"

        await flood(LONG, one, 8)
    named = victim.fields("dht")["malformed"] - before
    assert named == LONG - (LONG + 2) // 6, "all but those cut by their own end: a loss, no lie"


BAD_CALLS = [
    b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"jsonrpc":"2.0"}', b"[" * 5_000,
    b'{"jsonrpc":"2.0","id":1,"method":5,"params":{}}',
    b'{"jsonrpc":"2.0","id":1,"id":2,"method":"Health","params":{}}',
    b'{"jsonrpc":"1.0","id":1,"method":"Health","params":{}}',
    b'{"jsonrpc":"2.0","id":1,"method":"Health","params":{"x":NaN}}',
    b'{"jsonrpc":"2.0","id":1,"method":"Health","params":{}} {}',
    b'{"jsonrpc":"2.0","id":1,"method":"\\ud800","params":{}}',
]  # fmt: skip


async def test_f4_calls_on_streams(victim: Victim) -> None:
    before = victim.fields("visor_rpc")["malformed"]
    async with (
        watched(victim),
        program(victim) as stranger,
        program(victim, "listed") as listed,
    ):

        async def one(number: int) -> None:
            node = stranger if number % 10 == 0 else listed
            body = BAD_CALLS[number % len(BAD_CALLS)]
            got = await one_answer(node, victim, VISOR_RPC, frame(body), eof=True)
            answer = json.loads(got[4:])
            assert answer["error"]["message"], answer
            if node is stranger:
                assert "not authorised" in answer["error"]["message"]

        await flood(LONG // 2, one, 8)
    assert victim.fields("visor_rpc")["malformed"] - before >= LONG // 2 // 2


async def test_f4_calls_on_the_control_socket(victim: Victim) -> None:
    before = victim.vitals()
    with control(victim.node.data) as line:
        for number in range(LONG):
            body = BAD_CALLS[1:][number % (len(BAD_CALLS) - 1)]
            line.sendall(frame(body))
            assert json.loads(read_frame(line))["error"]["message"]
    for size in (0, 4 * 2**20 + 1, 2**32 - 1):
        with control(victim.node.data) as line:
            line.sendall(struct.pack(">I", size))
            assert json.loads(read_frame(line))["error"]["message"]
            assert line.recv(1) == b""
    with control(victim.node.data) as line:  # cut in mid-frame
        line.sendall(b"\0\0\1\0{")
        line.shutdown(socket.SHUT_WR)
        while line.recv(4_096):
            pass
    assert victim.ask("Health")["health"] == "ok"

    def flat() -> bool:
        now = victim.vitals()
        return now.fds <= before.fds and now.rss_kib <= before.rss_kib + GROWTH_MAX_KIB

    await settle(flat, lambda: f"before {before}, after {victim.vitals()}")
    victim.no_crash()
