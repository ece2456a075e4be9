"""`skynode visor info`: what the node is, and how it is.

Why what is nothing is left out for people: a part says thirty things of itself, and those that
matter must be seen. Programs get all of it, with --json.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from skycore.console import Console

__all__ = ["info"]

MARKS = {"ok": "ok", "degraded": "!!", "down": "NO"}
KEY = re.compile("[0-9a-f]{64,}")


def info(console: Console) -> None:
    """Show what the running node is, its links, and how each of its parts is.

    Fields that are zero, empty or "no" are left out; --json prints all.
    """
    console.show(console.call("Summary"), lambda r: console.pairs(rows(r)))


def rows(r: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return a summary as names and values, for people."""
    overview, health = r["overview"], r["health"]
    found: list[tuple[str, object]] = [
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
        found.append((part["name"], f"[{MARKS[part['health']]}] {part['summary']}"))
        fields = [(name, value) for name, value in part["fields"].items() if _says(value)]
        names = {name for name, _ in fields}
        found += [(f"  {_title(name, names)}", _plain(name, value)) for name, value in fields]
    return found


def _title(field: str, others: Collection[str]) -> str:
    """Return a field's name; `state_s` beside `state` says how long, and must not look like it."""
    name = _name(field)
    return f"{name} for" if field.endswith("_s") and field[:-2] in others else name


def _says(value: Any) -> bool:
    return bool(value)


def _name(field: str) -> str:
    return field.removesuffix("_s").replace("_", " ")


def _plain(name: str, value: Any, *, inside: bool = False) -> str:
    """Return a value as text; the field's name says its unit."""
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, list | tuple):
        return "\n".join(_plain(name, each, inside=inside) for each in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(name, value)
    text = str(value)
    return text[:16] + "…" if inside and KEY.fullmatch(text) else text


def _pairs(value: Mapping[str, Any]) -> str:
    told = [
        f"{_name(k)} {_plain(k, v, inside=True)}"
        for k, v in value.items()
        if _says(v) and k != "seconds_ago"
    ]
    ago = value.get("seconds_ago")
    when = [] if ago is None else [f"{_duration(ago)} ago"]
    return ", ".join(when + told)


def _number(name: str, value: float) -> str:
    if name.endswith("_s"):
        return _duration(value)
    if name == "bytes" or name.endswith("_bytes"):
        return _size(value)
    return f"{value:,}"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if abs(count) < 999.95:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1_000
    return f"{count:.1f} GB"


def _duration(seconds: float) -> str:
    if abs(seconds) < 60:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{days} d {h} h {m} min" if days else f"{h} h {m} min {s} s" if h else f"{m} min {s} s"
