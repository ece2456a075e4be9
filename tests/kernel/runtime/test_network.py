from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import textwrap

import anyio
import pytest
from anyio.abc import SocketAttribute

from skycore.errors import DialError, TransportError
from skycore.runtime.network import RealNetwork, TcpStream

BIG = bytes(range(256)) * 20_000


async def pair():
    network = RealNetwork()
    async with network.listen_tcp("127.0.0.1", 0) as listener:
        near = await network.connect_tcp("127.0.0.1", listener.port)
        return near, await listener.accept()


async def test_echoes_more_than_any_buffer_holds():
    near, far = await pair()

    async def echo():
        with pytest.raises(anyio.EndOfStream):
            while True:
                await far.send(await far.receive(10_000))
        await far.send_eof()

    got = bytearray()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(echo)

        async def speak():
            await near.send(BIG)
            await near.send_eof()

        tasks.start_soon(speak)
        with pytest.raises(anyio.EndOfStream):
            while True:
                got += await near.receive()
    assert got == BIG
    await near.aclose()
    await far.aclose()


async def test_t4932_both_directions_at_once_do_not_wait_for_each_other():
    near, far = await pair()

    async def drink(stream):
        got = 0
        while got < len(BIG):
            got += len(await stream.receive())

    async with anyio.create_task_group() as tasks:
        for stream in (near, far):
            tasks.start_soon(stream.send, BIG)
            tasks.start_soon(drink, stream)
    await near.aclose()
    await far.aclose()


async def test_a_busy_stream_lets_others_run():
    near, far = await pair()
    await near.send(b"x" * 1_000)
    turns = []

    async def other():
        turns.append(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        for _ in range(1_000):
            await far.receive(1)
            if turns:
                break
        assert turns
    await near.aclose()
    await far.aclose()


async def test_a_cancelled_receive_loses_no_byte():
    near, far = await pair()
    await near.send(b"abc" * 40)
    got = b""
    while len(got) < 120:
        with anyio.CancelScope() as scope:
            if len(got) % 2:
                scope.cancel()
            try:
                got += await far.receive(1)
            finally:
                scope.cancel()
        if scope.cancelled_caught:
            got += await far.receive(1)
    assert got == b"abc" * 40
    await near.aclose()
    await far.aclose()


async def test_closing_wakes_reader_and_writer():
    near, far = await pair()
    ends = []

    async def expect_closed(work):
        with pytest.raises(anyio.ClosedResourceError):
            await work
        ends.append(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(expect_closed, near.receive())
        tasks.start_soon(expect_closed, near.send(BIG))
        await anyio.wait_all_tasks_blocked()
        await near.aclose()
    assert len(ends) == 2
    with pytest.raises(anyio.ClosedResourceError):
        await near.send(b"x")
    await near.aclose()
    await far.aclose()


async def test_a_reset_is_a_broken_stream():
    near, far = await pair()
    far._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await far.aclose()
    with pytest.raises(anyio.BrokenResourceError):
        await near.receive()
    await near.aclose()


async def test_says_who_is_there_and_sends_small_things_at_once():
    near, far = await pair()
    assert near.extra(SocketAttribute.remote_address)[0] == "127.0.0.1"
    assert near.extra(SocketAttribute.remote_address) == far.extra(SocketAttribute.local_address)
    assert near._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert far._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await near.aclose()
    await far.aclose()


async def test_a_dual_stack_listener_calls_an_ipv4_peer_by_its_ipv4_name():
    network = RealNetwork()
    async with network.listen_tcp("::", 0) as listener:
        near = await network.connect_tcp("127.0.0.1", listener.port)
        far = await listener.accept()
        assert far.extra(SocketAttribute.remote_address)[0] == "127.0.0.1"
        await near.aclose()
        await far.aclose()


async def test_names_are_resolved_and_addresses_tried_in_order():
    network = RealNetwork()
    async with network.listen_tcp("127.0.0.1", 0) as listener:  # localhost may be ::1 first
        near = await network.connect_tcp("localhost", listener.port)
        await near.aclose()
        await (await listener.accept()).aclose()


async def test_an_unknown_name_and_a_closed_port_are_dial_errors():
    network = RealNetwork()
    with pytest.raises(DialError, match=r"no-such-host\.invalid"):
        await network.connect_tcp("no-such-host.invalid", 1)
    async with network.listen_tcp("127.0.0.1", 0) as listener:
        port = listener.port
    with pytest.raises(DialError, match=f"127.0.0.1 port {port}: connection refused"):
        await network.connect_tcp("127.0.0.1", port)


async def test_a_taken_port_is_a_transport_error_with_a_hint():
    network = RealNetwork()
    async with network.listen_tcp("127.0.0.1", 0) as listener:
        with pytest.raises(TransportError, match="already in use") as caught:
            async with network.listen_tcp("127.0.0.1", listener.port):
                pass
    assert "another port" in caught.value.hint


async def test_a_port_is_free_again_once_the_listener_is_closed():
    network = RealNetwork()
    async with network.listen_tcp("127.0.0.1", 0) as listener:
        near = await network.connect_tcp("127.0.0.1", listener.port)
        far = await listener.accept()
    await far.aclose()
    await near.aclose()
    async with network.listen_tcp("127.0.0.1", listener.port):
        pass


async def test_a_connection_that_was_reset_before_it_was_taken_has_no_address():
    async with RealNetwork().listen_tcp("127.0.0.1", 0) as listener:
        caller = socket.create_connection(("127.0.0.1", listener.port))
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        stream = await listener.accept()
        assert stream.extra(SocketAttribute.remote_address) == ("", 0)
        with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
            await stream.receive()
        await stream.aclose()


async def test_closing_a_listener_ends_its_accept():
    raised = []

    async def accept(listener):
        try:
            await listener.accept()
        except anyio.ClosedResourceError:
            raised.append(1)

    async with (
        anyio.create_task_group() as tasks,
        RealNetwork().listen_tcp("127.0.0.1", 0) as listener,
    ):
        tasks.start_soon(accept, listener)
        await anyio.wait_all_tasks_blocked()
    assert raised


async def test_t2299_failed_and_cancelled_dials_leave_no_socket_behind():
    network = RealNetwork()
    async with network.listen_tcp("127.0.0.1", 0) as listener:
        port = listener.port
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(300):
        with pytest.raises(DialError):
            await network.connect_tcp("127.0.0.1", port)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await network.connect_tcp("127.0.0.1", port)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_dial_that_meets_itself_is_refused(monkeypatch):
    """Linux may give a dial to a closed port that very port to dial from."""

    class Unlucky(socket.socket):
        def connect_ex(self, address):
            self.bind(address)
            return super().connect_ex(address)

    network = RealNetwork()
    async with network.listen_tcp("127.0.0.1", 0) as listener:
        port = listener.port
    monkeypatch.setattr("skycore.runtime.network.socket.socket", Unlucky)
    with pytest.raises(DialError, match="connection refused"):
        await network.connect_tcp("127.0.0.1", port)


F9 = """
    import os, resource, socket, anyio
    from skycore.runtime.network import RealNetwork

    async def main():
        async with RealNetwork().listen_tcp("127.0.0.1", 0) as listener:
            callers = []
            for _ in range(20):
                caller = socket.socket()
                caller.connect(("127.0.0.1", listener.port))
                callers.append(caller)
            taken = len(os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 4, taken + 4))
            got = []
            async def accept():
                while True:
                    got.append(await listener.accept())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(accept)
                while len(got) < 3:
                    await anyio.sleep(0.01)
                with anyio.move_on_after(0.3):
                    while len(got) < 20:
                        await anyio.sleep(0.01)
                short = len(got)
                for stream in got:
                    await stream.aclose()
                for caller in callers[:10]:
                    caller.close()
                with anyio.fail_after(10.0):
                    while len(got) < 17:
                        await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            print("short", short < 20, "then", len(got) > short)
    anyio.run(main)
"""


@pytest.mark.processes
def test_f9_accepts_again_after_descriptors_ran_out():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(F9)], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.split() == ["short", "True", "then", "True"], done.stderr


async def test_the_stream_is_what_it_says():
    near, far = await pair()
    assert isinstance(near, TcpStream) and isinstance(near, anyio.abc.ByteStream)
    await near.aclose()
    await far.aclose()


async def test_the_address_towards_another_is_found_without_sending():
    network = RealNetwork()
    assert network.source_for("127.0.0.1") == "127.0.0.1"
    assert network.source_for("localhost") == ""  # a name would have to be looked up
    assert network.source_for("") == ""
