"""What packet numbers are for: they pass 2^32 unnoticed, and what comes twice counts once."""

from __future__ import annotations

import anyio
import pytest

ALICE = ("10.0.0.1", 7777)
SIZES = [pytest.param(1, id="1_mib"), pytest.param(12, id="12_mib", marks=pytest.mark.soak)]


@pytest.mark.parametrize("mib", SIZES)
async def test_u14_numbers_pass_2_to_the_32_in_the_middle_of_a_transfer(ground, kit, mib):
    async with ground().pair() as (near, far):
        await kit.both_ways(near, far, b"hello")
        start = 2**32 - 300 * mib
        for one, other in ((near, far), (far, near)):
            one.link._packet_number = start
            other.link._loss.spaces[2].expected_packet_number = start
        await kit.both_ways(near, far, kit.BIG * mib)
        assert near.link._packet_number > 2**32 and far.link._packet_number > 2**32
        assert not near.link.closed and not far.link.closed


@pytest.mark.parametrize("mib", SIZES)
async def test_u18_whatever_is_replayed_however_late_is_delivered_once(ground, kit, mib):
    """All datagrams of a transfer come again from the right address, in and out of order."""
    async with ground().pair() as (near, far):
        copies = []
        send = near._endpoint._socket.send

        def copying(data, to):
            copies.append(data)
            return send(data, to)

        near._endpoint._socket.send = copying
        await kit.transfer(near, far, kit.BIG * mib)
        await anyio.sleep(1)
        near._endpoint._socket.send = send
        for data in (*copies, *reversed(copies)):
            far._endpoint._deliver(data, ALICE)
        with anyio.move_on_after(5):
            pytest.fail(f"delivered again: {len(await far.receive())} bytes")
        assert far.link.inbox_bytes == 0 and far.link.peer == ALICE
        forged = bytearray(copies[-1])
        forged[9] ^= 0x80  # another number, as far away as the header can say
        ignored = far._endpoint.counters["datagram_ignored"]
        far._endpoint._deliver(bytes(forged), ALICE)
        assert far._endpoint.counters["datagram_ignored"] == ignored + 1
        await kit.both_ways(near, far, kit.BIG)
