"""The resolver as a source of address records. What it says stands under no signature."""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import anyio.lowlevel
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
ALL_BYTES_MAX = 16 * 1024 * 1024
AT_A_TIME = 256
"""Binds that are read before others have their turn."""
_entry = msgspec.json.Decoder(AddressEntry)


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
        """Ask for all binds; upstream's resolver has no such route.

        What is none is left out, and the answer is marked partial.
        """
        if self._client is None or salt != SALT:
            raise DiscoveryError("no address resolver is set")
        answer = await self._client.get("/entries", body_bytes_max=ALL_BYTES_MAX)
        if answer.status == 404:
            raise DiscoveryError("this address resolver does not list its binds")
        rows: list[msgspec.Raw] = accepted(answer).json(list[msgspec.Raw])
        now, strange = self._clock.wall_ns(), 0
        found = []
        for place, row in enumerate(rows):
            if not place % AT_A_TIME:
                await anyio.lowlevel.checkpoint()
            try:
                entry = _entry.decode(row)
                found.append(self._record(bytes.fromhex(entry.pk), entry))
            except (msgspec.DecodeError, ValueError, RecursionError):
                strange += 1
        note = f"{strange} of its rows are no binds" if strange else ""
        return Records(tuple(found), self.name, now, not strange, note)

    async def _resolve(self, client: SignedClient, kind: str, subject: bytes) -> AddressBind | None:
        answer = await client.request(
            "GET", f"/resolve/{kind}/{subject.hex()}", body_bytes_max=BIND_BYTES_MAX
        )
        if answer.status == 404:
            return None
        told: _Bind = accepted(answer).json(_Bind)
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
