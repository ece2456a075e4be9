"""SimNetwork: hosts, TCP and UDP between them, in memory and on virtual time, broken at will.

Why hosts: a node is given `network.host("10.0.0.7")` in place of real sockets and cannot tell.
Everything that happens is drawn from the seed: latency, loss, where a send is cut in two.
Trouble has the names of the field's testers: partition, one-way cut, isolate, clog, swizzle
(clog one by one, mend in another order: FoundationDB), kill. What is special of UDP and of NATs
is in `skycore.testing.udp` and `skycore.testing.nat`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Container, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast

import anyio
from anyio.abc import ByteStream

from skycore.errors import DialError, TransportError
from skycore.testing.listener import BACKLOG_MAX, SimListener
from skycore.testing.loop import SimLoop
from skycore.testing.nat import Nat, NatKind
from skycore.testing.pipes import LOOPBACK, Link, Path, Pipe, SimStream
from skycore.testing.trace import Dice, Trace
from skycore.testing.udp import Post, SimDatagramSocket

__all__ = ["Link", "SimHost", "SimListener", "SimNetwork"]

BUFFER_MAX: Final = 256 * 1024
"""Bytes of one direction, under way or unread, over which a sender waits."""
SYN_WAITS_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Waits between attempts to connect; Linux, tcp_syn_retries = 6."""
FIRST_EPHEMERAL_PORT: Final = 32_768
ANY_HOST: Final = ("", "0.0.0.0", "::")


class _Machine:
    """A host: its listeners, sockets and ends of connections. All die with its process."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.listeners: dict[int, SimListener] = {}
        self.sockets: dict[int, SimDatagramSocket] = {}
        self.ends: dict[SimStream, None] = {}
        self.generation = 0
        self._port = FIRST_EPHEMERAL_PORT

    def next_port(self) -> int:
        self._port = self._port + 1 if self._port < 65_535 else FIRST_EPHEMERAL_PORT
        return self._port

    def forget(self, end: SimStream) -> None:
        self.ends.pop(end, None)

    def is_near(self, other: _Machine, post: Post) -> bool:
        """Whether two hosts are behind one NAT, or are one."""
        return self is other or post.behind.get(self.address) is post.behind.get(other.address)


class SimNetwork:
    """The network of a simulation. Needs a running `SimLoop`."""

    def __init__(
        self,
        seed: int = 0,
        link: Link | None = None,
        *,
        buffer_max: int = BUFFER_MAX,
        trace: Trace | None = None,
    ) -> None:
        self.seed = seed
        self.link = link or Link()
        self.trace = trace or Trace()
        self.buffer_max = buffer_max
        self._loop = cast(SimLoop, asyncio.get_running_loop())
        self._dice = random.Random(seed)  # for the order of a swizzle
        self._machines: dict[str, _Machine] = {}
        self._paths: dict[tuple[str, str], Path] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._groups: dict[str, int] = {}
        self._cut: dict[tuple[str, str], None] = {}
        self._isolated: dict[str, None] = {}
        self._clogged: dict[str, None] = {}
        self._down: dict[str, None] = {}
        self.post = Post(self)
        self.names: dict[str, tuple[str, ...]] = {}
        """Names that hosts can look up, and their addresses; change it as you like."""

    # --- hosts and paths -------------------------------------------------------------------------

    def host(self, address: str, nat: Nat | None = None) -> SimHost:
        """Return a host's view of the network, for one process: after `kill`, ask again.

        Behind a NAT it stays there; its address is then known in its own network only.
        """
        machine = self._machines.setdefault(address, _Machine(address))
        if nat is not None:
            self.post.behind[address] = nat
        return SimHost(self, machine)

    def nat(
        self,
        kind: NatKind,
        public: str,
        *,
        mapping_s: float = 120.0,
        keeps_ports: bool = False,
        hairpin: bool = False,
    ) -> Nat:
        """Make a NAT with a public address, to put hosts behind. See `skycore.testing.nat.Nat`."""
        nat = self.post.nats[public] = Nat(
            kind,
            public,
            mapping_s=mapping_s,
            keeps_ports=keeps_ports,
            hairpin=hairpin,
            seed=self.seed,
        )
        return nat

    def hosts(self) -> Sequence[str]:
        """Return every address that was ever asked for, in that order."""
        return list(self._machines)

    def connections(self, address: str) -> int:
        """Return how many live connections a host has."""
        machine = self._machines.get(address)
        return len(machine.ends) if machine else 0

    def set_link(self, source: str, target: str, link: Link) -> None:
        """Give one direction of a way its own quality, from now on."""
        self._links[source, target] = link
        path = self._paths.get((source, target))
        if path is not None:
            path.link = link

    def path(self, source: str, target: str) -> Path:
        """Return the way from one host to another."""
        path = self._paths.get((source, target))
        if path is None:
            link = self._links.get((source, target), self.link)
            link = LOOPBACK if source == target else link
            path = Path(link, self._is_open(source, target))
            self._paths[source, target] = path
        return path

    def machine(self, address: str) -> _Machine | None:
        """Return a host, or None where there is none."""
        return self._machines.get(address)

    def connect(
        self, source: tuple[str, int], target: tuple[str, int]
    ) -> tuple[SimStream, SimStream]:
        """Make both ends of a connection; the first is the source's."""
        there = self._pipe(source, target)
        back = self._pipe(target, source)
        here, far = self._machines[source[0]], self._machines[target[0]]
        nat = self.post.behind.get(source[0])
        seen = (nat.host, source[1]) if nat and not far.is_near(here, self.post) else source
        one = SimStream(back, there, (source, target), self.buffer_max, here.forget)
        other = SimStream(there, back, (target, seen), self.buffer_max, far.forget)
        one.peer, other.peer = other, one
        here.ends[one] = None
        far.ends[other] = None
        return one, other

    def _pipe(self, source: tuple[str, int], target: tuple[str, int]) -> Pipe:
        name = f"{source[0]}:{source[1]}>{target[0]}:{target[1]}"
        path = self.path(source[0], target[0])
        return Pipe(self._loop, path, Dice(self.seed, name), self.trace, name)

    # --- trouble ---------------------------------------------------------------------------------

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut hosts of different groups from each other; replaces an earlier partition.

        A host in several groups, or in none, is a bridge: it reaches everybody.
        """
        masks: dict[str, int] = {}
        for number, group in enumerate(groups):
            for address in group:
                masks[address] = masks.get(address, 0) | 1 << number
        self.note("partition", *(f"{a}={m}" for a, m in masks.items()))
        self._groups = masks
        self._changed()

    def cut(self, source: str, target: str) -> None:
        """Lose everything from source to target; the other direction works."""
        self.note("cut", source, target)
        self._cut[source, target] = None
        self._changed()

    def isolate(self, address: str) -> None:
        """Cut one host from all others."""
        self.note("isolate", address)
        self._isolated[address] = None
        self._changed()

    def heal(self) -> None:
        """Mend everything: partitions, cuts, isolations and clogs. Power stays as it is."""
        self.note("heal")
        for trouble in (self._groups, self._cut, self._isolated, self._clogged):
            trouble.clear()
        self._changed()

    def clog(self, address: str) -> None:
        """Hold back all that a host sends and all that is sent to it; nothing is lost."""
        self.note("clog", address)
        self._clogged[address] = None
        self._changed()

    def unclog(self, address: str) -> None:
        """Let it through, at once."""
        self.note("unclog", address)
        self._clogged.pop(address, None)
        self._changed(gently=True)

    async def swizzle(self, addresses: Iterable[str], *, step_s: float = 10.0) -> None:
        """Clog hosts one by one in a random order, then unclog them in another one.

        Between two steps pass 0 to twice `step_s`.
        """
        order = list(addresses)
        for change in (self.clog, self.unclog):
            self._dice.shuffle(order)
            for address in order:
                change(address)
                await anyio.sleep(self._dice.uniform(0, 2 * step_s))

    def kill(self, address: str) -> None:
        """Kill a host's process: its listeners close, its connections are reset.

        Views of the host that were given out before are dead; ask `host` for a new one.
        """
        self.note("kill", address)
        machine = self._machines.setdefault(address, _Machine(address))
        machine.generation += 1
        for listener in list(machine.listeners.values()):
            listener.close()
        machine.listeners.clear()
        for socket in machine.sockets.values():
            socket.close()
        machine.sockets.clear()
        for end in list(machine.ends):
            end.kill()

    def power_off(self, address: str) -> None:
        """Kill a host without a word: nobody is told, and what is sent to it is lost."""
        self.note("power_off", address)
        self._down[address] = None
        self._changed()
        self.kill(address)

    def power_on(self, address: str) -> None:
        """Let a host be reached again: peers that still believe in a connection get a reset."""
        self.note("power_on", address)
        self._down.pop(address, None)
        self._changed()

    def _is_open(self, source: str, target: str) -> bool:
        if source == target:
            return True
        for trouble in (self._down, self._isolated, self._clogged):
            if source in trouble or target in trouble:
                return False
        if (source, target) in self._cut:
            return False
        here, there = self._groups.get(source, 0), self._groups.get(target, 0)
        return not here or not there or bool(here & there)

    def _changed(self, *, gently: bool = False) -> None:
        for (source, target), path in self._paths.items():
            is_open = self._is_open(source, target)
            if is_open != path.open:
                path.set_open(is_open, gently=gently)

    def note(self, *words: str) -> None:
        """Add an event to the trace, with the time before it."""
        self.trace.note(f"{self._loop.time():.9f} {' '.join(words)}")


class SimHost:
    """One process's sockets on a simulated host: implements contracts.runtime.Network."""

    def __init__(self, network: SimNetwork, machine: _Machine) -> None:
        self._network, self._machine = network, machine
        self._generation = machine.generation
        self.address = machine.address

    @property
    def is_dead(self) -> bool:
        """Whether the process was killed."""
        return self._generation != self._machine.generation

    async def connect_tcp(self, host: str, port: int) -> ByteStream:
        """Connect. Refused where nobody listens; where nobody answers it gives up after 127 s."""
        target = self._resolve(host)
        source = self._machine.next_port()
        dice = Dice(self._network.seed, "syn", self.address, source, target, port)
        name = f"{self.address}:{source}>{target}:{port}"
        for wait_s in SYN_WAITS_S:
            self._network.note(name, "syn")
            stream = await self._try_connect((self.address, source), (target, port), dice)
            if stream is not None:
                return stream
            await anyio.sleep(wait_s)
        raise DialError(f"{host}:{port} does not answer")

    async def _try_connect(
        self, source: tuple[str, int], target: tuple[str, int], dice: Dice
    ) -> ByteStream | None:
        network, loop = self._network, asyncio.get_running_loop()
        there = network.path(source[0], target[0])
        back = network.path(target[0], source[0])
        await anyio.sleep(there.delay_s(0, loop.time(), dice))
        if not (there.open and back.open):
            return None
        machine = network.machine(target[0])
        if not network.post.takes_tcp(source[0], target[0]):
            return None
        listener = machine.listeners.get(target[1]) if machine else None
        if listener is not None and len(listener.backlog) >= BACKLOG_MAX:
            return None
        await anyio.sleep(back.delay_s(0, loop.time(), dice))
        if machine is None:
            raise DialError(f"no route to host {target[0]}")
        if listener is None or listener.is_closed:
            raise DialError(f"{target[0]}:{target[1]} refused the connection")
        self._check_alive()
        one, other = network.connect(source, target)
        loop.call_later(there.delay_s(0, loop.time(), dice), listener.offer, other)
        return one

    @asynccontextmanager
    async def listen_tcp(self, host: str, port: int) -> AsyncIterator[SimListener]:
        """Bind. Raises `TransportError` for a taken port and for somebody else's address."""
        listeners = self._machine.listeners
        port = self._free(host, port, listeners)
        listener = listeners[port] = SimListener(host, port)
        await anyio.lowlevel.checkpoint()
        try:
            yield listener
        finally:
            if listeners.get(port) is listener:
                del listeners[port]
            listener.close()

    @asynccontextmanager
    async def open_udp(self, host: str, port: int) -> AsyncIterator[SimDatagramSocket]:
        """Bind. Raises `TransportError` for a taken port and for somebody else's address."""
        sockets = self._machine.sockets
        port = self._free(host, port, sockets)
        socket = sockets[port] = SimDatagramSocket(self._network.post, self.address, host, port)
        await anyio.lowlevel.checkpoint()
        try:
            yield socket
        finally:
            if sockets.get(port) is socket:
                del sockets[port]
            socket.close()

    def _free(self, host: str, port: int, taken: Container[int]) -> int:
        self._check_alive()
        if host not in ANY_HOST and self._resolve(host) != self.address:
            raise TransportError(f"cannot listen on {host}: it is not an address of this host")
        if port in taken:
            raise TransportError(f"port {port} of {self.address} is taken")
        while not port or port in taken:
            port = self._machine.next_port()
        return port

    async def resolve(self, host: str) -> Sequence[str]:
        """Return the addresses of a name, or the address itself. Raises `DialError`."""
        await anyio.lowlevel.checkpoint()
        if host.replace(".", "").isdigit() or ":" in host:
            return (host,)
        found = ("127.0.0.1",) if host == "localhost" else self._network.names.get(host, ())
        if not found:
            raise DialError(f"{host}: no such name")
        return found

    def source_for(self, host: str) -> str:
        """Return this host's address."""
        return "127.0.0.1" if host == "127.0.0.1" else self.address

    def _resolve(self, host: str) -> str:
        host = self._network.names.get(host, (host,))[0]
        return self.address if host == "localhost" or host.startswith("127.") else host

    def _check_alive(self) -> None:
        if self.is_dead:
            raise DialError(f"the process on {self.address} was killed")
