"""`skynode keys`: make and show the node's key pair."""

from __future__ import annotations

import os
from typing import Any

from skycore.console import Console
from skycore.identity import network_constants, read_secret_file, write_secret_file
from skycore.runtime.entropy import RealEntropy
from skycore.settings import IdentitySettings, NetworkSettings, read_sections

__all__ = ["new", "show"]


def _sections(console: Console) -> Any:
    context = console.context
    return read_sections(
        {"network": NetworkSettings, "identity": IdentitySettings},
        profile=context.profile,
        file=context.config_file,
        environment=os.environ,
        assigned=context.assigned,
    )


def new(console: Console) -> None:
    """Make a key pair in the data folder. A key that exists is never overwritten."""
    sections = _sections(console)
    suite = network_constants(sections["network"]).suite
    path = console.context.data / sections["identity"].secret_key_file
    write_secret_file(path, RealEntropy().bytes(suite.seed_bytes))
    public = suite.public(read_secret_file(path, suite)).hex()
    console.show(
        {"public_key": public, "file": str(path)},
        lambda r: f"public key: {r['public_key']}\nsecret key: {r['file']} (keep it; mode 0600)",
    )


def show(console: Console) -> None:
    """Print the node's public key: what others dial, trust and whitelist."""
    sections = _sections(console)
    suite = network_constants(sections["network"]).suite
    path = console.context.data / sections["identity"].secret_key_file
    public = suite.public(read_secret_file(path, suite)).hex()
    console.show({"public_key": public}, lambda r: r["public_key"])
