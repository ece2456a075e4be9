"""Callers: who sent a signed HTTP request, proved by the request alone.

Why before anything else: a discovery server keeps nothing for a stranger. Proving reads four
headers and checks one signature in constant memory; only then is a registry asked, which uses the
nonce up in the same round trip as the write. Headers and messages are those of Skywire's httpauth,
which its clients depend on; what is signed is ours (docs/protocols/discovery.md, L21).
"""

from __future__ import annotations

import binascii
import re
from typing import Final, NamedTuple

from pydantic import Field, field_validator

from skycore.contracts.http import Scope
from skycore.contracts.registry import RegistryWritten
from skycore.contracts.runtime import Identity
from skycore.discovery.quotas import QuotaSettings
from skycore.errors import ConfigError, InvalidKeyError, LocalProtocolError, RequestRefusedError
from skycore.model.keys import PubKey, parse_public
from skycore.model.limits import REQUEST_HOST_MAX
from skycore.model.requests import (
    HEADER_KEY,
    HEADER_NONCE,
    HEADER_SIGNATURE,
    NONCE_MAX,
    signed,
    signed_old,
)

__all__ = ["NONCE_MISMATCH", "Caller", "CallerSettings", "Callers", "check", "host_of"]

NONCE_MISMATCH: Final = "SW-Nonce does not match"
"""Upstream's clients fetch the nonce again when they read exactly this."""
PROVEN_MAX: Final = 1 << 16
"""Keys that are remembered as good ones; about 17 MB where all of them come."""
_KEY, _NONCE, _SIGNATURE = HEADER_KEY.encode(), HEADER_NONCE.encode(), HEADER_SIGNATURE.encode()
_MONITOR, _MONITOR_SIGNATURE, _HOST = b"nm-pk", b"nm-sign", b"host"
_READ: Final = frozenset((_KEY, _NONCE, _SIGNATURE, _MONITOR, _MONITOR_SIGNATURE, _HOST))
_NAMES: Final = {
    _KEY: "SW-Public",
    _NONCE: "SW-Nonce",
    _SIGNATURE: "SW-Sig",
    _MONITOR: "NM-PK",
    _MONITOR_SIGNATURE: "NM-Sign",
    _HOST: "Host",
}
_DECIMAL = re.compile(rb"0|[1-9][0-9]{0,15}")


class CallerSettings(QuotaSettings):
    """What the settings of every discovery server have in common."""

    hosts: tuple[str, ...] = Field((), max_length=64)
    """Names by which clients reach this server, such as `tpd.example.org` or `10.0.0.1:9080`; a
    signed request for another one is refused. Empty: any name, and then another server of this
    network can hand on here, once, what a visor signed for it."""
    unbound_signatures: bool = False
    """Also believe signatures over body and nonce alone, as older clients make them, and static
    signatures of monitors: such a request can be repeated against other routes and servers."""
    monitors: tuple[str, ...] = Field((), max_length=64)
    """Public keys that may deregister what is not theirs."""

    @field_validator("hosts")
    @classmethod
    def _lower(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(host.lower() for host in hosts)


class Caller(NamedTuple):
    """Who signed a request."""

    public: PubKey
    nonce: int | None
    """For `RegistryWrite.nonce`; None: signed in the monitors' old way, which has none."""
    host: str = ""
    """Where the request came from, for `SourceQuotas.admit`; empty for monitors, who are known."""


class Callers:
    """Proves who calls this server."""

    def __init__(self, identity: Identity, settings: CallerSettings) -> None:
        """Take the server's network. Raises `ConfigError` for a monitor that is no key."""
        self._network = identity.network
        self._suite = identity.network.suite
        self._hosts = frozenset(settings.hosts)
        self._unbound = settings.unbound_signatures
        self._proven: dict[bytes, PubKey] = {}
        """Keys that have signed something, by their hex digits, the first one first."""
        try:
            self._monitors = frozenset(parse_public(self._suite, m) for m in settings.monitors)
        except InvalidKeyError as bad:
            raise ConfigError(f"monitors: {bad}", hint=bad.hint) from bad

    def prove(self, scope: Scope, body: bytes) -> Caller:
        """Return who signed this request. Raises `RequestRefusedError` (401).

        Nothing is kept, and no registry asked: whether the nonce is the next one, the write tells.
        """
        found = _headers(scope)
        public = self._key(found, _KEY)
        signature = self._signature(found, _SIGNATURE)
        nonce = _nonce(found)
        host = found.get(_HOST, b"").decode("latin-1")
        if self._hosts and host.lower() not in self._hosts:
            raise RequestRefusedError(
                f"this server is not {host[:80]!r}", code=401, hint="see the setting `hosts`"
            )
        try:
            said = signed(self._network.id, scope["method"], host, _target(scope), nonce, body)
        except LocalProtocolError as bad:
            raise RequestRefusedError(str(bad), code=401) from None
        is_proven = self._suite.verify(public, said, signature) or (
            self._unbound and self._suite.verify(public, signed_old(body, nonce), signature)
        )
        if is_proven:
            self._remember(found[_KEY], public)
            return Caller(public, nonce, host_of(scope))
        raise RequestRefusedError(
            "SW-Sig does not fit this request",
            code=401,
            hint="method, Host, path with query, nonce, body and network are signed",
        )

    def _remember(self, digits: bytes, public: PubKey) -> None:
        """Spare the next request the check that costs as much as its signature's."""
        if digits not in self._proven:
            if len(self._proven) >= PROVEN_MAX:
                del self._proven[next(iter(self._proven))]
            self._proven[digits] = public

    def signs(self, scope: Scope) -> bool:
        """Tell whether a request claims to be signed: for routes where it need not be."""
        return any(name == _KEY for name, _ in scope["headers"])

    def require_monitor(self, caller: Caller) -> None:
        """Refuse (403) whoever is none of the setting's monitors."""
        if caller.public not in self._monitors:
            raise RequestRefusedError("this key may not deregister what is not its own", code=403)

    def prove_monitor(self, scope: Scope, body: bytes) -> Caller:
        """Return which monitor signed a request. Raises `RequestRefusedError`.

        Upstream's static signature (NM-PK, NM-Sign) is good for ever and for any request, so it
        is believed only with `unbound_signatures`: 403 else, 400 where it cannot be read.
        """
        found = _headers(scope)
        if _KEY in found or _MONITOR not in found:
            caller = self.prove(scope, body)
            self.require_monitor(caller)
            return caller._replace(host="")
        public = self._key(found, _MONITOR, 400)
        signature = self._signature(found, _MONITOR_SIGNATURE, 400)
        self.require_monitor(Caller(public, None))
        if not self._unbound or not self._suite.verify(public, found[_MONITOR], signature):
            raise RequestRefusedError("NM-Sign is not believed here", code=403)
        return Caller(public, None)

    def key(self, text: str, *, code: int = 400) -> PubKey:
        """Read a key of this network from a path or a body. Raises `RequestRefusedError`."""
        try:
            return parse_public(self._suite, text)
        except InvalidKeyError as bad:
            raise RequestRefusedError(str(bad), code=code, hint=bad.hint) from None

    def _key(self, found: dict[bytes, bytes], name: bytes, code: int = 401) -> PubKey:
        text = _text(found, name, code)
        if text in self._proven:
            return self._proven[text]
        try:
            return parse_public(self._suite, text.decode("latin-1"))
        except InvalidKeyError as bad:
            raise RequestRefusedError(f"error parsing {_NAMES[name]}: {bad}", code=code) from None

    def _signature(self, found: dict[bytes, bytes], name: bytes, code: int = 401) -> bytes:
        text = _text(found, name, code)
        size = self._suite.signature_bytes
        try:
            if len(text) == size * 2:
                return binascii.unhexlify(text)
        except ValueError:
            pass
        raise RequestRefusedError(
            f"error parsing {_NAMES[name]}: a signature is {size * 2} hex digits", code=code
        )


def check(written: RegistryWritten) -> RegistryWritten:
    """Return what became of a write. Raises `RequestRefusedError`: 401 for a nonce, 422 a stamp."""
    if written.error == "nonce":
        raise RequestRefusedError(NONCE_MISMATCH, code=401)
    if written.error:
        raise RequestRefusedError(f"something newer is held ({written.stamp})", code=422)
    return written


def host_of(scope: Scope) -> str:
    """Return the address that a request came from; empty: from this node itself."""
    client = scope.get("client")
    return client[0] if client else ""


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """Return the headers that matter, in constant memory. One that comes twice is malformed."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name not in _READ:
            continue
        if name in found or len(value) > REQUEST_HOST_MAX:
            raise RequestRefusedError(f"error parsing {_NAMES[name]}: twice or too long", code=401)
        found[name] = value
    return found


def _text(found: dict[bytes, bytes], name: bytes, code: int) -> bytes:
    text = found.get(name, b"")
    if not text:
        raise RequestRefusedError(f"{_NAMES[name]} missing", code=code)
    return text


def _nonce(found: dict[bytes, bytes]) -> int:
    text = _text(found, _NONCE, 401)
    if not _DECIMAL.fullmatch(text):
        raise RequestRefusedError("error parsing SW-Nonce: invalid syntax", code=401)
    nonce = int(text)
    if nonce > NONCE_MAX:
        raise RequestRefusedError("error parsing SW-Nonce: value out of range", code=401)
    return nonce


def _target(scope: Scope) -> bytes:
    """Return path and query as they were sent; a "?" without a query is not signed."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return raw + b"?" + query if query else raw
