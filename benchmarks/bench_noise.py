"""Secure channels: handshakes of both sides in one process, per CPU second."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.harness import Figure, median_rate
from benchmarks.nodes import NETWORK
from benchmarks.peers import noise_handshakes
from benchmarks.workloads import secret_of
from security_noise.core.cipher import CipherState
from security_noise.core.frames import FrameOpener, FrameSealer
from security_noise.core.handshake import HandshakeState, Pair
from security_noise.core.hello import INITIATOR, RESPONDER, check_hello, make_hello, read_hello
from security_noise.core.pattern import XK
from skycore.contracts.runtime import Identity
from skycore.runtime.entropy import RealEntropy

SUITE = NETWORK.suite
COUNT = 300


def _pair() -> Pair:
    return Pair(*SUITE.dh_pair(RealEntropy().bytes(SUITE.seed_bytes)))


def _static(identity: Identity) -> Pair:
    return Pair(SUITE.dh_secret(identity.secret), SUITE.dh_public(identity.public))


def _identity(name: str) -> Identity:
    return Identity(NETWORK, secret_of(NETWORK, name), name.encode().ljust(16))


def _handshake(ours: Pair, theirs: Pair, e1: Pair, e2: Pair) -> None:
    """Noise XK, both sides: the pattern alone, as peers' figures have it."""
    one = HandshakeState(XK, SUITE, initiator=True, prologue=b"p", static=ours, ephemeral=e1,
                         remote_static=theirs.public)  # fmt: skip
    two = HandshakeState(XK, SUITE, initiator=False, prologue=b"p", static=theirs, ephemeral=e2)
    two.read_message(one.write_message())
    one.read_message(two.write_message())
    two.read_message(one.write_message(b""))
    one.split()
    two.split()


def _whole(alice: Identity, bob: Identity, ours: Pair, theirs: Pair) -> None:
    """The same with what a link adds: a signed Hello each way, made and checked."""
    one = HandshakeState(XK, SUITE, initiator=True, prologue=b"p", static=ours, ephemeral=_pair(),
                         remote_static=theirs.public)  # fmt: skip
    two = HandshakeState(XK, SUITE, initiator=False, prologue=b"p", static=theirs,
                         ephemeral=_pair())  # fmt: skip
    two.read_message(one.write_message())
    one.read_message(two.write_message())
    before = one.hash
    hello = make_hello(alice, INITIATOR, before, wall_ns=0, features=(), listening=())
    data = two.read_message(one.write_message(hello))
    check_hello(data, read_hello(data, SUITE), bob, INITIATOR, before)
    whole = one.hash
    answer = make_hello(bob, RESPONDER, whole, wall_ns=0, features=(), listening=())
    sending, _ = two.split()
    _, receiving = one.split()
    data = receiving.decrypt(sending.encrypt(answer))
    check_hello(data, read_hello(data, SUITE), alice, RESPONDER, whole)


def _limit() -> int:
    """The arithmetic alone: two key pairs and six exchanges, as XK and XX have them."""
    for _ in range(COUNT):
        one, two = _pair(), _pair()
        for _ in range(3):
            SUITE.dh(one.secret, two.public)
            SUITE.dh(two.secret, one.public)
    return COUNT


def _seal_rate(size: int) -> tuple[float, float]:
    data = b"x" * size
    rounds = max(20, 4_000_000 // size // 4)

    def work() -> int:
        sealer = FrameSealer(CipherState(bytes(32)))
        opener = FrameOpener(CipherState(bytes(32)), bytearray())
        for _ in range(rounds):
            opener.open(bytes(sealer.seal(data)))
        return rounds * size

    rate, spread = median_rate(work, rounds=3, clock=time.process_time)
    return rate / 1e6, spread


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines."""
    alice, bob = _identity("alice"), _identity("bob")
    ours, theirs = _static(alice), _static(bob)
    limit, _ = median_rate(_limit, clock=time.process_time)

    def fresh() -> int:
        for _ in range(COUNT):
            _handshake(ours, theirs, _pair(), _pair())
        return COUNT

    ready = [_pair() for _ in range(2 * COUNT)]

    def pooled() -> int:
        for i in range(COUNT):
            _handshake(ours, theirs, ready[2 * i], ready[2 * i + 1])
        return COUNT

    def whole() -> int:
        for _ in range(COUNT):
            _whole(alice, bob, ours, theirs)
        return COUNT

    beside = f"2 key pairs and 6 exchanges alone {limit:,.0f}/s"
    for what, work, goal in (
        ("Noise XK handshake, both sides", fresh, 3_000),
        ("the same, key pairs from the pool", pooled, 3_000),
        ("the same with signed Hellos, as links have it", whole, None),
    ):
        rate, spread = median_rate(work, clock=time.process_time)
        yield Figure(what, rate, "1/s", goal, beside=beside, spread=spread)
        beside = ""
    for size in (64, 1_024, 65_519):
        rate, spread = _seal_rate(size)
        yield Figure(f"seal and open {size:,} B, one core", rate, "MB/s", spread=spread)
    if peers:
        yield from noise_handshakes()
