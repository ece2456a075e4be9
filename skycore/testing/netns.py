"""Real networks on one machine: hosts, NATs and bad lines in Linux network namespaces.

    with Lab() as lab:
        server = lab.host("server")                        # 198.51.100.x, on the open network
        home = lab.host("home", nat=RealNat.SYMMETRIC)     # 192.168.x.2, behind a box of its own
        far = lab.host("far", line=Line(delay_ms=20, loss=30))
        home.run("ping", "-c1", server.address)

Why besides SimNetwork: a kernel's NAT, its timers and its MTU are what visors meet. Why nft and a
relay of our own instead of netem: many kernels have no netem, ours among them. Needs root and the
Debian packages iproute2, nftables, conntrack and ethtool; `missing()` says what is not there.
Everything lives in namespaces named after this process, and is removed when the `with` ends; what
a killed process left behind is removed by the next lab.
"""

from __future__ import annotations

import contextlib
import enum
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from types import TracebackType
from typing import Final, Self

__all__ = ["Host", "Lab", "LabError", "Line", "RealNat", "missing"]

PREFIX: Final = "skylab"
HOSTS_MAX: Final = 32
COMMAND_MAX_S: Final = 20.0
TOOLS: Final = ("ip", "nft", "conntrack", "ethtool")
OPEN: Final = "198.51.100"
"""The open network: TEST-NET-2 of RFC 5737, and so nobody's."""
UDP_PORT: Final = 7_777
"""The port of hosts behind a cone that is let in, as a cone's mapping would."""
HEADERS_BYTES: Final = 28


class LabError(Exception):
    """A command of the lab failed."""


class RealNat(enum.Enum):
    """Kinds of NAT that nft makes, in RFC 3489's words."""

    FULL_CONE = "full-cone"
    """Ports are kept; what comes to UDP_PORT is let in from everywhere."""
    ADDRESS_RESTRICTED = "address-restricted"
    """Ports are kept; what comes to UDP_PORT is let in from addresses that were sent to."""
    PORT_RESTRICTED = "port-restricted"
    """Ports are kept; conntrack lets in what was sent to: Linux's plain masquerade."""
    SYMMETRIC = "symmetric"
    """A random port for each remote endpoint."""


@dataclass(frozen=True)
class Line:
    """What a host's line does to frames, in each direction. Percent, and milliseconds."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """Share of frames that are late by up to `reorder_ms` more."""
    reorder_ms: float = 20.0
    corrupt: float = 0.0
    """Share of UDP datagrams of which one bit is flipped; no checksum tells of it."""
    seed: int = 1


@cache
def missing() -> str:
    """Return why no lab can be built here; empty: it can."""
    if sys.platform != "linux" or os.geteuid():
        return "network namespaces need Linux and root"
    gone = [tool for tool in TOOLS if shutil.which(tool) is None]
    if gone:
        return f"not installed: {', '.join(gone)} (iproute2, nftables, conntrack, ethtool)"
    try:
        with Lab() as lab:
            lab.host("probe", nat=RealNat.PORT_RESTRICTED)
    except LabError as bad:
        return f"this kernel does not do it: {bad}"
    return ""


def _sh(*words: str, text: str | None = None) -> str:
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=COMMAND_MAX_S
        )
    except (OSError, subprocess.TimeoutExpired) as bad:
        raise LabError(f"{' '.join(words[:6])}: {bad}") from bad
    if done.returncode:
        raise LabError(f"{' '.join(words[:8])}: {(done.stderr or done.stdout).strip()[:500]}")
    return done.stdout


def _ip(namespace: str, *lines: str) -> None:
    """Run `ip` commands in a namespace, by one process."""
    _sh("ip", "-n", namespace, "-batch", "-", text="\n".join(lines) + "\n")


class Host:
    """A namespace with one line. Behind a NAT, `box` is the namespace of the NAT."""

    def __init__(
        self, namespace: str, address: str, box: str, public: str, edge: tuple[str, str]
    ) -> None:
        self.namespace, self.address = namespace, address
        self._edge = edge
        """Namespace and device where what it sends arrives first."""
        self.box = box
        """Its NAT's namespace; its own where there is none."""
        self.public = public
        """How the open network sees it."""

    def exec_words(self) -> list[str]:
        """Return the words to put before a command that is to run here."""
        return ["ip", "netns", "exec", self.namespace]

    def run(self, *words: str) -> str:
        """Run a command to its end; return its output. Raises `LabError`."""
        return _sh(*self.exec_words(), *words)

    def popen(self, *words: str, **options: object) -> subprocess.Popen[str]:
        """Start a command. It is killed with the lab."""
        command = [*self.exec_words(), *words]
        return subprocess.Popen(command, text=True, **options)  # type: ignore[call-overload,no-any-return]

    def lose(self, percent: float) -> None:
        """Lose a share of the packets in each direction; 0 mends it."""
        rule = f"numgen random mod 1000 < {round(percent * 10)} drop"
        self._rules("lose", rule if percent else "")

    def swallow(self, mtu: int) -> None:
        """Drop what is larger, and tell nobody: an MTU black hole. 0 mends it."""
        self._rules("swallow", f"meta l4proto udp meta length > {mtu} drop" if mtu else "")

    def unplug(self) -> None:
        """Take away the line of the host's NAT, for good: inside of it all goes on."""
        _ip(self.box, "link set dev wan0 down")

    def cut(self, *, off: bool = True) -> None:
        """Take the line away, or bring it back; nobody is told."""
        self._rules("cut", "drop" if off else "")

    def _rules(self, name: str, rule: str) -> None:
        """Filter what arrives, at both ends of the line: no sender sees an error."""
        for namespace, device in ((self.namespace, "eth0"), self._edge):
            table = f"netdev {name}_{device}"
            text = f"add table {table}\ndelete table {table}\n"
            if rule:
                text += (
                    f"add table {table}\nadd chain {table} in "
                    f'{{ type filter hook ingress device "{device}" priority 0; policy accept; }}\n'
                    f"add rule {table} in meta protocol ip {rule}\n"
                )
            self.nft(text, namespace)

    def expire_after(self, seconds: int) -> None:
        """Let the NAT forget UDP mappings that were not used for so long."""
        at = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout"
        both = f"echo {seconds} > {at}; echo {seconds} > {at}_stream"
        _sh("ip", "netns", "exec", self.box, "sh", "-c", both)

    def forget(self) -> None:
        """Let the NAT forget all mappings, as a restart does."""
        _sh("ip", "netns", "exec", self.box, "conntrack", "-F")

    def nft(self, text: str, namespace: str = "") -> None:
        """Load nft commands into the NAT's namespace, or into another one."""
        _sh("ip", "netns", "exec", namespace or self.box, "nft", "-f", "-", text=text)


class Lab:
    """A bridge, which is the open network, and hosts on it. A context manager."""

    def __init__(self) -> None:
        self.name = f"{PREFIX}{os.getpid()}"
        self._namespaces: list[str] = []
        self._relays: list[subprocess.Popen[bytes]] = []
        self._count = 0

    def __enter__(self) -> Self:
        _sweep()
        try:
            hub = self._namespace("hub")
            _ip(hub, "link add bridge0 type bridge", "link set dev bridge0 up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove it all, and end what runs in it."""
        for relay in self._relays:
            relay.kill()
            relay.wait()
        for namespace in reversed(self._namespaces):
            _remove(namespace)
        self._relays.clear()
        self._namespaces.clear()

    def host(
        self,
        name: str,
        *,
        nat: RealNat | None = None,
        line: Line | None = None,
        behind: Host | None = None,
    ) -> Host:
        """Add a host; behind a NAT of its own, and at the end of a bad line, if you like.

        Or `behind` the NAT that another host has already; what is let in is let in for that one.
        """
        if self._count >= HOSTS_MAX:
            raise LabError(f"a lab has {HOSTS_MAX} hosts at most")
        self._count += 1
        number = self._count
        public = f"{OPEN}.{10 + number}"
        own = self._namespace(name)
        if behind is not None:
            address = self._inside(behind.box, f"lan{number}", own, number)
            return Host(own, address, behind.box, behind.public, (behind.box, f"lan{number}"))
        if nat is None:
            self._plug(own, "eth0", number, line)
            self._address(own, "eth0", public)
            return Host(own, public, own, public, (f"{self.name}-hub", f"port{number}"))
        box = self._namespace(f"{name}-nat")
        self._plug(box, "wan0", number, line)
        self._address(box, "wan0", public)
        host = Host(own, self._inside(box, "lan0", own, number), box, public, (box, "lan0"))
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        _sh("ip", "netns", "exec", box, "sh", "-c", forward)
        host.nft(_nat_rules(nat, host.address))
        return host

    def _inside(self, box: str, device: str, own: str, number: int) -> str:
        """Connect a host to a NAT's inner side, in a network of its own; return its address."""
        inside = f"192.168.{number}"
        self._wire(box, device, own, "eth0")
        _ip(box, *_up(device, f"{inside}.1/24"))
        _ip(own, *_up("eth0", f"{inside}.2/24"), f"route add default via {inside}.1")
        self._plain(box, device)
        self._plain(own, "eth0")
        return f"{inside}.2"

    def _namespace(self, name: str) -> str:
        full = f"{self.name}-{name}"
        _sh("ip", "netns", "add", full)
        self._namespaces.append(full)
        _ip(full, "link set dev lo up")
        return full

    def _address(self, namespace: str, device: str, address: str) -> None:
        _ip(namespace, *_up(device, f"{address}/24"))
        self._plain(namespace, device)

    def _plug(self, namespace: str, device: str, number: int, line: Line | None) -> None:
        """Connect a device to the bridge, through a relay where its line is bad."""
        hub, port = f"{self.name}-hub", f"port{number}"
        if line is None:
            self._wire(hub, port, namespace, device)
        else:
            middle = self._namespace(f"line{number}")
            self._wire(hub, port, middle, "far0")
            self._wire(middle, "near0", namespace, device)
            for name in ("far0", "near0"):
                _ip(middle, f"link set dev {name} up")
                self._plain(middle, name)
        _ip(hub, f"link set dev {port} master bridge0", f"link set dev {port} up")
        self._plain(hub, port)
        if line is not None:
            self._relays.append(_relay(middle, line))

    def _wire(self, one: str, device: str, other: str, device2: str) -> None:
        _ip(one, f"link add {device} type veth peer name {device2} netns {other}")

    def _plain(self, namespace: str, device: str) -> None:
        """No offloads: what a relay reads would carry half-made checksums."""
        off = [w for what in ("tx", "rx", "tso", "gso", "gro") for w in (what, "off")]
        _sh("ip", "netns", "exec", namespace, "ethtool", "-K", device, *off)


def _up(device: str, address: str) -> Iterator[str]:
    yield f"address add {address} dev {device}"
    yield f"link set dev {device} up"


def _relay(namespace: str, line: Line) -> subprocess.Popen[bytes]:
    module = f"{__package__}.netns_relay"
    told = [str(value) for value in astuple(line)]
    words = ["ip", "netns", "exec", namespace, sys.executable, "-m", module, "far0", "near0"]
    relay = subprocess.Popen([*words, *told], stdout=subprocess.PIPE)
    assert relay.stdout is not None
    with relay.stdout as said:
        if said.readline() == b"ready\n":
            return relay
    relay.kill()
    relay.wait()
    raise LabError("the relay did not start")


def _nat_rules(kind: RealNat, inside: str) -> str:
    """Return a NAT's rules. What nobody asked for is dropped before conntrack remembers it.

    Else a peer's early punch would take the port that the host's own mapping is to have.
    """
    how = "masquerade fully-random" if kind is RealNat.SYMMETRIC else "masquerade persistent"
    text = f"""
table ip nat {{
  set contacted {{ type ipv4_addr; flags dynamic,timeout; timeout 2m; size 4096; }}
  chain out {{ type nat hook postrouting priority 100; oifname "wan0" {how}; }}
  chain door {{ type nat hook prerouting priority -100; }}
  chain seen {{ type filter hook forward priority 0; policy accept;
    iifname "wan0" ct state new ct status & dnat == 0 drop
    oifname "wan0" meta l4proto udp update @contacted {{ ip daddr }}
  }}
  chain local {{ type filter hook input priority 0; policy accept;
    iifname "wan0" ct state new drop
  }}
}}
"""
    let_in = {
        RealNat.FULL_CONE: "",
        RealNat.ADDRESS_RESTRICTED: "ip saddr @contacted ",
    }.get(kind)
    if let_in is not None:
        text += (
            f'add rule ip nat door iifname "wan0" udp dport {UDP_PORT} {let_in}'
            f"dnat to {inside}:{UDP_PORT}\n"
        )
    return text


def _sweep() -> None:
    """Remove what labs of processes that are gone have left."""
    for namespace in _sh("ip", "netns", "list").split():
        owner = namespace.removeprefix(PREFIX).partition("-")[0]
        if (
            namespace.startswith(PREFIX)
            and owner.isdigit()
            and not os.path.exists(f"/proc/{owner}")
        ):
            _remove(namespace)


def _remove(namespace: str) -> None:
    with contextlib.suppress(LabError):
        _end(_sh("ip", "netns", "pids", namespace).split())
    with contextlib.suppress(LabError):
        _sh("ip", "netns", "del", namespace)


def _end(pids: Sequence[str]) -> None:
    """Kill processes of a namespace of ours, and wait a moment until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    for _ in range(50):
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return
        time.sleep(0.01)
