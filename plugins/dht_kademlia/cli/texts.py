"""How this plugin's commands write things for people: times, sizes, rights, values.

Pure: JSON as the methods return it in, text out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from skycore.errors import ConfigError

__all__ = [
    "authority",
    "brief_value",
    "content",
    "moment_ns",
    "pretty",
    "signed_at",
    "size",
    "span",
    "when",
]

TIME_SEQ_MIN = 10**18
"""Seqs from here on (September 2001) are taken for Unix nanoseconds."""
BRIEF_MAX = 60


def when(seconds: float) -> str:
    """Return a Unix time, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def signed_at(seq: str) -> str:
    """Return when a record was signed, as its seq says."""
    number = int(seq)
    return when(number / 1e9) if number >= TIME_SEQ_MIN else f"seq {seq}"


def moment_ns(text: str) -> int:
    """Return Unix nanoseconds for a time (ISO 8601; UTC unless it says otherwise) or a seq.

    Raises `ConfigError`.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError as bad:
        raise ConfigError(
            f"{text!r} is neither a time nor a seq",
            hint="a time is 2025-10-28T16:00:00 (UTC), or with an offset: 2025-10-28T16:00+02:00",
        ) from bad
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp()) * 10**9 + aware.microsecond * 1_000


def span(seconds: float) -> str:
    """Return a duration, in the one or two units that say most."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    parts = [f"{n} {unit}" for n, unit in ((days, "d"), (h, "h"), (m, "min"), (s, "s")) if n]
    return " ".join(parts[:2])


def size(count: int) -> str:
    """Return a number of bytes: 730 bytes, 1.2 MB."""
    if count < 1_000:
        return f"{count} bytes"
    number = count / 1_000
    for unit in ("kB", "MB"):
        if number < 999.95:
            return f"{number:.1f} {unit}"
        number /= 1_000
    return f"{number:.1f} GB"


def authority(item: Mapping[str, Any]) -> str:
    """Return by what right an item was signed: the chain from its subject to its signer."""
    until = f"until {when(item['issued_until'])}"
    match item["item_class"]:
        case "owner":
            return "its own key"
        case "delegate":
            return f"delegated by {item['issuer']} (the subject) {until}"
        case _:
            return f"mirror, delegated by the network's authority {item['issuer']} {until}"


def content(item: Mapping[str, Any]) -> str:
    """Return how much a value is: 5,000 entries, 1.2 MB."""
    if item["kind"] == "tombstone":
        return "deleted"
    entries = item["entries"]
    counted = "" if entries is None else f"{entries:,} entr{'y' if entries == 1 else 'ies'}, "
    return counted + size(item["size"])


def brief_value(item: Mapping[str, Any]) -> str:
    """Return a value in a line of a table."""
    if item["kind"] == "tombstone" or item["in_blocks"]:
        return content(item)
    if item["value"] is None:
        text = "hex " + str(item["value_hex"])
    else:
        text = json.dumps(item["value"], ensure_ascii=False)
    return text if len(text) <= BRIEF_MAX else text[: BRIEF_MAX - 1] + "…"


def pretty(value: object) -> str:
    """Return a value over as many lines as it needs; text as it stands."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, indent=2)
