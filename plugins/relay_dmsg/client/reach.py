"""The client inside the door: dials others through servers, and says by which it is reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import anyio
from anyio.abc import ByteStream

from relay_dmsg.client.carried import CarriedStream
from relay_dmsg.client.finding import Finder
from relay_dmsg.client.keeper import Keeper
from relay_dmsg.client.nearness import Nearness
from relay_dmsg.core.dials import is_signed, make_dial
from relay_dmsg.core.messages import Answer, Code, Request
from relay_dmsg.core.servers import Server, Servers, parse_server, server_address
from relay_dmsg.framing import read_message, send_message
from relay_dmsg.numbers import KIND, TO_SERVER
from relay_dmsg.settings import DmsgClientSettings
from skycore.contracts.runtime import Clock, Entropy, Identity
from skycore.contracts.streams import Streams
from skycore.contracts.transport import Transports
from skycore.errors import DialError, RemoteProtocolError, SkycoreError
from skycore.model.addresses import Address
from skycore.model.keys import PubKey, short
from skycore.model.numbers import Port

__all__ = ["Reach"]

FAR_RTT_S = 60.0
REACHES_MAX = 32
"""Dials that may at one time wait for a server of somebody else's to be reached first: each keeps
one of the manager's places for dials, and needs a second."""


class Reach:
    """`relay_dmsg.client.door.Inside`."""

    def __init__(
        self,
        settings: DmsgClientSettings,
        identity: Identity,
        clock: Clock,
        entropy: Entropy,
        streams: Streams,
        transports: Transports,
        servers: Servers,
        keeper: Keeper,
        finder: Finder,
        nearness: Nearness,
        counters: Counter[str],
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._clock = clock
        self._entropy = entropy
        self._streams = streams
        self._transports = transports
        self._servers = servers
        self._keeper = keeper
        self._finder = finder
        self._nearness = nearness
        self._counters = counters
        self._reaching: Counter[bytes] = Counter()

    @property
    def can_ask(self) -> bool:
        """Whether there is a session."""
        return bool(self._keeper.sessions)

    def told(self) -> Sequence[Address]:
        """Return by which servers this node can be reached."""
        sessions = self._keeper.sessions
        return tuple(
            Address(KIND, server_address(key, one.endpoint)) for key, one in sessions.items()
        )

    async def find(self, remote: PubKey) -> Sequence[Address]:
        """Look up by which servers a key can be reached."""
        return await self._finder.find(remote)

    async def dial(self, remote: PubKey, addresses: Sequence[Address]) -> ByteStream:
        """Open a relayed stream, one server after the other. Raises `DialError` with all said."""
        if self._keeper.is_server(remote) or remote in self._reaching:
            raise DialError("a server is dialled directly, never through another one")
        said: list[str] = []
        for server in self._through(remote, addresses, said):
            why = f"no answer within {self._settings.dial_timeout_s:g} s"
            try:
                with anyio.move_on_after(self._settings.dial_timeout_s):
                    stream = await self._dial_through(server, remote)
                    self._counters["dialled"] += 1
                    return stream
            except SkycoreError as bad:
                why = str(bad)
            said.append(f"through {short(server.key)}: {why}")
        self._counters["dials_failed"] += 1
        raise DialError("; ".join(said) or f"no relay is known for {short(remote)}")

    def _through(
        self, remote: PubKey, addresses: Sequence[Address], said: list[str]
    ) -> list[Server]:
        """Return the servers to ask: those named; else those with a session, the nearest first.

        What names none is `said`.
        """
        if not addresses:
            sessions = self._keeper.sessions.values()
            return sorted((s.server for s in sessions), key=self._rtt_s)
        named = []
        for address in addresses:
            try:
                key, endpoint = parse_server(self._identity.network.suite, address.endpoint)
            except SkycoreError as bad:
                said.append(str(bad))
                continue
            session = self._keeper.sessions.get(key)
            if session is not None:
                named.append(session.server)
            elif not self._nearness.may_dial(endpoint):
                said.append(f"{short(key)} at {endpoint}: no address for us")
            elif key not in (remote, self._identity.public):
                named.append(Server(key, endpoint))
        return named

    def _rtt_s(self, server: Server) -> float:
        link = self._transports.find(server.key)
        return FAR_RTT_S if link is None or link.rtt_s is None else link.rtt_s

    async def _dial_through(self, server: Server, remote: PubKey) -> ByteStream:
        """Ask one server. Raises `DialError`, `StreamError`, `RemoteProtocolError`."""
        await self._reach(server)
        own, network = self._identity, self._identity.network
        request = Request(
            own.public,
            remote,
            int(Port.TRANSPORT),
            self._clock.wall_ns(),
            self._entropy.bytes(16),
            "transport",
        )
        dial = make_dial(own, request)
        stream = await self._streams.dial(server.key, TO_SERVER)
        try:
            await send_message(stream, dial)
            answer = await read_message(stream)
            if not isinstance(answer, Answer):
                raise RemoteProtocolError("the server's answer to a dial is none")
            signed = is_signed(network, remote, dial, answer)
            if answer.code != Code.ACCEPTED:
                raise DialError(_said(answer, "the destination" if signed else "the server"))
            if not signed:
                raise RemoteProtocolError("the server says 'accepted', and the destination did not")
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
            raise
        return CarriedStream(stream, remote)

    async def _reach(self, server: Server) -> None:
        link = self._transports.find(server.key)
        if link is not None and link.type != KIND:
            return
        if self._reaching.total() >= REACHES_MAX:
            raise DialError("too many dials wait for servers of others")
        self._reaching[server.key] += 1
        try:
            await self._keeper.reach(server)
        finally:
            self._reaching[server.key] -= 1
            if not self._reaching[server.key]:
                del self._reaching[server.key]


def _said(answer: Answer, who: str) -> str:
    try:
        name = Code(answer.code).name
    except ValueError:
        name = str(answer.code)
    reason = "".join(c if c.isprintable() else "?" for c in answer.reason)
    return f"{who} refuses ({name}): {reason}"
