"""The shell: runs the handshake over a byte stream, within its time, and hands back the channel.

The order of things is wire format: docs/protocols/noise.md.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import ByteStream
from cryptography.exceptions import InvalidTag

from security_noise.channel import NoiseChannel
from security_noise.core.cipher import TAG_BYTES, CipherState
from security_noise.core.frames import FrameOpener, FrameSealer
from security_noise.core.handshake import HandshakeState, Pair
from security_noise.core.hello import (
    INITIATOR,
    RESPONDER,
    check_hello,
    exchange_key,
    make_hello,
    read_hello,
)
from security_noise.core.pattern import XK
from security_noise.pool import KeyPairs
from security_noise.settings import NoiseSettings
from skycore.contracts.runtime import Entropy, Identity, OwnClock
from skycore.contracts.security import Hello, Security
from skycore.errors import (
    HandshakeAuthError,
    HandshakeError,
    HandshakeMalformedError,
    HandshakeTimeoutError,
    SelfConnectError,
    WrongNetworkError,
)
from skycore.model.addresses import Address
from skycore.model.keys import PubKey
from skycore.model.limits import HANDSHAKE_TIMEOUT_S, HELLO_MAX

__all__ = ["NoiseSecurity", "open_noise"]

_PROLOGUE: Final = b"skycore/1\0"
_REFUSAL_LABEL: Final = b"skycore/noise/refusal/1"
_OTHER_NETWORK: Final = b"\x01"
_READ_MAX: Final = 4_096
_length = struct.Struct(">H")
_LOST = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


@asynccontextmanager
async def open_noise(
    settings: NoiseSettings, identity: Identity, clock: OwnClock, entropy: Entropy
) -> AsyncIterator[Security]:
    """Secure byte streams with Noise XK for as long as the node lives."""
    pairs = KeyPairs(identity.network.suite, entropy, settings.key_pairs_max)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pairs.refill)
        yield NoiseSecurity(settings, identity, clock, pairs)
        tasks.cancel_scope.cancel()
    pairs.clear()


class _Messages:
    """Handshake messages on a raw stream. Over-read bytes stay in `held`: they are the channel's.

    A message is never longer than the caller allows, so what is held stays below that plus 4 KiB.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.held = bytearray()

    async def send(self, message: bytes) -> None:
        try:
            await self._stream.send(_length.pack(len(message)) + message)
        except _LOST as lost:
            raise HandshakeError("the connection was lost during the handshake") from lost

    async def receive(self, least: int, most: int) -> bytes:
        """Return the next message; its length is judged before its body is waited for."""
        await self._fill(_length.size)
        (size,) = _length.unpack_from(self.held)
        if not least <= size <= most:
            raise HandshakeMalformedError(
                f"a handshake message of {size} bytes; {least} to {most} are allowed here"
            )
        end = _length.size + size
        await self._fill(end)
        message = bytes(self.held[_length.size : end])
        del self.held[:end]
        return message

    async def _fill(self, size: int) -> None:
        while len(self.held) < size:
            try:
                self.held += await self._stream.receive(_READ_MAX)
            except _LOST as lost:
                raise HandshakeError("the remote closed the connection in mid-handshake") from lost


class _ExchangeKeys:
    """Exchange keys of identities that were dialled or proved themselves; the oldest goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[bytes, bytes] = {}

    def find(self, identity: bytes) -> bytes | None:
        return self._known.get(identity)

    def keep(self, identity: bytes, key: bytes) -> None:
        self._known.pop(identity, None)
        self._known[identity] = key
        if len(self._known) > self._limit:
            del self._known[next(iter(self._known))]


class NoiseSecurity:
    """A `Security`: the node's keys, and what its handshakes share. Holds nothing per stranger."""

    def __init__(
        self, settings: NoiseSettings, identity: Identity, clock: OwnClock, pairs: KeyPairs
    ) -> None:
        suite = identity.network.suite
        self._identity = identity
        self._suite = suite
        self._clock = clock
        self._features = settings.features
        self._pairs = pairs
        self._static = Pair(suite.dh_secret(identity.secret), suite.dh_public(identity.public))
        self._prologue = _PROLOGUE + identity.network.id
        self._keys = _ExchangeKeys(settings.exchange_keys_max)
        self._scratch = bytearray()
        self._key_message = suite.dh_bytes + TAG_BYTES

    async def outbound(
        self, stream: ByteStream, remote: PubKey, listening: Sequence[Address]
    ) -> NoiseChannel:
        """Secure a connection that we dialled. Raises `HandshakeError` and closes the stream."""
        return await _in_time(stream, self._dial(stream, remote, listening))

    async def inbound(self, stream: ByteStream, listening: Sequence[Address]) -> NoiseChannel:
        """Secure a connection made to us. Raises `HandshakeError` and closes the stream."""
        return await _in_time(stream, self._answer(stream, listening))

    async def _dial(
        self, stream: ByteStream, remote: PubKey, listening: Sequence[Address]
    ) -> NoiseChannel:
        if remote == self._identity.public:
            raise SelfConnectError
        remote_static = self._keys.find(remote) or exchange_key(self._suite, remote)
        self._keys.keep(remote, remote_static)
        state = self._state(initiator=True, remote_static=remote_static)
        messages = _Messages(stream)
        await messages.send(state.write_message())
        refusal = state.side_cipher(_REFUSAL_LABEL)
        second = await messages.receive(self._key_message, self._key_message)
        try:
            state.read_message(second)
        except HandshakeError:
            _raise_refusal(refusal, second)
            raise HandshakeAuthError(
                "the node there does not hold the key that was dialled",
                hint="the address may belong to another node now",
            ) from None
        hello = self._hello(INITIATOR, state.hash, listening)
        await messages.send(state.write_message(hello))
        whole = state.hash
        sending, receiving = state.split()
        first_frame = await messages.receive(TAG_BYTES + 1, HELLO_MAX + TAG_BYTES)
        try:
            data = receiving.decrypt(first_frame)
        except InvalidTag:
            raise HandshakeAuthError("the remote's Hello does not verify") from None
        theirs = read_hello(data, self._suite)
        if theirs.identity != remote:
            raise HandshakeAuthError("the remote calls itself by another key than was dialled")
        check_hello(data, theirs, self._identity, RESPONDER, whole)
        return self._channel(stream, theirs, sending, receiving, messages)

    async def _answer(self, stream: ByteStream, listening: Sequence[Address]) -> NoiseChannel:
        messages = _Messages(stream)
        first = await messages.receive(self._key_message, self._key_message)
        state = self._state(initiator=False)
        try:
            state.read_message(first)
        except HandshakeAuthError:
            await messages.send(self._refusal(state))
            raise HandshakeAuthError(
                "the dialler's first message is not for this key on this network",
                hint="it belongs to another network, or looks for another node at this address",
            ) from None
        await messages.send(state.write_message())
        before_hello = state.hash
        overhead = self._key_message + TAG_BYTES
        data = state.read_message(await messages.receive(overhead + 1, overhead + HELLO_MAX))
        theirs = read_hello(data, self._suite)
        static = self._keys.find(theirs.identity) or exchange_key(self._suite, theirs.identity)
        if static != state.remote_static:
            raise HandshakeAuthError("the remote's identity is not that of its exchange key")
        check_hello(data, theirs, self._identity, INITIATOR, before_hello)
        self._keys.keep(theirs.identity, static)
        hello = self._hello(RESPONDER, state.hash, listening)
        sending, receiving = state.split()
        await messages.send(sending.encrypt(hello))
        return self._channel(stream, theirs, sending, receiving, messages)

    def _state(self, *, initiator: bool, remote_static: bytes = b"") -> HandshakeState:
        return HandshakeState(
            XK,
            self._suite,
            initiator=initiator,
            prologue=self._prologue,
            static=self._static,
            ephemeral=self._pairs.take(),
            remote_static=remote_static,
        )

    def _hello(self, role: bytes, handshake_hash: bytes, listening: Sequence[Address]) -> bytes:
        return make_hello(
            self._identity,
            role,
            handshake_hash,
            wall_ns=self._clock.wall_ns(),
            features=self._features,
            listening=listening,
        )

    def _refusal(self, state: HandshakeState) -> bytes:
        """Return what only somebody who dialled exactly this node's key can read.

        Its key comes from the first exchange alone, which no network enters, and it is as long as
        message 2: to everybody else it is that many random bytes.
        """
        reason = _OTHER_NETWORK.ljust(self._suite.dh_bytes, b"\0")
        return state.side_cipher(_REFUSAL_LABEL).encrypt(reason)

    def _channel(
        self,
        stream: ByteStream,
        hello: Hello,
        sending: CipherState,
        receiving: CipherState,
        messages: _Messages,
    ) -> NoiseChannel:
        opener = FrameOpener(receiving, self._scratch)
        early = bytes(messages.held)
        remote = PubKey(hello.identity)
        return NoiseChannel(stream, remote, hello, FrameSealer(sending), opener, early)


async def _in_time(stream: ByteStream, handshake: Awaitable[NoiseChannel]) -> NoiseChannel:
    """Bound a handshake by absolute time, and close the stream unless it succeeds."""
    try:
        with anyio.fail_after(HANDSHAKE_TIMEOUT_S):
            return await handshake
    except TimeoutError:
        await anyio.aclose_forcefully(stream)
        raise HandshakeTimeoutError(
            f"the handshake did not end within {HANDSHAKE_TIMEOUT_S:g} s"
        ) from None
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


def _raise_refusal(cipher: CipherState, message: bytes) -> None:
    """Raise `WrongNetworkError` if this is an authentic refusal for that reason."""
    try:
        reason = cipher.decrypt(message)
    except InvalidTag:
        return
    if reason.startswith(_OTHER_NETWORK):
        raise WrongNetworkError(
            "the node there holds the dialled key but belongs to another network",
            hint="compare `skynode network show` on both nodes",
        )
