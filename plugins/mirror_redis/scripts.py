"""Scripts that run inside Redis: each is a transaction, and one round trip.

Why EVALSHA with the text at hand: a server that was restarted, or whose scripts were flushed, does
not know a script; it is loaded again and the call repeated, and nobody notices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from mirror_redis.dialing import Command
from mirror_redis.failures import AnotherStore, failure_of
from mirror_redis.link import Link

__all__ = ["STORE", "Scripts"]

STORE: Mapping[str, Sequence[str]] = {
    "open": ("open",),
    "place": ("common", "place"),
    "get": ("common", "get"),
    "changes": ("common", "changes"),
    "listing": ("common", "listing"),
    "ranks": ("common", "ranks"),
    "past": ("common", "past"),
    "standing": ("common", "standing"),
    "blocks": ("common", "blocks"),
    "held": ("common", "held"),
    "usage": ("common", "usage"),
    "unblock": ("common", "unblock"),
    "put": ("common", "changing", "put"),
    "renew": ("common", "changing", "renew"),
    "drop": ("common", "changing", "drop"),
    "sweep": ("common", "changing", "sweep"),
}
"""What a store calls: a script by name, and the files of `lua/` that it is put together from."""


class _Script(NamedTuple):
    text: bytes
    sha: bytes


def _load(parts: Sequence[str]) -> _Script:
    folder = resources.files("mirror_redis") / "lua"
    text = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts).encode()
    return _Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


class Scripts:
    """Calls scripts by name over one link.

    `parts` says which there are, and `space` what stands between the link's prefix and the name of
    every key of theirs: a script gets both as KEYS[1].
    """

    def __init__(
        self,
        link: Link,
        parts: Mapping[str, Sequence[str]] = STORE,
        *,
        space: str = "dht:",
    ) -> None:
        self._link = link
        self._replicas_min = link.settings.replicas_min
        wait_ms = max(1, int(link.settings.replicas_wait_s * 1_000))  # 0 would be for ever
        self._wait: Command = (b"WAIT", b"%d" % self._replicas_min, b"%d" % wait_ms)
        self._scripts = {name: _load(files) for name, files in parts.items()}
        self._keys = f"{link.prefix}{space}".encode()

    async def run(self, name: str, *arguments: bytes, is_write: bool = False) -> Any:
        """Run one script. Raises `StoreError`, `AnotherStore`."""
        return (await self.run_all(name, [arguments], is_write=is_write))[0]

    async def run_all(
        self, name: str, calls: Sequence[Sequence[bytes]], *, is_write: bool = False
    ) -> list[Any]:
        """Run a script several times, as one transaction, in one round trip.

        Raises `StoreError`, `AnotherStore`. Where some calls of a write were done and others not
        (Redis became full in between), the latter are answered with their `StoreError`.
        """
        script = self._scripts[name]
        head = (b"EVALSHA", script.sha, b"1", self._keys)
        commands: list[Command] = [(*head, *arguments) for arguments in calls]
        for _ in range(3):
            replies = await self._send(commands, is_write=is_write)
            if not any(isinstance(reply, NoScriptError) for reply in replies):
                break
            self._link.counters["scripts_loaded"] += 1
            await self._link.call([(b"SCRIPT", b"LOAD", script.text)])
        failed = [reply for reply in replies if isinstance(reply, Exception)]
        is_partly_done = is_write and len(replies) > len(failed)
        for bad in failed:
            if not (is_partly_done and failure_of(bad).state == "full"):  # nothing of it was done
                raise self._named(bad)
        if is_write and not failed:
            self._link.writes_work()
        return [self._named(r) if isinstance(r, Exception) else r for r in replies]

    async def _send(self, commands: Sequence[Command], *, is_write: bool) -> list[Any]:
        wait = [self._wait] if is_write and self._replicas_min else []
        if len(commands) == 1:
            replies = await self._link.call([*commands, *wait])
            done: Any = replies[:1]
        else:
            replies = await self._link.call([(b"MULTI",), *commands, (b"EXEC",), *wait])
            done = replies[len(commands) + 1]
            if isinstance(done, Exception):  # one was refused when it was queued
                return [next((r for r in replies if isinstance(r, Exception)), done)]
        is_done = not any(isinstance(reply, Exception) for reply in replies)
        if wait and is_done and replies[-1] < self._replicas_min:
            self._link.counters["not_replicated"] += 1  # WAIT does not fail, it says how many (M7)
        return list(done)

    def _named(self, reply: Exception) -> Exception:
        if isinstance(reply, ResponseError) and "ANOTHERSTORE" in str(reply):
            return AnotherStore()
        return failure_of(reply).error(self._link.where, str(reply))
