"""Whole nodes for benchmarks: in this process, and as a second one beside it.

The second process is `python -m benchmarks.nodes`; it is told what to do in JSON lines on its
standard input and answers in JSON lines on its standard output. It ends when its input does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from benchmarks.limits import EchoServer
from benchmarks.workloads import changed, secret_of, signed_items
from skycore.contracts.runtime import Clock
from skycore.contracts.store import Items
from skycore.contracts.streams import Service, Streams
from skycore.contracts.transport import Transports
from skycore.identity import network_constants
from skycore.model.network import NetworkConstants
from skycore.node import Node
from skycore.runtime.clock import RealClock
from skycore.settings import NetworkSettings

__all__ = [
    "BULK",
    "CLIENT",
    "ITEM_LIFE_S",
    "LOOPS",
    "NETWORK",
    "Second",
    "contact_of",
    "in_loop",
    "offered_plugin",
    "open_node",
    "second_process",
]

NETWORK: Final[NetworkConstants] = network_constants(NetworkSettings())
LOOPS: Final = ("uvloop", "asyncio")
BULK: Final = Service("bench", 200, 200)
CLIENT: Final = "client"
"""Name of the key that the second process takes calls from."""
ROOM: Final = {"signer_items_max": 100_000, "unknown_items_max": 100_000}
ITEM_LIFE_S: Final = 7_000
ALONE: Final = {"full_nodes_max": 0, "repair_interval_s": 0}
"""Nothing moves but what a benchmark moves."""


def in_loop(loop: str, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run async work on one of LOOPS."""
    return anyio.run(work, *args, backend_options={"use_uvloop": loop == "uvloop"})


@asynccontextmanager
async def open_node(
    name: str = "",
    *,
    store: str = "store_memory",
    full: bool = False,
    echo: bool = False,
    data: Path | None = None,
    bootstrap: Sequence[str] = (),
    gate: dict[str, Any] | None = None,
    live: bool = False,
) -> AsyncIterator[Node]:
    """Run a node with the real plugins on a loopback port of its own.

    Full nodes keep in step with each other only where they are `live`.
    """
    other = {"store_memory": "store_sqlite", "store_sqlite": "store_memory"}[store]
    settings = {
        "node": {
            "profile": "fullnode" if full else "visor",
            "disable": ["rpc_local", other],
            "enable": [store, *(["bench_echo"] if echo else [])],
        },
        "transport_stcpr": {"listen": "127.0.0.1:0"},
        "dht_kademlia": {"bootstrap": list(bootstrap), **({} if live else ALONE)},
        "access_whitelist": {"whitelist": [_public(CLIENT)]},
        "gate": ROOM if gate is None else gate,
        # everybody here has one source host, whose share of handshakes is 8 by default
        "transports": {"handshakes_per_host_max": 64},
    }
    async with Node.open(
        settings=settings, data=data, secret=secret_of(NETWORK, name) if name else None
    ) as node:
        yield node


def _public(name: str) -> str:
    return NETWORK.suite.public(secret_of(NETWORK, name)).hex()


def contact_of(node: Node) -> str:
    """Return PK@host:port of a node here."""
    endpoint = node.get(Transports).listening()[0].endpoint
    port = endpoint.rpartition(":")[2]
    return f"{node.identity.public.hex()}@127.0.0.1:{port}"


@contextmanager
def offered_plugin() -> Iterator[None]:
    """Install `benchmarks.echo_plugin` for this process, as a stranger's would be: by metadata."""
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder) / "bench_echo-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-echo\nVersion: 1.0\n")
        entry = "[skycore.plugins]\nbench_echo = benchmarks.echo_plugin\n"
        (info / "entry_points.txt").write_text(entry)
        sys.path.append(folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)


# --- the second process, seen from the first -----------------------------------------------------


class Second:
    """The other process. `told` is what it said when it was ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.told = self._read()

    def ask(self, what: str, **more: Any) -> dict[str, Any]:
        """Tell it something and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"what": what, **more}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the second process ended")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def second_process(role: str, loop: str, **options: Any) -> Iterator[Second]:
    """Start it, and end it at the end."""
    words = [sys.executable, "-m", "benchmarks.nodes", role, loop, json.dumps(options)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Second(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


# --- the second process itself -------------------------------------------------------------------


def _say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


async def _commands(do: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
    while line := await anyio.to_thread.run_sync(sys.stdin.readline):
        _say(**await do(json.loads(line)))


async def _swallow(node: Node) -> None:
    """Read streams to their end and tell how much there was."""
    async with node.get(Streams).listen(BULK) as listener, anyio.create_task_group() as tasks:

        async def one(stream: Any) -> None:
            total = 0
            while data := await stream.receive(262_144):
                total += len(data)
            await stream.send(total.to_bytes(8, "big"))
            await stream.send_eof()

        while True:
            tasks.start_soon(one, await listener.accept())


async def _run_node(items: int = 0, until: int = 0, **options: Any) -> None:
    async with open_node("server", **options) as node, anyio.create_task_group() as tasks:
        held = signed_items(NETWORK, items, until=until)
        for start in range(0, items, 1_000):
            outcomes = await node.get(Items).admit(
                held[start : start + 1_000], sender=node.identity.public
            )
            assert all(o.accepted for o in outcomes), outcomes[0]
        tasks.start_soon(_swallow, node)

        async def do(order: dict[str, Any]) -> dict[str, Any]:
            if order["what"] == "change":
                newer = changed(NETWORK, held, order["share"])
                await node.get(Items).admit(newer, sender=node.identity.public)
                return {"changed": len(newer)}
            return {"cpu_s": time.process_time()}

        _say(contact=contact_of(node), public=node.identity.public.hex())
        await _commands(do)
        tasks.cancel_scope.cancel()


async def _run_limit() -> None:
    import asyncio

    server = await asyncio.get_running_loop().create_server(EchoServer, "127.0.0.1", 0)
    _say(port=server.sockets[0].getsockname()[1])

    async def do(order: dict[str, Any]) -> dict[str, Any]:
        return {"cpu_s": time.process_time()}

    await _commands(do)
    server.close()


def _main() -> None:
    role, loop, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

    async def work() -> None:
        await (_run_node(**options) if role == "node" else _run_limit())

    with offered_plugin(), contextlib.suppress(KeyboardInterrupt):
        in_loop(loop, work)


def clock() -> Clock:
    """Return the real one."""
    return RealClock()


if __name__ == "__main__":
    _main()
