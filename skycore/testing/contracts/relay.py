"""What every RelayType must do. Inherit, and give the fixture `relay_lab`.

Why beside `TransportTypeContract`, which this includes: a way through somebody else can be asked
for a key without an address, can look one up, and can go away while both ends live.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, Protocol

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

from skycore.contracts.transport import KeyedType, RelayType
from skycore.errors import DialError
from skycore.model.addresses import Address
from skycore.model.keys import PubKey
from skycore.testing.contracts.transport import REMOTE, TransportTypeContract
from skycore.testing.fakes import identity

__all__ = ["RelayLab", "RelayTypeContract"]

NOBODY = identity("nobody at all").public
DIAL_S = 10.0
"""What a transport manager leaves for one dial: whoever cannot reach a key says so before."""
NOTICE_S = 30.0


class RelayLab(Protocol):
    """A relay and three nodes, ready to be used."""

    near: RelayType
    """Of a node that the relay can be asked by."""
    far: RelayType
    """Of the node with the key `identity("remote")`, which can be reached through the relay."""
    alone: RelayType
    """Of a node that knows no relay."""
    relay: PubKey
    """The relay's own key."""

    async def lose_relay(self) -> None:
        """Let the relay go away, as if it was killed."""
        ...


class RelayTypeContract(TransportTypeContract):
    """The fixture `relay_lab` yields a `RelayLab`."""

    @pytest.fixture
    def relay_lab(self) -> RelayLab:
        """Return relay and nodes under test."""
        raise NotImplementedError("give a fixture `relay_lab`")

    @pytest.fixture
    def transport_type(self, relay_lab: RelayLab) -> Any:
        """Return what listens as the far node and dials as the near one."""
        near, far = relay_lab.near, relay_lab.far
        return SimpleNamespace(name=near.name, dial=near.dial, listen=far.listen)

    @asynccontextmanager
    async def joined(self, lab: RelayLab) -> AsyncIterator[tuple[ByteStream, ByteStream]]:
        """Yield both ends of a connection that was asked for by key."""
        async with lab.far.listen() as listener:
            near = await lab.near.dial(REMOTE, ())
            far = await listener.accept()
            try:
                yield near, far
            finally:
                await near.aclose()
                await far.aclose()

    async def test_is_a_relay_type(self, relay_lab: RelayLab) -> None:
        """So the manager tries it last, and asks it where no address is known."""
        assert isinstance(relay_lab.near, RelayType) and isinstance(relay_lab.near, KeyedType)
        assert relay_lab.near.name == relay_lab.far.name

    async def test_can_ask_while_there_is_somebody_to_ask(self, relay_lab: RelayLab) -> None:
        """Asking nobody would cost a dial its time."""
        assert relay_lab.near.can_ask and not relay_lab.alone.can_ask

    async def test_no_address_is_a_dial_error(  # type: ignore[override]
        self, relay_lab: RelayLab
    ) -> None:
        """For who knows no relay; quickly, for nobody was asked."""
        with anyio.fail_after(DIAL_S), pytest.raises(DialError) as caught:
            await relay_lab.alone.dial(REMOTE, ())
        assert str(caught.value)

    async def test_a_key_is_reached_by_asking(self, relay_lab: RelayLab) -> None:
        """No address, and bytes go both ways."""
        async with self.joined(relay_lab) as (near, far):
            await near.send(b"there")
            assert await far.receive() == b"there"
            await far.send(b"and back")
            assert await near.receive() == b"and back"

    async def test_what_it_tells_leads_to_it_by_itself(self, relay_lab: RelayLab) -> None:
        """The addresses name the relay: one that was never asked reaches it, too."""
        async with relay_lab.far.listen() as listener:
            near = await relay_lab.alone.dial(REMOTE, self.seen(listener))
            far = await listener.accept()
            await near.send(b"hello")
            assert await far.receive() == b"hello"
            await near.aclose()
            await far.aclose()

    async def test_a_key_that_is_not_there_is_a_dial_error(self, relay_lab: RelayLab) -> None:
        """In time, and it says who said what."""
        with anyio.fail_after(DIAL_S), pytest.raises(DialError) as caught:
            await relay_lab.near.dial(NOBODY, ())
        assert str(caught.value)

    async def test_nonsense_spoils_no_good_address(self, relay_lab: RelayLab) -> None:
        """Addresses come from peers: the good one among them is used."""
        kind = relay_lab.near.name
        bad = [Address(kind, text) for text in ("", "@", "x@y", "00@:1", "\0@h:1", "a" * 400)]
        async with relay_lab.far.listen() as listener:
            near = await relay_lab.near.dial(REMOTE, (*bad, *self.seen(listener)))
            far = await listener.accept()
            await near.aclose()
            await far.aclose()

    async def test_looking_up_raises_nothing(self, relay_lab: RelayLab) -> None:
        """And what is found is of this kind; nothing, for who knows nobody to ask."""
        for kind in (relay_lab.near, relay_lab.far, relay_lab.alone):
            for key in (REMOTE, NOBODY, relay_lab.relay):
                with anyio.fail_after(DIAL_S):
                    found: Sequence[Address] = await kind.find(key)
                assert all(address.kind == kind.name for address in found)

    async def test_the_relay_is_not_dialled_through_itself(self, relay_lab: RelayLab) -> None:
        """Nor through another: relays stand on direct ways, so no dial runs in circles."""
        with anyio.fail_after(DIAL_S), pytest.raises(DialError):
            await relay_lab.near.dial(relay_lab.relay, ())

    async def test_the_remote_host_is_no_address(self, relay_lab: RelayLab) -> None:
        """What the network shows is the relay's: bounds and address books must not take it."""
        async with self.joined(relay_lab) as ends:
            for end in ends:
                with pytest.raises(ValueError, match="does not appear"):
                    ip_address(end.extra(SocketAttribute.remote_address)[0])

    async def test_a_dial_that_is_given_up_does_no_harm(self, relay_lab: RelayLab) -> None:
        """At any moment; the next one works."""
        async with relay_lab.far.listen() as listener:
            for moment in range(12):
                with anyio.move_on_after(moment * 0.0007):
                    await (await relay_lab.near.dial(REMOTE, ())).aclose()
            await anyio.sleep(0.1)
            near = await relay_lab.near.dial(REMOTE, ())
            await near.send(b"at last")
            got = b""
            while got != b"at last":
                far = await listener.accept()
                with anyio.move_on_after(1.0):
                    try:
                        got = await far.receive()
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        got = b""
                await far.aclose()
            await near.aclose()

    async def test_half_of_a_connection_may_end_first(self, relay_lab: RelayLab) -> None:
        """What is still on its way in the other direction arrives."""
        async with self.joined(relay_lab) as (near, far):
            await near.send(b"last")
            await near.send_eof()
            assert await far.receive() == b"last"
            with pytest.raises(anyio.EndOfStream):
                await far.receive()
            await far.send(b"answer")
            assert await near.receive() == b"answer"

    async def test_a_relay_that_is_lost_ends_what_leads_through_it(
        self, relay_lab: RelayLab
    ) -> None:
        """Both ends learn of it, nobody waits for ever, and dials say what is wrong."""
        ended = []

        async def read(stream: ByteStream) -> None:
            try:
                await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                ended.append(stream)

        async with self.joined(relay_lab) as (near, far):
            with anyio.fail_after(NOTICE_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read, near)
                    tasks.start_soon(read, far)
                    await anyio.wait_all_tasks_blocked()
                    await relay_lab.lose_relay()
                while relay_lab.near.can_ask:  # noqa: ASYNC110 - no event says so
                    await anyio.sleep(0.05)
            assert len(ended) == 2
            with anyio.fail_after(DIAL_S), pytest.raises(DialError):
                await relay_lab.near.dial(REMOTE, ())
