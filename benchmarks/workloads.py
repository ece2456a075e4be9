"""The work that figures are taken on, made from a seed: the same items wherever they are made."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Iterator, Sequence
from typing import Final

from skycore.model.entries import TransportEntry
from skycore.model.items import MutableItem, make_item
from skycore.model.keys import SecretKey
from skycore.model.network import NetworkConstants

__all__ = [
    "FLEET_HUBS",
    "HEARTBEAT_RECORDS",
    "HUB_SIZES",
    "changed",
    "fleet",
    "hub_entries",
    "hubs",
    "secret_of",
    "signed_items",
]

FLEET_VISORS: Final = 1_224
FLEET_TRANSPORTS: Final = 4_615
FLEET_HUBS: Final = (916, 883, 552, 351, 332, 322)
"""Edges of the largest visors, as counted in production in April 2026."""
HUB_SIZES: Final = (1, 200, 552, 916, 5_000)
HEARTBEAT_RECORDS: Final = 50_000
"""W-heartbeat: records registered anew every 90 s, of which 1 % have changed."""
_FLEET_TYPES: Final = (("stcpr", 28), ("sudph", 71), ("dmsg", 1))

_ITEMS_A_SIGNER: Final = 10


def secret_of(network: NetworkConstants, name: str) -> SecretKey:
    """Return the key of somebody: the same for the same name."""
    suite = network.suite
    return suite.secret(hashlib.sha512(name.encode()).digest()[: suite.seed_bytes])


def signed_items(
    network: NetworkConstants,
    count: int,
    *,
    until: int,
    seed: int = 0,
    sizes: tuple[int, int] = (200, 1_000),
) -> list[MutableItem]:
    """Return signed items, ten of each signer, values of `sizes` random bytes."""
    dice = random.Random(seed)
    made = []
    for index in range(count):
        signer, salt = divmod(index, _ITEMS_A_SIGNER)
        made.append(
            make_item(
                network,
                secret_of(network, f"{seed}/{signer}"),
                salt=b"bench/%d" % salt,
                seq=1,
                until=until,
                v=dice.randbytes(dice.randint(*sizes)),
            )
        )
    return made


def changed(
    network: NetworkConstants, items: Sequence[MutableItem], share: float, *, seed: int = 0
) -> list[MutableItem]:
    """Return a newer version of a share of what `signed_items` made, evenly spread."""
    dice = random.Random(f"{seed}/changed")
    step = max(1, round(1 / share))
    return [
        make_item(
            network,
            secret_of(network, f"{seed}/{index // _ITEMS_A_SIGNER}"),
            salt=items[index].salt,
            seq=items[index].seq + 1,
            until=items[index].until,
            v=dice.randbytes(len(items[index].v)),
        )
        for index in range(0, len(items), step)
    ]


def fleet(seed: int = 0) -> list[tuple[int, int, str]]:
    """W-fleet: transports (one visor, another, type) of production's shape.

    Six hubs with FLEET_HUBS edges; the rest spread so that a median visor has 3 to 6.
    """
    dice = random.Random(f"{seed}/fleet")
    kinds = [kind for kind, _ in _FLEET_TYPES]
    weights = [weight for _, weight in _FLEET_TYPES]
    pairs: set[tuple[int, int]] = set()
    for hub, edges in enumerate(FLEET_HUBS):
        others = dice.sample(range(len(FLEET_HUBS), FLEET_VISORS), edges)
        pairs.update((hub, other) for other in others)
    while len(pairs) < FLEET_TRANSPORTS:
        one, other = sorted(dice.sample(range(len(FLEET_HUBS), FLEET_VISORS), 2))
        pairs.add((one, other))
    return [(a, b, dice.choices(kinds, weights)[0]) for a, b in sorted(pairs)]


def hubs() -> Iterator[list[tuple[int, int, str]]]:
    """W-hub: one visor with 1, 200, 552, 916 and 5,000 transports."""
    for size in HUB_SIZES:
        yield [(0, other, "stcpr") for other in range(1, size + 1)]


def hub_entries(key: bytes, size: int, *, changed: int | None = None) -> list[TransportEntry]:
    """Return the transports of a W-hub visor; the one at index `changed` has another label."""
    return [
        TransportEntry(
            t_id=uuid.uuid5(uuid.NAMESPACE_OID, f"hub/{index}"),
            edges=(key.hex(), _key_text(f"visor/{index}")),
            type="stcpr",
            label="changed" if index == changed else "automatic",
        )
        for index in range(size)
    ]


def _key_text(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
