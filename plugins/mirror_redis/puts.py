"""Batches on their way into Redis: what is sent of them, and in how many pieces.

Why a question first where there are many blocks: the gate hands over every block that it has in
hand, most of them stored long ago. One round trip says which; the others are not sent (L24).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import anyio.lowlevel

from mirror_redis.rows import number, put_record, record
from skycore.contracts.store import PutOutcome
from skycore.errors import QuotaError, StoreError
from skycore.model.items import RankedItem

__all__ = ["PART_BYTES_MAX", "PART_ITEMS_MAX", "Puts", "not_done"]

PART_ITEMS_MAX = 512
PART_BYTES_MAX = 4 * 1024 * 1024
"""Values in one call of the script: Redis does nothing else meanwhile."""
UNASKED_BYTES_MAX = 32 * 1024
"""Blocks of so many bytes are sent without asking what is there."""
PACKED_AT_ONCE = 512 * 1024
ITEM_COST = 4_096
"""Bytes encoded between two breaths of the event loop, an item counting some more: about 2 ms."""

Call = Sequence[bytes]


def not_done(error: StoreError) -> PutOutcome:
    """Return the outcome of an item that Redis refused while it did others of its batch."""
    return PutOutcome(QuotaError.code, text=str(error))


class Puts:
    """Puts batches of any size."""

    def __init__(
        self,
        put: Callable[[Sequence[Call]], Awaitable[list[Any]]],
        ask: Callable[..., Awaitable[Any]],
        bounds: Sequence[bytes],
        writer: bytes,
    ) -> None:
        """`bounds` are those of the history, or empty: what the full nodes there have set."""
        self._put = put
        self._ask = ask
        self._versions_max, self._bytes_max = bounds
        self._writer = writer

    async def put_many(
        self, items: Sequence[RankedItem], blocks: Mapping[bytes, bytes]
    ) -> list[PutOutcome]:
        """Send a batch as one transaction; outcomes in order.

        Raises `StoreError` where nothing was done. Where Redis became full in the midst of a batch
        of several calls, the outcomes of those that it refused say so.
        """
        held = await self._held(items, blocks)
        parts = list(_parts(items))
        calls = [await self._call(part, blocks, held) for part in parts]
        replies = await self._put(calls)
        for index, part in enumerate(parts):
            if replies[index] == b"again":  # a block went meanwhile: send all that we have
                [replies[index]] = await self._put([await self._call(part, blocks, set())])
        outcomes: list[PutOutcome] = []
        for part, reply in zip(parts, replies, strict=True):
            if isinstance(reply, StoreError):
                outcomes += [not_done(reply)] * len(part)
            else:
                outcomes += [PutOutcome(c, int(seq, 16), _split(gone)) for c, seq, gone in reply[1]]
        return outcomes

    async def _held(self, items: Sequence[RankedItem], blocks: Mapping[bytes, bytes]) -> set[bytes]:
        """Return those of the blocks given that need not be sent."""
        wanted = dict.fromkeys(name for item in items for name in item.refs if name in blocks)
        names = list(wanted)
        if sum(len(blocks[name]) for name in names) <= UNASKED_BYTES_MAX:
            return set()
        answer = await self._ask("held", b"".join(names))
        return {name for name, is_here in zip(names, answer, strict=True) if is_here == 0x31}

    async def _call(
        self, part: Sequence[RankedItem], blocks: Mapping[bytes, bytes], held: set[bytes]
    ) -> Call:
        names = dict.fromkeys(name for item in part for name in item.refs if name in blocks)
        given = [name for name in names if name not in held]
        head = record(
            self._versions_max, self._bytes_max,
            b"".join(name for name in names if name in held), b"".join(given), number(len(part)),
        )  # fmt: skip
        records = []
        size = 0
        for item in part:
            records.append(put_record(item, self._writer))
            size += ITEM_COST + len(item.item.v) + 32 * len(item.refs)
            if size > PACKED_AT_ONCE:
                size = 0
                await anyio.lowlevel.checkpoint()
        return [head, *records, *(blocks[name] for name in given)]


def _parts(items: Sequence[RankedItem]) -> Iterator[Sequence[RankedItem]]:
    start = size = 0
    for index, item in enumerate(items):
        more = len(item.item.v) + 32 * len(item.refs)
        is_full = index - start == PART_ITEMS_MAX or size + more > PART_BYTES_MAX
        if index > start and is_full:
            yield items[start:index]
            start, size = index, 0
        size += more
    yield items[start:]


def _split(names: bytes) -> tuple[bytes, ...]:
    return tuple(names[at : at + 32] for at in range(0, len(names), 32))
