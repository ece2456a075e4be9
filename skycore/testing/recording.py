"""A recording of a network that never was, in the shape of a real one.

For tests and demos where no real recording is at hand: the same seed gives the same bytes. The
shape is production's of October 2025: four snapshots within three hours, a few rows changing from
one to the next, transports recorded in the last one only.
"""

from __future__ import annotations

import json
import random
import uuid
from typing import Any

__all__ = ["generate_recording"]

SNAPSHOTS = 4


def _key(dice: random.Random) -> str:
    return f"{dice.choice(('02', '03'))}{dice.randbytes(32).hex()}"


def _services(dice: random.Random, visors: list[str]) -> list[dict[str, Any]]:
    rows = []
    for visor in visors:
        geo = {"country": dice.choice(("IT", "NL", "SG")), "region": str(dice.randrange(99))}
        version = f"v1.3.{dice.randrange(20, 32)}"
        for kind, port in dice.sample((("skysocks", 3), ("vpn", 44)), dice.choice((1, 2))):
            address = f"{visor}:{port}"
            rows.append({"address": address, "type": kind, "version": version, "geo": geo})
    return rows


def _transports(dice: random.Random, visors: list[str], count: int) -> list[dict[str, Any]]:
    return [
        {
            "t_id": str(uuid.UUID(int=dice.getrandbits(128))),
            "edges": dice.sample(visors, 2),
            "type": dice.choice(("stcpr", "sudph", "dmsg")),
            "label": "user",
        }
        for _ in range(count)
    ]


def generate_recording(
    seed: int = 0, *, visors: int = 60, clients: int = 130, transports: int = 20
) -> bytes:
    """Return a recording as JSON bytes."""
    dice = random.Random(seed)
    keys = [_key(dice) for _ in range(max(visors, clients))]
    snapshots = []
    for number in range(SNAPSHOTS):
        gone = dice.randrange(len(keys))  # real churn: one leaves, one comes
        keys[gone] = _key(dice)
        last = number == SNAPSHOTS - 1
        snapshots.append(
            {
                "taken": f"2025-10-28T0{4 + number}:00:00+00:00",
                "services": _services(random.Random(seed), keys[:visors]),
                "dmsg_clients": keys[:clients],
                "transports": _transports(dice, keys, transports) if last else [],
            }
        )
    return json.dumps({"source": "generated", "snapshots": snapshots}).encode()
