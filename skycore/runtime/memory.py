"""Files of a node that has no folder: kept for as long as somebody keeps the object."""

from __future__ import annotations

from pathlib import Path

__all__ = ["MemoryFiles"]


class MemoryFiles:
    """A data folder in a dict. A simulated restart hands the same one to the next run."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def path(self, name: str) -> Path | None:
        """Return None: there is no folder."""
        return None

    def read(self, name: str) -> bytes | None:
        """Return the content or None."""
        return self.held.get(name)

    def write(self, name: str, data: bytes) -> None:
        """Replace the content."""
        self.held[name] = data
