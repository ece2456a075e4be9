"""The kit itself: what it makes, and that nothing is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.testing import netns
from skycore.testing.netns import Lab, LabError, Line, RealNat
from skycore.testing.netns_relay import broken

SEND = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 7777))
for to in sys.argv[2:]: s.sendto(sys.argv[1].encode(), (to, 9))
"""
HEAR = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9)); s.settimeout(20)
print("ready", flush=True); print(*s.recvfrom(99)[1], flush=True)
"""


def namespaces():
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return [word for word in listed.stdout.split() if word.startswith(f"skylab{os.getpid()}-")]


def seen_by(lab, host, *names):
    """Return under which addresses servers see a host."""
    servers = [lab.host(name) for name in names]
    listening = [s.popen(sys.executable, "-c", HEAR, stdout=subprocess.PIPE) for s in servers]
    try:
        for process in listening:
            assert process.stdout.readline() == "ready\n"
        host.run(sys.executable, "-c", SEND, "x", *(server.address for server in servers))
        return [tuple(process.stdout.readline().split()) for process in listening]
    finally:
        for process in listening:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.mark.usefixtures("needs_lab")
class TestLab:
    @pytest.mark.parametrize("kind", RealNat)
    def test_a_nat_maps_as_its_kind_does(self, kind):
        with Lab() as lab:
            host = lab.host("home", nat=kind)
            seen = seen_by(lab, host, "one", "two")
            assert {address for address, _ in seen} == {host.public}
            ports = {port for _, port in seen}
            assert (ports == {"7777"}) is (kind is not RealNat.SYMMETRIC)

    def test_a_cut_line_passes_nothing_until_it_is_mended(self):
        with Lab() as lab:
            near, far = lab.host("near", line=Line(delay_ms=1)), lab.host("far")
            near.cut()
            with pytest.raises(LabError):
                near.run("python3", "-c", _connect(far.address))
            near.cut(off=False)
            near.run("python3", "-c", _connect(far.address))

    def test_nothing_is_left_after_an_error(self):
        with pytest.raises(ZeroDivisionError), Lab() as lab:
            host = lab.host("home", nat=RealNat.SYMMETRIC, line=Line(loss=5))
            forgotten = host.popen("sleep", "600")
            assert len(namespaces()) == 4
            _ = 1 / 0
        assert not namespaces()
        assert forgotten.wait(10) != 0

    def test_a_command_that_fails_says_why(self):
        with Lab() as lab, pytest.raises(LabError, match="No such file"):
            lab.host("near").run("cat", "/does/not/exist")


def _connect(address):
    """A refusal shows that packets go there and back."""
    return (
        "import socket\n"
        f"try: socket.create_connection(('{address}', 1), 1)\n"
        "except ConnectionRefusedError: pass\n"
    )


@given(st.binary(max_size=60), st.floats(0, 1, exclude_max=True))
def test_a_broken_datagram_differs_by_one_bit_of_its_content(content, where):
    head = bytes(12) + b"\x08\x00" + b"\x45" + bytes(8) + b"\x11" + bytes(10)
    size = (8 + len(content)).to_bytes(2, "big")
    frame = head + b"\1\2\3\4" + size + b"\5\6" + content + b"padding"
    other = broken(frame, where)
    if not content:
        assert other == frame
        return
    start = len(head) + 8
    assert other[:start] == head + b"\1\2\3\4" + size + b"\0\0"
    assert other[start + len(content) :] == b"padding"
    one, two = (int.from_bytes(f[start : start + len(content)], "big") for f in (frame, other))
    assert (one ^ two).bit_count() == 1


@given(st.binary(max_size=80), st.floats(0, 1, exclude_max=True))
def test_what_is_no_datagram_is_not_broken(frame, where):
    if frame[12:14] != b"\x08\x00" or frame[23:24] != b"\x11":
        assert broken(frame, where) == frame
    assert len(broken(frame, where)) == len(frame)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ({}, "1 skipped"),
        ({"CI": "true"}, "1 error"),
        ({"CI": "true", "SKYCORE_NETNS": "off"}, "1 skipped"),
    ],
)
def test_where_tools_are_missing_it_skips_and_fails_in_ci_alone(tmp_path, said, outcome):
    known = {k: v for k, v in os.environ.items() if k not in ("CI", "SKYCORE_NETNS")}
    test = f"{__file__}::TestLab::test_a_command_that_fails_says_why"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        env={**known, **said, "PATH": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout.splitlines()[-1], done.stdout
    assert ("not installed: ip, nft" in done.stdout) is ("SKYCORE_NETNS" not in said)


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(netns.os, "geteuid", lambda: 1_000)
    assert "root" in netns.missing.__wrapped__()
    monkeypatch.setattr(netns.os, "geteuid", lambda: 0)
    monkeypatch.setattr(netns.shutil, "which", lambda tool: None)
    assert "nftables" in netns.missing.__wrapped__()
