"""`tp.all`: every transport there is, from where that is known to be everything.

Why it says so each time: one stored item was once enough for a tiny list to be served as "all"
(L18). The DHT's store answers where it is complete; else the service is asked; what is partial is
shown only to whoever asks for it by name, and says what it is.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

import anyio
import msgspec

from discovery_transport.client.core.entries import Seen
from discovery_transport.client.index import TransportIndex
from discovery_transport.client.source import HttpTransports
from skycore.contracts.access import Level
from skycore.contracts.dht import Dht
from skycore.contracts.rpc import RpcContext, RpcMethod
from skycore.contracts.runtime import Clock
from skycore.errors import DiscoveryError, RpcError, SkycoreError

__all__ = ["AllParams", "AllTransports", "ListingMethods", "Row"]

LAG_S_MAX: Final = 120.0
"""A full node that heard nobody for so long does not know any more that it has everything."""
LOAD_S: Final = 30.0
HEX: Final = re.compile("(?:[0-9a-f]{2}){32,}")
"""A key, of whatever suite."""
Found = Mapping[uuid.UUID, Seen]


class AllParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which transports, and from where."""

    source: Literal["auto", "dht", "http", "both"] = "auto"
    edge: str = ""
    """Only those of this key."""
    id: str = ""
    """Only this one."""
    partial: bool = False
    """Answer from the DHT's store even where it is not everything."""


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A transport as the HTTP services write it; what they do not have is left out where empty."""

    t_id: uuid.UUID
    edges: tuple[str, str]
    type: str
    label: str = ""
    one_sided: bool = False
    """One of its edges alone lists it: it does not count as a transport."""
    listed_by: str = ""
    """Of a one-sided one: which edge."""
    source: str = ""
    """Where both were asked and one of them alone knows it: which one."""


class AllTransports(msgspec.Struct, frozen=True):
    """Transports, each once, and how much this is worth."""

    source: str
    """"dht", "http" or "both"."""
    as_of_s: int
    """When this was the truth, Unix seconds."""
    age_s: float
    """How long ago that is."""
    complete: bool
    """Whether this is everything that was asked for."""
    note: str
    """Why not, and what else there is to say, for people."""
    total: int
    """How many both edges list."""
    one_sided: int
    """How many one edge alone lists."""
    transports: list[Row]


class _Answer(msgspec.Struct, frozen=True):
    """What one source said."""

    found: Found
    age_s: float
    complete: bool = True
    note: str = ""


class ListingMethods:
    """`contracts.rpc.RpcService`."""

    def __init__(
        self, http: HttpTransports, index: TransportIndex | None, dht: Dht | None, clock: Clock
    ) -> None:
        self._http, self._index, self._dht, self._clock = http, index, dht, clock
        self.methods: Sequence[RpcMethod] = (
            RpcMethod("tp.all", Level.READ, AllParams, AllTransports, self.all,
                      "List the network's transports."),
        )  # fmt: skip

    async def all(self, params: AllParams, context: RpcContext) -> AllTransports:
        """Return what was asked for. Raises `RpcError`, `DiscoveryError`, `HttpError`."""
        return await self.ask(params)

    async def ask(self, params: AllParams) -> AllTransports:
        """Do the same, without a caller."""
        wanted = _Wanted(params)
        source = self._chosen() if params.source == "auto" else params.source
        if source == "both":
            return await self._both(wanted)
        answer = await (self._from_dht(wanted) if source == "dht" else self._from_http(wanted))
        if not answer.complete and not params.partial:
            raise DiscoveryError(
                f"this node does not know all transports: {answer.note}",
                hint="ask the service with --source http, or show what is here with --partial",
            )
        return self._result(source, answer, wanted, {})

    # --- sources ---------------------------------------------------------------------------------

    def _chosen(self) -> str:
        """Return the store where it is everything, else the service."""
        if self._index is not None and not self._lacks():
            return "dht"
        if self._http.salts:
            return "http"
        raise DiscoveryError(
            f"nobody knows all transports: {self._lacks()}, and no discovery service is set",
            hint='[discovery_transport] url = "https://tpd.example.net/tpd", or --url; '
            "or run a full node: skynode --profile fullnode",
        )

    def _lacks(self) -> str:
        """Return why this node's store is not everything; empty where it is."""
        if self._dht is None or self._index is None:
            return "this node has no DHT"
        lag_s = self._dht.lag_s
        if lag_s is None:
            if self._dht.mode.value == "full":
                return "it is a full node whose first sync is not complete yet"
            return "it is no full node, and keeps only the records near its id"
        if lag_s > LAG_S_MAX:
            return f"it has heard of no other full node for {lag_s:.0f} s"
        return ""

    async def _from_dht(self, wanted: _Wanted) -> _Answer:
        index, lacks = self._index, self._lacks()
        if index is None or self._dht is None:
            raise DiscoveryError(lacks, hint="run a node with a DHT, or use --source http")
        with anyio.move_on_after(LOAD_S) as limit:
            await index.wait_loaded()
        if limit.cancelled_caught:
            raise DiscoveryError("the store has not been read to its end yet", hint="ask again")
        found: Found = index.whole()
        if wanted.id is not None:
            one = index.one(wanted.id)
            found = {wanted.id: one} if one else {}
        return _Answer(found, self._dht.lag_s or 0.0, not lacks, lacks)

    async def _from_http(self, wanted: _Wanted) -> _Answer:
        if wanted.id is None:
            return _Answer(await self._http.whole(), 0.0)
        one = await self._http.one(wanted.id)
        return _Answer({wanted.id: one} if one else {}, 0.0)

    async def _both(self, wanted: _Wanted) -> AllTransports:
        answers: dict[str, _Answer] = {}
        failed: dict[str, str] = {}

        async def ask(name: str, of: Callable[[_Wanted], Awaitable[_Answer]]) -> None:
            try:
                answers[name] = await of(wanted)
            except SkycoreError as bad:
                failed[name] = str(bad)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "dht", self._from_dht)
            tasks.start_soon(ask, "http", self._from_http)
        if not answers:
            raise DiscoveryError("; ".join(f"{n}: {failed[n]}" for n in sorted(failed)))
        merged = _merged([answers[name].found for name in sorted(answers)])
        alone = {} if failed else _alone(answers["dht"].found, answers["http"].found)
        notes = [f"{n}: {a.note}" for n, a in sorted(answers.items()) if a.note]
        notes += [f"{name} did not answer: {why}" for name, why in sorted(failed.items())]
        whole = not failed and all(answer.complete for answer in answers.values())
        age_s = max(answer.age_s for answer in answers.values())
        answer = _Answer(merged, age_s, whole, "; ".join(notes))
        return self._result("both", answer, wanted, alone)

    # --- answers ---------------------------------------------------------------------------------

    def _result(
        self, source: str, answer: _Answer, wanted: _Wanted, alone: Mapping[uuid.UUID, str]
    ) -> AllTransports:
        seen = [one for t_id, one in sorted(answer.found.items()) if wanted.fits(t_id, one)]
        if wanted.id is not None and not seen and answer.complete:
            raise RpcError(f"there is no transport {wanted.id}")
        rows = [_row(one, alone.get(one.entry.t_id, "")) for one in seen]
        one_sided = sum(row.one_sided for row in rows)
        age_s = round(max(0.0, answer.age_s), 1)
        return AllTransports(
            source,
            self._clock.wall_s() - int(age_s),
            age_s,
            answer.complete,
            answer.note,
            len(rows) - one_sided,
            one_sided,
            rows,
        )


class _Wanted:
    """Which transports are asked for."""

    def __init__(self, params: AllParams) -> None:
        self.edge = params.edge.strip().lower()
        if self.edge and HEX.fullmatch(self.edge) is None:
            raise RpcError(
                f"{params.edge[:64]!r} is no public key",
                code=-32602,
                hint="a key is 64 or 66 hexadecimal digits",
            )
        try:
            self.id = uuid.UUID(params.id) if params.id else None
        except ValueError:
            raise RpcError(
                f"{params.id[:64]!r} is no id of a transport",
                code=-32602,
                hint="an id looks like 22b0f1bd-7b0b-0d51-85a0-4e0ee5a1d5e1",
            ) from None

    def fits(self, t_id: uuid.UUID, seen: Seen) -> bool:
        """Tell whether a transport is asked for."""
        is_id = self.id is None or t_id == self.id
        return is_id and (not self.edge or self.edge in seen.entry.edges)


def _row(seen: Seen, source: str) -> Row:
    entry, one_sided = seen.entry, seen.sides < 2
    lister = next(iter(seen.listed_by), "") if one_sided else ""
    return Row(entry.t_id, entry.edges, entry.type, entry.label, one_sided, lister, source)


def _merged(answers: Iterable[Found]) -> Found:
    """Return the union; who lists a transport according to any of them lists it."""
    merged: dict[uuid.UUID, Seen] = {}
    for found in answers:
        for t_id, seen in found.items():
            held = merged.get(t_id)
            listed_by = seen.listed_by | (held.listed_by if held else frozenset())
            merged[t_id] = Seen(held.entry if held else seen.entry, listed_by)
    return merged


def _alone(dht: Found, http: Found) -> Mapping[uuid.UUID, str]:
    """Return which source knows a transport that the other does not."""
    only = dict.fromkeys(dht.keys() - http.keys(), "dht")
    return only | dict.fromkeys(http.keys() - dht.keys(), "http")
