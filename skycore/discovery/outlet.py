"""What a discovery server publishes with: parts that any factory can ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skycore.contracts.dht import Mirror
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.runtime import Clock, Entropy, Files, Identity
from skycore.contracts.store import Items

__all__ = ["Outlet"]


@dataclass(frozen=True)
class Outlet:
    """Everything between a table and the mirrors."""

    publisher: Publisher
    items: Items
    mirrors: Iterable[Mirror]
    """`Live[Mirror]`."""
    namespaces: Namespaces
    identity: Identity
    clock: Clock
    entropy: Entropy
    files: Files
