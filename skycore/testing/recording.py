"""Recordings of a network that never was, in the shape of the real one.

For tests and benchmarks where no real recording is at hand. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from skycore.model.packets import transport_id

__all__ = ["generate_recording", "real_recording"]

COUNTRIES = ("IT", "DE", "FR", "NL", "US", "JP", "BR", "AU")
CHURN = 0.004
"""Share of rows that change between two snapshots, as in the real recordings."""


def real_recording(repository: Path) -> Path | None:
    """Return a recording of the real network, or None where there is none at hand.

    The file that SKYCORE_RECORDING names, else the one in `shared/data` beside the repository.
    """
    named = os.environ.get("SKYCORE_RECORDING")
    beside = repository.parent / "shared" / "data" / "skywire-2025-10-28.json.gz"
    path = Path(named) if named else beside
    return path if path.exists() else None


def generate_recording(
    seed: int,
    *,
    clients: int = 3_040,
    visors_with_services: int = 1_355,
    transports: int = 49,
    snapshots: int = 4,
    churn: float = CHURN,
) -> bytes:
    """Return a recording as JSON. Transports are in the last snapshot only, as in the real one.

    `churn` is the share of rows that another one replaces from each snapshot to the next.
    """
    dice = random.Random(seed)
    keys = [_key(dice) for _ in range(max(clients, visors_with_services))]
    services = [row for key in keys[:visors_with_services] for row in _services(dice, key)]
    known = keys[:clients]
    taken: list[dict[str, Any]] = []
    for number in range(snapshots):
        is_last = number == snapshots - 1
        taken.append(
            {
                "taken": f"2025-10-28T{4 + number:02d}:00:00+00:00",
                "services": list(services),
                "dmsg_clients": list(known),
                "transports": [_transport(dice, keys) for _ in range(transports * is_last)],
                "sudph": [] if is_last else known[: len(known) // 4],
                "stcpr": [],
            }
        )
        services = _churned(dice, churn, services, lambda: _services(dice, _key(dice))[0])
        known = _churned(dice, churn, known, lambda: _key(dice))
    servers = [{"static": _key(dice), "address": f"192.0.2.{n + 1}:{30_080 + n}"} for n in range(9)]
    body = {"source": f"generated, seed {seed}", "dmsg_servers": servers, "snapshots": taken}
    return json.dumps(body, separators=(",", ":")).encode()


def _key(dice: random.Random) -> str:
    """Return a key as the original network writes it: 33 bytes, the first 02 or 03."""
    return dice.choice(("02", "03")) + dice.randbytes(32).hex()


def _services(dice: random.Random, key: str) -> list[dict[str, Any]]:
    geo = {"country": dice.choice(COUNTRIES)}
    if dice.random() < 0.64:
        geo["region"] = str(dice.randint(1, 99))
    both = [
        {"address": f"{key}:{port}", "type": kind, "version": "v1.3.31", "geo": geo}
        for kind, port in (("skysocks", 3), ("vpn", 44))
    ]
    return both if dice.random() < 0.58 else both[:1]


def _transport(dice: random.Random, keys: list[str]) -> dict[str, Any]:
    kind = dice.choices(("sudph", "dmsg"), (84, 16))[0]
    edges = [dice.choice(keys)] * 2 if kind == "dmsg" else dice.sample(keys, 2)
    name = transport_id(bytes.fromhex(edges[0]), bytes.fromhex(edges[1]), kind)
    return {"t_id": str(name), "edges": edges, "type": kind, "label": "user"}


def _churned(dice: random.Random, churn: float, rows: list[Any], make: Any) -> list[Any]:
    kept = [row for row in rows if dice.random() >= churn]
    return kept + [make() for _ in range(len(rows) - len(kept))]
