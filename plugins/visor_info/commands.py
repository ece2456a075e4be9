"""`skynode visor info`: what the node is, and how it is."""

from __future__ import annotations

import json
from typing import Any

from skycore.console import Console

__all__ = ["info"]

MARKS = {"ok": "ok", "degraded": "!!", "down": "NO"}


def info(console: Console) -> None:
    """Show what the running node is, its links, and how each of its parts is."""
    console.show(console.call("Summary"), lambda r: _text(console, r))


def _text(console: Console, r: dict[str, Any]) -> object:
    overview, health = r["overview"], r["health"]
    rows: list[tuple[str, object]] = [
        ("public key", overview["public_key"]),
        ("network", overview["network"]),
        ("profile", overview["profile"]),
        ("version", overview["version"]),
        ("up for", _duration(overview["uptime_s"])),
        ("listening", ", ".join(overview["listening"]) or "no"),
        ("transports", overview["transport_count"]),
        ("health", health["health"]),
    ]
    for part in r["parts"]:
        rows.append((part["name"], f"[{MARKS[part['health']]}] {part['summary']}"))
        rows += [(f"  {key}", _plain(value)) for key, value in part["fields"].items()]
    return console.pairs(rows)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) or "none"
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def _duration(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{days} d {h} h {m} min" if days else f"{h} h {m} min {s} s" if h else f"{m} min {s} s"
