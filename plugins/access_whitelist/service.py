"""The lists in force: those of the configuration, and what was added and removed since.

Why removals are kept, too: a key that was taken away at run time must not come back with a
restart only because the configuration still lists it. Whoever removes it is told so.

Keys are compared as the canonical bytes that the suite accepts (R4): text in any other spelling
is refused, never normalised. Nothing here is secret, so equality needs no constant time: the key
that is looked up was proven by the transport's handshake before.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import msgspec

from access_whitelist.settings import WhitelistSettings
from skycore.contracts.access import AccessPolicy, Decision, Level
from skycore.contracts.runtime import Files, Identity
from skycore.errors import ConfigError, InvalidKeyError, RpcError
from skycore.model.keys import KeySuite, PubKey, parse_public, short

__all__ = ["LEVELS", "Whitelist", "open_policy", "open_whitelist"]

log = logging.getLogger(__name__)
STATE = "whitelist.json"
LEVELS: Mapping[str, Level] = {level.name.lower(): level for level in Level}


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of changes at run time."""

    added: dict[str, str] = {}
    removed: list[str] = []


class Whitelist:
    """Which key has which level. Raises `ConfigError` for anything that is not exactly a key."""

    def __init__(self, settings: WhitelistSettings, suite: KeySuite, files: Files) -> None:
        self._suite = suite
        self._files = files
        self._keys_max = settings.keys_max
        self.configured = _configured(settings, suite)
        self._added: dict[PubKey, Level] = {}
        self._removed: set[PubKey] = set()
        self._callbacks: list[Callable[[], None]] = []
        self._load()
        self._levels = self._folded()

    def level(self, peer: PubKey) -> Level | None:
        """Return what a key may do."""
        return self._levels.get(peer)

    def all(self) -> Mapping[PubKey, Level]:
        """Return every listed key."""
        return self._levels

    def add(self, peer: PubKey, level: Level) -> None:
        """List a key, or change its level. Raises `RpcError` when the list is full."""
        if peer not in self._added and len(self._added) >= self._keys_max:
            raise RpcError(
                f"{self._keys_max} keys were added already",
                hint="remove some, or raise access_whitelist.keys_max",
            )
        self._change({**self._added, peer: level}, self._removed - {peer})
        log.info("whitelisted peer=%s level=%s", short(peer), level.name.lower())

    def remove(self, peer: PubKey) -> bool:
        """Take a key off; tell whether it was on. Its open streams end within a second."""
        if peer not in self._levels:
            return False
        removed = self._removed | ({peer} & self.configured.keys())
        self._change({k: v for k, v in self._added.items() if k != peer}, removed)
        log.info("removed from the whitelist peer=%s", short(peer))
        return True

    @contextmanager
    def on_change(self, callback: Callable[[], None]) -> Iterator[None]:
        """Be told of each change while the context lasts."""
        self._callbacks.append(callback)
        try:
            yield
        finally:
            self._callbacks.remove(callback)

    def _change(self, added: dict[PubKey, Level], removed: set[PubKey]) -> None:
        state = _State(
            {key.hex(): level.name.lower() for key, level in added.items()},
            sorted(key.hex() for key in removed),
        )
        self._files.write(STATE, msgspec.json.encode(state))
        self._added, self._removed = added, removed
        self._levels = self._folded()
        for callback in tuple(self._callbacks):
            callback()

    def _folded(self) -> dict[PubKey, Level]:
        kept = {k: v for k, v in self.configured.items() if k not in self._removed}
        return kept | self._added

    def _load(self) -> None:
        """Read what was kept. A file that cannot be read stops the start: it may hold removals."""
        data = self._files.read(STATE)
        if data is None:
            return
        try:
            state = msgspec.json.decode(data, type=_State)
            self._added = {
                parse_public(self._suite, key): LEVELS[level] for key, level in state.added.items()
            }
            self._removed = {parse_public(self._suite, key) for key in state.removed}
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, InvalidKeyError) as bad:
            raise ConfigError(
                f"{STATE} in the data folder is damaged: {bad}",
                hint="delete it, then add and remove keys anew with: skynode visor whitelist",
            ) from bad
        for key in self._removed & self.configured.keys():
            log.warning("still in the configuration, but removed at run time peer=%s", short(key))


def _configured(settings: WhitelistSettings, suite: KeySuite) -> dict[PubKey, Level]:
    found: dict[PubKey, Level] = {}
    for i, text in enumerate(settings.whitelist):
        key, colon, name = text.partition(":")
        field = f"access_whitelist.whitelist[{i}]"
        level = LEVELS.get(name) if colon else Level.READ
        if level is None:
            raise ConfigError(
                f"{field}: {name[:40]!r} is no level", hint=f"levels: {', '.join(LEVELS)}"
            )
        parsed = _key(suite, key, field)
        found[parsed] = max(level, found.get(parsed, level))
    for i, key in enumerate(settings.hypervisors):
        found[_key(suite, key, f"access_whitelist.hypervisors[{i}]")] = Level.ADMIN
    return found


def _key(suite: KeySuite, text: str, field: str) -> PubKey:
    try:
        return parse_public(suite, text)
    except InvalidKeyError as bad:
        raise ConfigError(f"{field}: {bad}", hint=bad.hint) from bad


class _Policy:
    def __init__(self, whitelist: Whitelist) -> None:
        self._whitelist = whitelist
        self.on_change = whitelist.on_change

    def decide(self, peer: PubKey, level: Level) -> Decision:
        held = self._whitelist.level(peer)
        return Decision.ALLOW if held is not None and held >= level else Decision.ABSTAIN


@asynccontextmanager
async def open_whitelist(
    settings: WhitelistSettings, identity: Identity, files: Files
) -> AsyncIterator[Whitelist]:
    """Read the lists. Raises `ConfigError` naming the field that is wrong."""
    yield Whitelist(settings, identity.network.suite, files)


@asynccontextmanager
async def open_policy(whitelist: Whitelist) -> AsyncIterator[AccessPolicy]:
    """Offer the lists as an opinion."""
    yield _Policy(whitelist)
