"""U2 to U17 on a kernel's network: 1 MiB both ways, byte for byte, whatever the line does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from skycore.testing.netns import Lab, Line, RealNat

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("needs_lab")]
PEER = str(Path(__file__).with_name("peer.py"))
MIB = 1024 * 1024
PATIENCE_S = 90.0


class Peer:
    """A running `peer.py`, and the lines that it said."""

    def __init__(self, host, *words):
        self.process = host.popen(
            sys.executable, PEER, *map(str, words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.lines, self._news = [], threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.strip())
                self._news.notify_all()
        with self._news:
            self.lines.append("the end")
            self._news.notify_all()

    def wait(self, word):
        """Wait until it says something; return when."""

        def said():
            return any(line.startswith((word, "the end")) for line in self.lines)

        with self._news:
            assert self._news.wait_for(said, PATIENCE_S), (word, self.lines)
            assert any(line.startswith(word) for line in self.lines), self.lines
        return time.monotonic()

    def result(self):
        self.wait("{")
        return json.loads(next(line for line in self.lines if line.startswith("{")))

    def close(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()


@contextmanager
def meeting(near, far, *, size=MIB, pause_s=0.0, keepalive_s=15.0, idle_s=45.0):
    """Two peers with a connection between them, that exchange `size` bytes."""
    rest = (size, pause_s, keepalive_s, idle_s)
    peers = [Peer(far, "listen", 7_777, *rest)]
    try:
        peers[0].wait("ready")
        peers.append(Peer(near, "dial", far.public, 7_777, *rest))
        peers[1].wait("started")
        yield peers[1], peers[0]
    finally:
        for peer in peers:
            peer.close()


def both_whole(*peers):
    found = [peer.result() for peer in peers]
    assert all(one["ok"] for one in found), found
    return max(one["seconds"] for one in found)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(Line(), id="clean"),
        pytest.param(Line(delay_ms=10, loss=30), id="u2_30_percent_lost_each_way"),
        pytest.param(Line(delay_ms=10, reorder=25, reorder_ms=20), id="u3_reordered"),
        pytest.param(Line(delay_ms=5, duplicate=30), id="u4_duplicated"),
        pytest.param(
            Line(delay_ms=20, jitter_ms=5, loss=10, duplicate=5, reorder=25), id="all_at_once"
        ),
    ],
)
def test_a_mebibyte_each_way_over_a_bad_line(line):
    with Lab() as lab:
        near, far = lab.host("near", line=line), lab.host("far")
        with meeting(near, far) as peers:
            assert both_whole(*peers) <= 60


def test_u2_lost_in_the_kernel():
    with Lab() as lab:
        near, far = lab.host("near"), lab.host("far")
        near.lose(30)
        with meeting(near, far) as peers:
            assert both_whole(*peers) <= 60


def test_u5_one_datagram_in_a_hundred_has_a_bit_flipped():
    """None of them is data: each is thrown away for its authentication, counted, and sent again."""
    with Lab() as lab:
        near, far = lab.host("near", line=Line(delay_ms=10, corrupt=1)), lab.host("far")
        with meeting(near, far, size=2 * MIB) as peers:
            assert both_whole(*peers) <= 60
            assert sum(peer.result()["ignored"] for peer in peers) >= 10


def test_u6_an_mtu_black_hole_in_the_middle_of_a_transfer():
    with Lab() as lab:
        near, far = lab.host("near", line=Line(delay_ms=20)), lab.host("far")
        with meeting(near, far, size=8 * MIB) as peers:
            peers[0].wait("quarter")
            near.swallow(1_228)
            assert both_whole(*peers) <= 60


def test_u7_an_outage_of_10_s():
    with Lab() as lab:
        near, far = lab.host("near", line=Line(delay_ms=20)), lab.host("far")
        with meeting(near, far, size=8 * MIB) as peers:
            peers[0].wait("quarter")
            near.cut()
            time.sleep(10)
            near.cut(off=False)
            assert both_whole(*peers) <= 60


def test_u9_a_nat_that_forgets_everything_in_the_middle_of_a_transfer():
    with Lab() as lab:
        near = lab.host("near", nat=RealNat.SYMMETRIC, line=Line(delay_ms=20))
        far = lab.host("far")
        with meeting(near, far, size=8 * MIB) as peers:
            peers[0].wait("quarter")
            near.forget()
            both_whole(*peers)
            host, port = peers[1].result()["peer"]
            assert host == near.public and port != 7_777


def test_u16_a_nat_that_forgets_after_2_s():
    with Lab() as lab:
        near, far = lab.host("near", nat=RealNat.SYMMETRIC), lab.host("far")
        near.expire_after(2)
        with meeting(near, far, pause_s=8, keepalive_s=1) as peers:
            both_whole(*peers)


def test_u17_a_peer_that_vanishes():
    with Lab() as lab:
        near, far = lab.host("near", line=Line(delay_ms=20)), lab.host("far")
        with meeting(near, far, size=64 * MIB, keepalive_s=1, idle_s=3) as (peer, _):
            peer.wait("quarter")
            near.cut()
            found = peer.result()
            assert not found["ok"] and "BrokenResource" in found["error"]
