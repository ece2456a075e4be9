"""Sending puts to one node: items, leases, and the blocks that the node lacks.

Why one place: a put, a batch, repair, hints and reconcile all end in "bring this to that node", and
each must send as few blocks as possible and give up on a node that asks for ever (C28, C20).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dht_kademlia.client import Meter
from dht_kademlia.core.messages import (
    BATCH_ITEMS_MAX,
    Batch,
    ErrorCode,
    Outcomes,
    PutValue,
    Stored,
)
from dht_kademlia.node import Kademlia
from skycore.errors import ProtocolError, ReplyError, TransportError
from skycore.model.addresses import Contact
from skycore.model.limits import ENTRY_BYTES, PAGE_TIMEOUT_S
from skycore.model.numbers import DhtMethod

__all__ = ["push"]

BATCH_BYTES_MAX: Final = 512 * 1024
TEXT_MAX: Final = 200


async def push(
    node: Kademlia,
    contact: Contact,
    loads: Sequence[PutValue],
    *,
    blocks: Mapping[bytes, bytes] | None = None,
    meter: Meter = lambda count: None,
) -> Sequence[Stored]:
    """Bring items or leases to one node; one answer each, in order. Raises nothing remote.

    `blocks` are those of the loads' manifests, by hash; what is not in it comes from our own store.
    A node that does not answer has code NO_ANSWER from there on, with the reason as text.
    """
    said: list[Stored] = []
    for part in _frames(loads):
        try:
            reply = await node.send(
                contact,
                DhtMethod.PUT_BATCH,
                node.client.frame(DhtMethod.PUT_BATCH, Batch(tuple(part))),
                timeout_s=PAGE_TIMEOUT_S,
                meter=meter,
            )
            assert isinstance(reply, Outcomes)
            if len(reply.outcomes) != len(part):
                raise ProtocolError(f"{len(reply.outcomes)} outcomes for {len(part)} items")
            said += reply.outcomes
        except ReplyError as refused:
            said += [Stored(refused.code, 0, str(refused)[:TEXT_MAX])] * len(part)
        except (TransportError, ProtocolError) as failed:
            silent = Stored(ErrorCode.NO_ANSWER, 0, str(failed)[:TEXT_MAX])
            return [*said, *[silent] * (len(loads) - len(said))]
    return said


def _frames(loads: Sequence[PutValue]) -> Sequence[list[PutValue]]:
    frames: list[list[PutValue]] = [[]]
    size = 0
    for load in loads:
        more = 2 * ENTRY_BYTES + (len(load.item.v) if load.item else 0)
        if frames[-1] and (size + more > BATCH_BYTES_MAX or len(frames[-1]) == BATCH_ITEMS_MAX):
            frames.append([])
            size = 0
        frames[-1].append(load)
        size += more
    return frames if loads else []
