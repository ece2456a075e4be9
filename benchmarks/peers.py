"""Peers from PyPI doing the same work in the same run. Each is optional: absent, a line says so.

Install them with `pip install 'skycore[peers]'`; `make bench-peers` does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.harness import Figure, median_rate

__all__ = ["dht_kademlia_peer", "noise_handshakes"]

_COUNT = 200


def _skipped(what: str, why: Exception) -> Figure:
    return Figure(f"peer: {what}", 0.0, "skipped", beside=f"{type(why).__name__}: {why}")


def noise_handshakes() -> Iterator[Figure]:
    """noiseframework, XX and XK, both sides."""
    for pattern in ("XX", "XK"):
        what = f"noiseframework, Noise {pattern} handshake, both sides"
        try:
            rate, spread = median_rate(
                lambda p=pattern: _noiseframework(p), rounds=3, clock=time.process_time
            )
        except Exception as why:  # noqa: BLE001 - whatever a peer does, the run goes on
            yield _skipped(what, why)
        else:
            yield Figure(f"peer: {what}", rate, "1/s", spread=spread)


def _noiseframework(pattern: str) -> int:
    from noiseframework import NoiseHandshake

    name = f"Noise_{pattern}_25519_ChaChaPoly_SHA256"
    statics = []
    for _ in range(2):
        keys = NoiseHandshake(name)
        keys.generate_static_keypair()
        statics.append((keys.static_private, keys.static_public))
    for _ in range(_COUNT):
        one, two = NoiseHandshake(name), NoiseHandshake(name)
        one.set_as_initiator()
        two.set_as_responder()
        one.set_static_keypair(*statics[0])
        two.set_static_keypair(*statics[1])
        if pattern == "XK":
            one.set_remote_static_public_key(statics[1][1])
        one.initialize()
        two.initialize()
        two.read_message(one.write_message(b""))
        one.read_message(two.write_message(b""))
        two.read_message(one.write_message(b""))
        one.to_transport()
        two.to_transport()
    return _COUNT
