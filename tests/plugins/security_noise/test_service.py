"""The whole handshake over streams: the contract's suite, and what is Noise's own."""

from __future__ import annotations

import gc
import json
import logging
import random
import struct
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from security_noise.channel import NoiseChannel
from security_noise.core.frames import FrameOpener
from security_noise.core.handshake import HandshakeState, Pair
from security_noise.core.hello import INITIATOR, RESPONDER, make_hello
from security_noise.core.pattern import XK
from security_noise.pool import KeyPairs
from security_noise.service import NoiseSecurity, open_noise
from security_noise.settings import NoiseSettings
from skycore.contracts.runtime import Identity
from skycore.contracts.security import Security
from skycore.errors import (
    HandshakeAuthError,
    HandshakeError,
    HandshakeKeyError,
    HandshakeMalformedError,
    HandshakeTimeoutError,
    RemoteProtocolError,
    SelfConnectError,
    SkycoreError,
    TransportClosedError,
    WrongNetworkError,
)
from skycore.model.keys import ED25519, PubKey, SecretKey
from skycore.model.network import NetworkConstants
from skycore.testing.contracts.security import (
    Bent,
    OpenSecurity,
    SecurityContract,
    shake_hands,
)
from skycore.testing.fakes import TEST_NETWORK, FakeClock, SeededEntropy, identity, stream_pair
from skycore.testing.loop import simulate

VECTORS = Path(__file__).parents[2] / "vectors"
ALICE, BOB, CAROL = identity("alice"), identity("bob"), identity("carol")
PROLOGUE = b"skycore/1\0" + TEST_NETWORK.id


def opened(who: Identity, seed: int = 0, **settings: Any) -> Any:
    entropy = SeededEntropy(seed or who.public[0])
    return open_noise(NoiseSettings(**settings), who, FakeClock(), entropy)


class TestNoise(SecurityContract):
    @pytest.fixture
    def open_security(self) -> OpenSecurity:
        return opened


class Script(ByteStream):
    """A remote that says its lines without listening, then hangs up."""

    def __init__(self, lines: bytes) -> None:
        self.lines = lines
        self.heard = bytearray()
        self.is_closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self.lines:
            raise anyio.EndOfStream
        data, self.lines = self.lines[:max_bytes], self.lines[max_bytes:]
        return data

    async def send(self, item: bytes) -> None:
        self.heard += item

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.is_closed = True

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {}


class SamePair(KeyPairs):
    """Hands out one pair again and again, so that a recorded conversation can be bent."""

    def __init__(self, seed: bytes) -> None:
        super().__init__(ED25519, SeededEntropy(1), 8)
        self._pair = Pair(*ED25519.dh_pair(seed))

    def take(self) -> Pair:
        return self._pair


def repeating(who: Identity) -> NoiseSecurity:
    """Return a Security that says the same in every handshake."""
    return NoiseSecurity(NoiseSettings(), who, FakeClock(), SamePair(who.public))


async def recorded() -> tuple[bytes, bytes]:
    """Return what alice and what bob say in a whole handshake."""
    heard: list[bytearray] = [bytearray(), bytearray()]

    def ear(number: int) -> Callable[[bytes], bytes]:
        def listen(data: bytes) -> bytes:
            heard[number].extend(data)
            return data

        return listen

    one, other = stream_pair()
    streams = Bent(one, ear(1)), Bent(other, ear(0))
    shaken = await shake_hands(repeating(ALICE), repeating(BOB), BOB.public, streams)
    shaken.channels()
    return bytes(heard[0]), bytes(heard[1])


def framed(message: bytes) -> bytes:
    return struct.pack(">H", len(message)) + message


async def test_layout_on_the_wire() -> None:
    """Messages of 48, 48 and 64 + Hello bytes, then a frame of Hello + 16."""
    alice, bob = await recorded()
    assert alice[:2] == bob[:2] == b"\x00\x30"
    (third,) = struct.unpack_from(">H", alice, 50)
    (fourth,) = struct.unpack_from(">H", bob, 50)
    assert len(alice) == 52 + third
    assert len(bob) == 52 + fourth
    assert 120 < third - 64 < 250
    assert 120 < fourth - 16 < 250


async def test_the_project_s_own_vector() -> None:
    """docs/protocols/noise.md byte for byte: whatever changes this changes the wire format."""
    vector = json.loads((VECTORS / "noise_skycore.json").read_text())
    alice, bob = await recorded()
    said = [alice[2:50], bob[2:50], alice[52:], bob[52:]]
    assert [message.hex() for message in said] == vector["messages"]
    elsewhere = identity("bob", NetworkConstants(ED25519, "elsewhere"))
    assert (await refusal_heard(alice[2:50], elsewhere))[2:].hex() == vector["refusal"]
    for who, name in ((ALICE, "dialler"), (BOB, "listener")):
        assert ED25519.public(ED25519.secret(bytes.fromhex(vector[name]["seed"]))) == who.public
        assert who.public.hex() == vector[name]["identity"] == vector[name]["ephemeral_seed"]
    assert TEST_NETWORK.id.hex() == vector["network_id"]


async def test_the_record_plays_again() -> None:
    alice, bob = await recorded()
    assert (await repeating(BOB).inbound(Script(alice), ())).remote == ALICE.public
    assert (await repeating(ALICE).outbound(Script(bob), BOB.public, ())).remote == BOB.public


async def test_n6_a_replayed_initiation_makes_no_peer() -> None:
    """A fresh ephemeral of ours, and the recorded third message proves nothing."""
    alice, _ = await recorded()
    stream = Script(alice)
    async with opened(BOB, seed=99) as bob:
        with pytest.raises(HandshakeAuthError):
            await bob.inbound(stream, ())
    assert stream.is_closed


def test_n6_a_replayed_first_message_holds_its_slot_for_5_s() -> None:
    async def replay() -> float:
        alice, _ = await recorded()
        one, other = stream_pair()
        await other.send(alice[:50])
        async with opened(BOB) as bob:
            with pytest.raises(HandshakeTimeoutError):
                await bob.inbound(one, ())
        return anyio.current_time()

    assert simulate(replay) == pytest.approx(5.0)


async def test_n11_a_reflected_conversation_makes_no_peer() -> None:
    """Whatever alice says comes back to her, in either role."""
    alice, bob = await recorded()
    with pytest.raises(HandshakeError):
        await repeating(ALICE).inbound(Script(alice), ())
    with pytest.raises(HandshakeError):
        await repeating(ALICE).outbound(Script(alice), BOB.public, ())
    with pytest.raises(HandshakeError):
        await repeating(BOB).inbound(Script(bob), ())


@pytest.mark.parametrize("role", ["dialler", "listener"])
async def test_n3_lengths_are_judged_before_a_body_is_waited_for(role: str) -> None:
    for size in (0, 1, 47, 49, 65_535):
        stream = Script(struct.pack(">H", size))
        with pytest.raises(HandshakeMalformedError, match=f"{size} bytes"):
            if role == "dialler":
                await repeating(ALICE).outbound(stream, BOB.public, ())
            else:
                await repeating(BOB).inbound(stream, ())
        assert stream.is_closed


async def test_n3_a_third_message_too_long_or_short() -> None:
    alice, _ = await recorded()
    for size in (0, 64, 64 + 2_049, 65_535):
        with pytest.raises(HandshakeMalformedError, match=f"{size} bytes"):
            await repeating(BOB).inbound(Script(alice[:50] + struct.pack(">H", size)), ())


async def test_f2_cut_at_every_offset() -> None:
    alice, bob = await recorded()
    for keep in range(len(alice)):
        with pytest.raises(HandshakeError, match="closed the connection"):
            await repeating(BOB).inbound(Script(alice[:keep]), ())
    for keep in range(len(bob)):
        with pytest.raises(HandshakeError, match="closed the connection"):
            await repeating(ALICE).outbound(Script(bob[:keep]), BOB.public, ())


@pytest.mark.parametrize("key", [bytes(32), (1).to_bytes(32, "little")], ids=bytes.hex)
async def test_n4_a_low_order_ephemeral(key: bytes) -> None:
    stream = Script(framed(key + bytes(16)))
    with pytest.raises(HandshakeKeyError):
        await repeating(BOB).inbound(stream, ())
    assert not stream.heard  # no refusal either: whoever sends this dialled nobody


async def test_n4_dialling_a_key_that_nobody_can_own() -> None:
    stream = Script(b"")
    with pytest.raises(HandshakeKeyError):
        await repeating(ALICE).outbound(stream, PubKey(bytes(32)), ())
    assert stream.is_closed
    assert not stream.heard


# --- identities: what a dialler or listener that owns other keys could say ---------------------


def negative(key: bytes) -> bytes:
    return key[:31] + bytes((key[31] ^ 0x80,))


def hello_as(who: Identity, role: bytes, handshake_hash: bytes, identity_key: bytes) -> bytes:
    """Return a Hello signed by `who` that claims to be somebody else."""

    class Claimed:
        network = who.network
        public = identity_key
        instance_id = who.instance_id
        sign = staticmethod(who.sign)

    return make_hello(Claimed(), role, handshake_hash, wall_ns=1)  # type: ignore[arg-type]


def static_of(who: Identity) -> Pair:
    return Pair(ED25519.dh_secret(who.secret), ED25519.dh_public(who.public))


async def dial_claiming(make: Callable[[bytes], bytes], who: Identity = ALICE) -> SkycoreError:
    """Dial bob as `who`, with a Hello of the caller's making; return bob's error."""
    state = HandshakeState(
        XK,
        ED25519,
        initiator=True,
        prologue=PROLOGUE,
        static=static_of(who),
        ephemeral=Pair(*ED25519.dh_pair(b"\x09" * 32)),
        remote_static=static_of(BOB).public,
    )
    bob = repeating(BOB)
    probe = Script(framed(state.write_message()))
    first = probe.lines
    with pytest.raises(HandshakeError):
        await bob.inbound(probe, ())
    state.read_message(bytes(probe.heard[2:50]))
    third = framed(state.write_message(make(state.hash)))
    with pytest.raises(SkycoreError) as refused:
        await bob.inbound(Script(first + third), ())
    return refused.value


async def answer_claiming(make: Callable[[bytes], bytes]) -> SkycoreError:
    """Answer alice as bob, with a Hello of the caller's making; return alice's error."""
    alice, _ = await recorded()
    state = HandshakeState(
        XK,
        ED25519,
        initiator=False,
        prologue=PROLOGUE,
        static=static_of(BOB),
        ephemeral=Pair(*ED25519.dh_pair(b"\x09" * 32)),
    )
    state.read_message(alice[2:50])
    second = framed(state.write_message())
    probe = Script(second)
    with pytest.raises(HandshakeError):
        await repeating(ALICE).outbound(probe, BOB.public, ())
    state.read_message(bytes(probe.heard[52:]))
    hello = make(state.hash)
    sending, _ = state.split()
    with pytest.raises(SkycoreError) as refused:
        lines = second + framed(sending.encrypt(hello))
        await repeating(ALICE).outbound(Script(lines), BOB.public, ())
    return refused.value


@pytest.mark.parametrize(
    ("claim", "error"),
    [
        (CAROL.public, "exchange key"),
        (negative(ALICE.public), "signature"),  # shares the exchange key
        (bytes(32), "identity"),
        (BOB.public, "exchange key"),
    ],
    ids=["another's", "-A", "small order", "the listener's"],
)
async def test_n13_a_dialler_that_claims_another_identity(claim: bytes, error: str) -> None:
    refused = await dial_claiming(lambda h: hello_as(ALICE, INITIATOR, h, claim))
    assert isinstance(refused, (HandshakeAuthError, HandshakeKeyError))
    assert error in str(refused)


@pytest.mark.parametrize(
    "make",
    [
        lambda h: hello_as(ALICE, RESPONDER, h, ALICE.public),
        lambda h: hello_as(ALICE, INITIATOR, bytes(32), ALICE.public),
        lambda h: hello_as(CAROL, INITIATOR, h, ALICE.public),
    ],
    ids=["role", "handshake", "signer"],
)
async def test_n13_a_dialler_that_signs_something_else(make: Callable[[bytes], bytes]) -> None:
    refused = await dial_claiming(make)
    assert isinstance(refused, HandshakeAuthError)
    assert "signature" in str(refused)


@pytest.mark.parametrize("make", [lambda h: b"", lambda h: b"\x90", lambda h: bytes(2_048)])
async def test_a_dialler_whose_hello_is_none(make: Callable[[bytes], bytes]) -> None:
    assert isinstance(await dial_claiming(make), HandshakeMalformedError)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda h: hello_as(BOB, RESPONDER, h, CAROL.public), "another key"),
        (lambda h: hello_as(BOB, RESPONDER, h, negative(BOB.public)), "another key"),
        (lambda h: hello_as(BOB, INITIATOR, h, BOB.public), "signature"),
        (lambda h: hello_as(BOB, RESPONDER, bytes(32), BOB.public), "signature"),
        (lambda h: hello_as(CAROL, RESPONDER, h, BOB.public), "signature"),
    ],
    ids=["another's", "-A", "role", "handshake", "signer"],
)
async def test_n13_a_listener_that_is_not_whom_we_dialled(
    make: Callable[[bytes], bytes], error: str
) -> None:
    refused = await answer_claiming(make)
    assert isinstance(refused, HandshakeAuthError)
    assert error in str(refused)


async def test_dialling_the_negative_of_a_key_is_refused() -> None:
    """-B has the exchange key of B, so only the identity in the Hello tells them apart."""
    async with opened(ALICE) as alice, opened(BOB) as bob:
        shaken = await shake_hands(alice, bob, PubKey(negative(BOB.public)))
    assert isinstance(shaken.dialler, HandshakeAuthError)


async def test_n11_dialling_oneself_sends_nothing() -> None:
    stream = Script(b"")
    with pytest.raises(SelfConnectError):
        await repeating(ALICE).outbound(stream, ALICE.public, ())
    assert not stream.heard


# --- another network ---------------------------------------------------------------------------


async def refusal_heard(first_message: bytes, who: Identity) -> bytes:
    stream = Script(framed(first_message))
    with pytest.raises(HandshakeAuthError) as refused:
        await repeating(who).inbound(stream, ())
    assert refused.value.hint
    return bytes(stream.heard)


async def test_a_refusal_tells_strangers_nothing() -> None:
    """It is as long as message 2, never the same twice, and holds no name of the network."""
    elsewhere = NetworkConstants(ED25519, "elsewhere")
    bob = identity("bob", elsewhere)
    answers = set()
    for number in range(20):
        stranger = ED25519.dh_pair(bytes((number + 1,)) * 32)[1]
        answer = await refusal_heard(stranger + bytes(16), bob)
        assert len(answer) == 50
        assert answer[:2] == b"\x00\x30"
        assert elsewhere.id not in answer
        answers.add(answer)
    assert len(answers) == 20


async def test_a_forged_refusal_is_no_wrong_network() -> None:
    """Only the holder of the dialled key can say so; anybody else's word is an ordinary failure."""
    alice, _ = await recorded()
    elsewhere = identity("carol", NetworkConstants(ED25519, "elsewhere"))
    carols = await refusal_heard(alice[2:50], elsewhere)
    for lines in (carols, framed(bytes(48)), framed(b"\x01" * 48)):
        with pytest.raises(HandshakeAuthError) as refused:
            await repeating(ALICE).outbound(Script(lines), BOB.public, ())
        assert not isinstance(refused.value, WrongNetworkError)


async def test_an_authentic_refusal_is() -> None:
    alice, _ = await recorded()
    bobs = await refusal_heard(alice[2:50], identity("bob", NetworkConstants(ED25519, "other")))
    with pytest.raises(WrongNetworkError) as refused:
        await repeating(ALICE).outbound(Script(bobs), BOB.public, ())
    assert "network show" in refused.value.hint


async def test_n15_a_network_of_another_authority_is_another_network() -> None:
    other = identity("bob", NetworkConstants(ED25519, TEST_NETWORK.name, CAROL.public))
    async with opened(ALICE) as alice, opened(other) as bob:
        shaken = await shake_hands(alice, bob, BOB.public)
    assert isinstance(shaken.dialler, WrongNetworkError)


# --- data at the wrong time ----------------------------------------------------------------------


async def test_n16_data_before_the_end_of_the_handshake() -> None:
    alice, _ = await recorded()
    early = framed(bytes(200))
    with pytest.raises(HandshakeError):
        await repeating(BOB).inbound(Script(alice[:50] + early + alice[50:]), ())


async def test_n16_a_second_handshake_on_a_live_channel() -> None:
    alice, _ = await recorded()
    channel = await repeating(BOB).inbound(Script(alice + alice), ())
    with pytest.raises(RemoteProtocolError):
        await channel.receive()
    with pytest.raises(TransportClosedError):
        await channel.receive()


# --- fuzz ---------------------------------------------------------------------------------------


def bent(dice: random.Random, said: bytes) -> bytes:
    data = bytearray(said)
    kind = dice.randrange(5)
    if kind == 0:
        data = bytearray(dice.randbytes(dice.randrange(120)))
    elif kind == 1:
        del data[dice.randrange(len(data)) :]
    elif kind == 2:
        at = dice.randrange(len(data))
        data[at:at] = dice.randbytes(dice.randint(1, 40))
    else:
        for _ in range(dice.randint(1, 3)):
            data[dice.randrange(len(data))] ^= dice.randint(1, 255)
    return bytes(data)


async def judge(security: Security, role: str, stream: Script) -> str:
    """Run one handshake against bent lines; return the name of the error that came of it."""
    try:
        if role == "inbound":
            channel = await security.inbound(stream, ())
        else:
            channel = await security.outbound(stream, BOB.public, ())
    except HandshakeError as refused:
        return type(refused).__name__
    with pytest.raises((RemoteProtocolError, TransportClosedError)) as after:
        await channel.receive()  # only bytes beyond the handshake were bent
    return type(after.value).__name__


def alive() -> int:
    gc.collect()
    kinds = (HandshakeState, NoiseChannel, FrameOpener)
    return sum(isinstance(thing, kinds) for thing in gc.get_objects())


@pytest.mark.parametrize("role", ["inbound", "outbound"])
async def test_f4_5000_malformed_handshakes(role: str) -> None:
    """10,000 for both roles: a named error each, every stream closed, nothing left."""
    alice, bob = await recorded()
    security, said = (repeating(BOB), alice) if role == "inbound" else (repeating(ALICE), bob)
    dice = random.Random(4)
    before, names = alive(), set()
    for _ in range(5_000):
        lines = bent(dice, said)
        if lines == said:
            continue
        stream = Script(lines)
        names.add(await judge(security, role, stream))
        assert stream.is_closed
    assert {"HandshakeAuthError", "HandshakeMalformedError", "HandshakeError"} <= names
    assert alive() == before
    assert len(security._scratch) < 8_192
    assert len(security._keys._known) <= 1


# --- secrets ------------------------------------------------------------------------------------


async def test_n20_no_secret_in_repr_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened(ALICE) as alice, opened(BOB) as bob, opened(CAROL) as carol:
        here, there = (await shake_hands(alice, bob, BOB.public)).channels()
        await here.send(b"x")
        await there.receive()
        await shake_hands(alice, carol, BOB.public)
        shown = caplog.text + "".join(repr(vars(part)) for part in (alice, bob, carol))
        for channel in (here, there):
            names = [n for n in NoiseChannel.__slots__ if n != "__weakref__"]
            shown += repr(channel) + repr([getattr(channel, name) for name in names])
        shown += repr(NoiseSettings())
        ready = [pair.secret for pair in alice._pairs._ready]  # type: ignore[attr-defined]
    for who in (ALICE, BOB, CAROL):
        secrets = (who.secret.reveal(), who.secret.reveal()[:32], ED25519.dh_secret(who.secret))
        for secret in (*secrets, *ready):
            assert secret.hex() not in shown
            assert str(secret)[2:-1] not in shown


async def test_no_secret_is_kept_after_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state with its ephemeral is gone as soon as there is a channel."""
    states: list[weakref.ref[HandshakeState]] = []
    make = NoiseSecurity._state

    def watched(self: NoiseSecurity, **given: Any) -> HandshakeState:
        state = make(self, **given)
        states.append(weakref.ref(state))
        return state

    monkeypatch.setattr(NoiseSecurity, "_state", watched)
    async with opened(ALICE) as alice, opened(BOB) as bob:
        shaken = await shake_hands(alice, bob, BOB.public)
        shaken.channels()
        gc.collect()
        assert len(states) == 2
        assert [state() for state in states] == [None, None]


async def test_closing_forgets_the_ready_pairs() -> None:
    async with opened(ALICE) as alice:
        pairs = alice._pairs  # type: ignore[attr-defined]
        await anyio.wait_all_tasks_blocked()
        assert len(pairs) > 0
    assert len(pairs) == 0


async def test_remembered_exchange_keys_are_bounded() -> None:
    async with opened(ALICE, exchange_keys_max=3) as alice:
        keys = alice._keys  # type: ignore[attr-defined]
        for number in range(10):
            keys.keep(bytes((number,)), b"key")
        keys.keep(bytes((7,)), b"key")
        keys.keep(b"new", b"key")
        assert set(keys._known) == {bytes((9,)), bytes((7,)), b"new"}


async def test_features_are_told() -> None:
    async with opened(ALICE, features=("fast", "blue")) as alice, opened(BOB) as bob:
        _, there = (await shake_hands(alice, bob, BOB.public)).channels()
        assert there.hello.features == ("fast", "blue")


def test_the_secret_key_type_is_what_identities_hold() -> None:
    assert isinstance(ALICE.secret, SecretKey)
