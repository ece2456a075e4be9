"""The resolver as a source of address records. What it says stands under no signature."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from skycore.contracts.discovery import Record, Records
from skycore.contracts.runtime import Clock
from skycore.contracts.transport import TransportType
from skycore.discovery.binds import KINDS
from skycore.discovery.signed import SignedClient, accepted
from skycore.errors import DiscoveryError
from skycore.model.entries import AddressBind, AddressEntry

__all__ = ["HttpAddresses"]

SALT = b"addr"
LIFETIME_S = 300
"""How long a resolver keeps a bind that is not repeated."""
BIND_BYTES_MAX = 65_536


class HttpAddresses:
    """`contracts.discovery.EntrySource`; knows nothing where no resolver is set."""

    name = "http"
    is_local = False

    def __init__(
        self, client: SignedClient | None, types: Iterable[TransportType], clock: Clock
    ) -> None:
        self.salts: frozenset[bytes] | None = frozenset((SALT,) if client else ())
        self._client = client
        self._types = types
        self._clock = clock

    async def find(self, salt: bytes, subject: bytes) -> Record | None:
        """Ask where a key takes connections, of the types that this node can dial."""
        if self._client is None or salt != SALT:
            return None
        wanted = {one.name for one in self._types}
        binds: dict[str, AddressBind] = {}
        for kind in KINDS:
            if kind in wanted:
                bind = await self._resolve(self._client, kind, subject)
                if bind is not None:
                    binds[kind] = bind
        if not binds:
            return None
        return self._record(
            subject,
            AddressEntry(pk=subject.hex(), stcpr=binds.get("stcpr"), sudph=binds.get("sudph")),
        )

    async def records(self, salt: bytes) -> Records:
        """Ask for all binds; upstream's resolver has no such route."""
        if self._client is None or salt != SALT:
            raise DiscoveryError("no address resolver is set")
        answer = await self._client.get("/entries")
        if answer.status == 404:
            raise DiscoveryError("this address resolver does not list its binds")
        entries: list[AddressEntry] = accepted(answer).json(list[AddressEntry])
        now = self._clock.wall_ns()
        found = []
        for entry in entries:
            try:
                found.append(self._record(bytes.fromhex(entry.pk), entry))
            except ValueError as bad:
                raise DiscoveryError(f"{entry.pk[:80]!r} in its answer is no key") from bad
        return Records(tuple(found), self.name, now, complete=True)

    async def _resolve(self, client: SignedClient, kind: str, subject: bytes) -> AddressBind | None:
        answer = await client.request("GET", f"/resolve/{kind}/{subject.hex()}")
        if answer.status == 404:
            return None
        if len(accepted(answer).body) > BIND_BYTES_MAX:
            raise DiscoveryError("the address resolver's answer is too long")
        told: _Bind = answer.json(_Bind)
        return told.bind()

    def _record(self, subject: bytes, entry: AddressEntry) -> Record:
        return Record(
            SALT,
            subject,
            entry,
            self._clock.wall_ns(),
            self._clock.wall_s() + LIFETIME_S,
            self.name,
        )


class _Bind(msgspec.Struct, frozen=True):
    """A bind as resolvers tell it; what else they tell is left alone."""

    port: str = ""
    addresses: tuple[str, ...] | None = None
    remote_addr: str = ""
    remote_addr_v6: str = ""
    is_local: bool = False

    def bind(self) -> AddressBind:
        """Return it as a record has it. Raises `DiscoveryError` for what fits in none."""
        told = {"addresses": self.addresses or (), "port": self.port, "is_local": self.is_local,
                "remote_addr": self.remote_addr, "remote_addr_v6": self.remote_addr_v6}  # fmt: skip
        try:
            return msgspec.convert(told, AddressBind)
        except msgspec.ValidationError as bad:
            raise DiscoveryError(f"the address resolver answers nonsense: {bad}") from bad
