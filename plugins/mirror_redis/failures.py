"""What Redis can refuse or fail at, each with a name, a kind of error, and what to do about it.

Why one table: a person reads the state in `visor info`, a part of the node catches the kind, and
both must be the same fact. Sources: redis.io/docs (error prefixes of replies), redis-py.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from redis import exceptions

from skycore.errors import (
    StoreAuthError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreSlowError,
    StoreUnreachableError,
    StoreUnsafeError,
    StoreUnsupportedError,
)

__all__ = ["UP", "AnotherStore", "Failure", "failure_of", "named"]

UP = "up"
_TEXT_MAX = 200


class Failure(NamedTuple):
    """One way to fail."""

    state: str
    kind: type[StoreError]
    says: str
    hint: str
    is_everything: bool = False
    """Nothing works until it is over: calls fail at once meanwhile."""
    is_final: bool = False
    """Waiting does not help: at start the node is refused."""

    def error(self, where: str, detail: str = "") -> StoreError:
        """Return it as an error. `detail` is the server's own text, or ours; never a secret."""
        text = f"Redis at {where}: {self.says}" + (f" ({detail[:_TEXT_MAX]})" if detail else "")
        return self.kind(text, hint=self.hint)


class AnotherStore(Exception):  # noqa: N818
    """What is there is not the store that was opened: flushed, restored, or another primary."""


_AGAIN = "it is tried again by itself"
_FAILURES = (
    Failure("down", StoreUnreachableError, "it cannot be reached",
            "start it, or set url to where it is; it is tried again by itself", True),
    Failure("slow", StoreSlowError, "it does not answer in time", _AGAIN, True),
    Failure("wrong_password", StoreAuthError, "it refuses the user or password",
            "set the password: url, password_file or password_env", True, True),
    Failure("no_permission", StoreAuthError, "its ACL forbids this user a command",
            "allow +@all on the keys of the prefix, or EVAL, EVALSHA, SCRIPT, INFO, PUBLISH,"
            " SUBSCRIBE and what the scripts call", True, True),
    Failure("unsafe", StoreUnsafeError, "it throws keys away when it is full",
            "set its maxmemory-policy to noeviction, or evicting_allowed = true", True, True),
    Failure("unsupported", StoreUnsupportedError, "this kind of Redis cannot be used",
            "use one Redis of version 6.2 or later, alone or with Sentinels", True, True),
    Failure("loading", StoreBusyError, "it is reading its data set", _AGAIN, True),
    Failure("primary_lost", StoreUnreachableError, "it is a replica whose primary is away",
            _AGAIN, True),
    Failure("read_only", StoreReadOnlyError, "it is a replica, which cannot be written",
            "give the primary's address, or a Sentinel URL", True),
    Failure("full", StoreFullError, "it has no memory left",
            "raise its maxmemory, or remove something: it goes on by itself"),
    Failure("cannot_save", StoreReadOnlyError, "it cannot save to its disk and refuses writes",
            "free its disk: it goes on by itself"),
    Failure("no_replicas", StoreReadOnlyError, "it has too few replicas and refuses writes",
            "bring its replicas back: it goes on by itself"),
    Failure("clock_ahead", StoreError, "this machine's clock is ahead of Redis': nothing is swept",
            "set both clocks by NTP"),
    Failure("busy", StoreBusyError, "a script of somebody keeps it busy", _AGAIN),
    Failure("refused", StoreError, "it refused a command", "see the text; is the prefix ours?"),
)  # fmt: skip
named = {failure.state: failure for failure in _FAILURES}

_PREFIXES = {
    "OOM": "full", "MISCONF": "cannot_save", "NOREPLICAS": "no_replicas", "LOADING": "loading",
    "MASTERDOWN": "primary_lost", "READONLY": "read_only", "BUSY": "busy",
    "NOAUTH": "wrong_password", "WRONGPASS": "wrong_password", "NOPERM": "no_permission",
    "MOVED": "unsupported", "CROSSSLOT": "unsupported", "CLUSTERDOWN": "unsupported",
}  # fmt: skip
_PREFIX = re.compile(r"(?<![A-Z])(" + "|".join(_PREFIXES) + r")\b")
_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.OutOfMemoryError, "full"),
    (exceptions.ReadOnlyError, "read_only"),
    (exceptions.BusyLoadingError, "loading"),
    (exceptions.MasterDownError, "primary_lost"),
    (exceptions.NoPermissionError, "no_permission"),
    (exceptions.AuthenticationError, "wrong_password"),
    (exceptions.TimeoutError, "slow"),
    (exceptions.ConnectionError, "down"),
    (TimeoutError, "slow"),
    (OSError, "down"),
)


def failure_of(bad: BaseException) -> Failure:
    """Return what an error of redis-py, or of the network, means."""
    found = _PREFIX.search(str(bad)) if isinstance(bad, exceptions.ResponseError) else None
    if found is not None:
        return named[_PREFIXES[found[1]]]
    for kind, state in _KINDS:
        if isinstance(bad, kind):
            return named[state]
    if "without any password configured" in str(bad) or "invalid username-password" in str(bad):
        return named["wrong_password"]
    return named["refused"]
