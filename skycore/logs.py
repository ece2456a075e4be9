"""Logs: one event a line, `key=value` at its end, for people or (JSON) for machines.

Why a filter for control characters: what peers send ends up in messages and in tracebacks, and a
newline in a log line is a forged log line. Only an event's first line starts at the margin.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal

__all__ = [
    "LimitedLog",
    "LogFormat",
    "node_name",
    "printable",
    "printable_json",
    "printable_text",
    "set_up_logs",
]

LogFormat = Literal["text", "json"]
node_name: ContextVar[str] = ContextVar("node_name", default="")
"""First eight hex digits of the node whose task this is: a world of a hundred logs legibly."""

_CONTROL = {i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160))}
_CONTROL |= {i: f"\\u{i:04x}" for i in (0x2028, 0x2029, *range(0x202A, 0x202F))}
_CONTROL |= {i: f"\\u{i:04x}" for i in range(0x2066, 0x206A)}
_JSON_CONTROL = {i: f"\\u{i:04x}" for i in _CONTROL if i >= 127}
"""JSON has its own escapes for the others, and newlines between its values."""


def printable(text: str) -> str:
    """Return text that cannot move the cursor or forge a line: control characters are shown."""
    return text.translate(_CONTROL)


def printable_text(text: str) -> str:
    """Return the same of a text of several lines: tabs and its newlines stay."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def printable_json(text: str) -> str:
    """Return the same of JSON: it still says what it said, in characters that move nothing."""
    return text.translate(_JSON_CONTROL)


def _channel(name: str) -> str:
    kernel = name == "skycore" or name.startswith("skycore.")
    return name if kernel else f"skycore.plugin.{name.split('.', 1)[0]}"


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = self.formatTime(record, "%H:%M:%S")
        line = printable(record.getMessage())
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n    {part.translate(_CONTROL)}" for part in trace)
        who = f"{node_name.get()} ".lstrip()
        return f"{when} {record.levelname:<7} {who}{_channel(record.name)}: {line}"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": _channel(record.name),
            "node": node_name.get(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def set_up_logs(style: LogFormat = "text", level: str = "INFO") -> None:
    """Send this process's logs to stderr. Called by the command line, never by a library user."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class LimitedLog:
    """Lines that a stranger can cause, at most `lines_max` a second; the count stays exact.

    Why: a peer that makes errors as fast as it can must not fill a disk (case F25).
    """

    def __init__(
        self, log: logging.Logger, now: Callable[[], float], *, lines_max: int = 20
    ) -> None:
        self._log = log
        self._now = now
        self._lines_max = lines_max
        self._second = -1
        self._lines = 0
        self._kept_back = 0
        self.count = 0
        """How often `warning` was called, written or not."""

    def warning(self, message: str, *args: object) -> None:
        """Log a warning, or only count it."""
        self.count += 1
        second = int(self._now())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= self._lines_max:
            self._kept_back += 1
            return
        self._lines += 1
        if self._kept_back:
            message, args = message + " kept_back=%d", (*args, self._kept_back)
            self._kept_back = 0
        self._log.warning(message, *args)
