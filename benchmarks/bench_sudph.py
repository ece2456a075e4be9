"""SUDPH beside TCP and plain aioquic: bytes and calls a second over lines of several kinds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

from benchmarks.harness import Figure
from skycore.testing.netns import Lab, Line, missing

PORT = 17_777
BULK_S, CALLS_S = 1.5, 1.0
PATIENCE_S = 60.0
LINES = [(delay_ms, loss) for delay_ms in (0, 40) for loss in (0, 1, 5)]
"""Milliseconds of a round trip, and percent lost in each direction."""
KINDS = {"sudph": "SUDPH", "tcp": "TCP", "quic": "aioquic"}
MIB = 1024 * 1024
Popen = Callable[..., "subprocess.Popen[str]"]


def figures(*, peers: bool = False) -> Iterator[Figure]:
    """Measure each kind over each line; as root in namespaces, else on loopback alone."""
    why = missing()
    if why:
        yield Figure("SUDPH over bad lines", 0.0, "skipped", beside=why)
        yield from _over("loopback", _here, _here, "127.0.0.1")
        return
    for delay_ms, loss in LINES:
        with Lab() as lab:
            line = Line(delay_ms=delay_ms / 2) if delay_ms else None  # a relay takes a core
            near, far = lab.host("near", line=line), lab.host("far")
            near.lose(loss)
            told = f"{delay_ms} ms, {loss} % lost"
            yield from _over(told, near.popen, far.popen, far.address)


def _here(*words: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(words, text=True, **options)  # type: ignore[call-overload,no-any-return]


def _over(told: str, near: Popen, far: Popen, host: str) -> Iterator[Figure]:
    found = {kind: _measure(kind, near, far, host) for kind in KINDS}
    for what, key, unit, scale in (
        ("bulk", "bytes_per_s", "MiB/s", MIB),
        ("64-byte calls, 16 in flight", "calls_per_s", "1/s", 1),
    ):
        values = {KINDS[kind]: rates[key] / scale for kind, rates in found.items()}
        others = ", ".join(f"{name} {values[name]:.3g}" for name in ("TCP", "aioquic"))
        yield Figure(f"SUDPH, {told}: {what}", values["SUDPH"], unit, beside=others)


def _measure(kind: str, near: Popen, far: Popen, host: str) -> dict[str, float]:
    """Run both ends; a kind that fails has done nothing."""
    with far(*_words("serve", kind, PORT), stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            if server.stdout.readline() != "ready\n":
                return {"bytes_per_s": 0.0, "calls_per_s": 0.0}
            words = _words("call", kind, host, PORT, BULK_S, CALLS_S)
            with near(*words, stdout=subprocess.PIPE) as caller:
                try:
                    said, _ = caller.communicate(timeout=PATIENCE_S)
                    rates: dict[str, float] = json.loads(said)
                    return rates
                except (subprocess.TimeoutExpired, ValueError):
                    return {"bytes_per_s": 0.0, "calls_per_s": 0.0}
                finally:
                    caller.kill()
        finally:
            server.kill()


def _words(*words: object) -> Sequence[str]:
    return [sys.executable, "-m", "benchmarks.sudph_peer", *map(str, words)]
