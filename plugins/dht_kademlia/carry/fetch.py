"""Taking in what another node told us of: items, and the blocks that they stand on.

Why one place: pull, watch, reconcile, reads and bring all take heads from one peer, and must fetch
the blocks from the same peer, hand them to the gate, and let a peer that sends wrong blocks or none
spoil that item only (C16, C18). The gate keeps what came so far, on the peer's account; here is no
more in hand than one reply.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from dht_kademlia.client import Meter
from dht_kademlia.core.messages import Blocks, ErrorCode, GetBlocks
from dht_kademlia.core.wanted import is_full, pick
from dht_kademlia.node import Kademlia
from skycore.contracts.store import Outcome, PutOutcome
from skycore.errors import (
    MissingBlocksError,
    NamespaceError,
    ProtocolError,
    RemoteProtocolError,
    ReplyError,
    TransportError,
)
from skycore.model.addresses import Contact
from skycore.model.items import Kind, Lease, MutableItem
from skycore.model.keys import short
from skycore.model.limits import BLOCKS_ASKED_MAX, MISSING_MAX, PAGE_TIMEOUT_S
from skycore.model.numbers import DhtMethod
from skycore.model.trie import reach, read_manifest

__all__ = ["admit_from", "ask_blocks", "gather", "tree_of"]

log = logging.getLogger(__name__)

ROUNDS_MAX: Final = 64
"""Questions about one value to one peer."""


async def ask_blocks(
    node: Kademlia,
    contact: Contact,
    hashes: Sequence[bytes],
    *,
    deep: bool,
    meter: Meter = lambda count: None,
) -> tuple[dict[bytes, bytes], bool]:
    """Ask one peer for blocks; return those that are what was asked, and whether there may be more.

    Raises `TransportError`, and `RemoteProtocolError` (a `ReplyError`) where it cannot or lies.
    """
    frame = node.client.frame(DhtMethod.GET_BLOCKS, GetBlocks(tuple(hashes), deep))
    try:
        reply = await node.send(
            contact, DhtMethod.GET_BLOCKS, frame, timeout_s=PAGE_TIMEOUT_S, meter=meter
        )
    except ReplyError as refused:
        if refused.code == ErrorCode.METHOD_UNKNOWN:
            raise ReplyError(
                f"{short(contact.public)} does not serve values in blocks: it is older",
                code=refused.code,
            ) from refused
        raise
    assert isinstance(reply, Blocks)
    found = pick(hashes, reply.blocks, deep=deep)
    if reply.blocks and not found:
        raise RemoteProtocolError(f"{short(contact.public)} sent blocks that nobody asked for")
    return found, is_full(reply.blocks)


# --- taking in -----------------------------------------------------------------------------------


class _Intake:
    """Heads of one peer whose blocks are still to come."""

    def __init__(
        self,
        node: Kademlia,
        contact: Contact,
        sent: Sequence[tuple[MutableItem, Lease | None]],
        meter: Meter,
    ) -> None:
        self._node = node
        self._contact = contact
        self._items = [item for item, _ in sent]
        self._leases = [lease for _, lease in sent]
        self._meter = meter
        self.outcomes: list[PutOutcome] = []
        self._rounds: dict[int, int] = {}
        """Of those that are open, how often we asked."""
        self._older: dict[int, bool] = {}

    async def run(self) -> None:
        """Admit, fetch what lacks, admit again, until each is stored, refused or given up."""
        self.outcomes = list(await self._admit(range(len(self._items)), ()))
        for index, outcome in enumerate(self.outcomes):
            if outcome.code == Outcome.MISSING_BLOCKS and self._is_head(index, outcome):
                self._rounds[index] = 0
                self._older[index] = await self._has_older(index)
        while self._rounds:
            await self._round()

    def _is_head(self, index: int, outcome: PutOutcome) -> bool:
        return self._items[index].kind == Kind.MANIFEST and bool(outcome.missing)

    async def _admit(self, indexes: Sequence[int], blocks: Sequence[bytes]) -> Sequence[PutOutcome]:
        return await self._node.items.admit(
            [self._items[index] for index in indexes],
            sender=self._contact.public,
            blocks=blocks,
            leases=[self._leases[index] for index in indexes],
        )

    async def _round(self) -> None:
        """Ask for what as many of them lack as fit in a question."""
        deep = not self._older[next(iter(self._rounds))]
        asked: dict[bytes, None] = {}
        part: list[int] = []
        for index in self._rounds:
            missing = self.outcomes[index].missing
            if part and len(asked) + len(missing) > BLOCKS_ASKED_MAX:
                break
            if deep == self._older[index]:
                continue
            part.append(index)
            asked |= dict.fromkeys(missing[:BLOCKS_ASKED_MAX])
        try:
            found, may_be_more = await ask_blocks(
                self._node, self._contact, list(asked), deep=deep, meter=self._meter
            )
        except RemoteProtocolError as bad:
            for index in part:
                self._give_up(index, str(bad))
            return
        ready = []
        for at, index in enumerate(part):
            self._rounds[index] += 1
            if any(name in found for name in self.outcomes[index].missing):
                ready.append(index)
            elif not at or not may_be_more:
                self._give_up(index, f"{short(self._contact.public)} does not have its blocks")
        if ready:
            await self._take(ready, list(found.values()))

    async def _take(self, ready: Sequence[int], blocks: Sequence[bytes]) -> None:
        outcomes = await self._admit(ready, blocks)
        for index, outcome in zip(ready, outcomes, strict=True):
            self.outcomes[index] = outcome
            if outcome.code != Outcome.MISSING_BLOCKS:
                del self._rounds[index]
            elif self._rounds[index] >= ROUNDS_MAX or not self._is_head(index, outcome):
                self._give_up(index, f"not whole after {self._rounds[index]} questions")

    async def _has_older(self, index: int) -> bool:
        """Tell whether the slot holds another version in blocks: then most of it is here."""
        held = await self._node.items.get(self._items[index].target)
        return any(s.item.kind == Kind.MANIFEST for s in held)

    def _give_up(self, index: int, why: str) -> None:
        del self._rounds[index]
        before = self.outcomes[index]
        self.outcomes[index] = PutOutcome(before.code, before.seq, before.missing, why)
        log.info("no blocks peer=%s error=%r", short(self._contact.public), why)


async def admit_from(
    node: Kademlia,
    contact: Contact,
    sent: Sequence[tuple[MutableItem, Lease | None]],
    *,
    meter: Meter = lambda count: None,
) -> Sequence[PutOutcome]:
    """Admit the items that one peer sent, and the blocks they name; one outcome each, in order.

    Each stands beside the lease that came with it. A peer that sends wrong blocks or none ends that
    item only, with MISSING_BLOCKS and a text that says so. Raises `TransportError` where the peer
    is lost before all blocks are here: what was whole by then is stored.
    """
    intake = _Intake(node, contact, sent, meter)
    await intake.run()
    return intake.outcomes


# --- reading -------------------------------------------------------------------------------------


async def gather(
    node: Kademlia,
    item: MutableItem,
    holders: Sequence[Contact],
    came: dict[bytes, bytes],
    *,
    deep: bool,
) -> dict[bytes, bytes]:
    """Return all blocks of a manifest: those that came, our own store's, then the holders'.

    `deep` asks for everything below what lacks: not where most of it is here. The next holder is
    asked where one fails, lies or has not all. Raises `MissingBlocksError`, `NamespaceError`.
    """
    root = read_manifest(item.v).root
    blocks = dict(came)
    missing = await _from_store(node, root, blocks)
    trouble = "no holder is known"
    for contact in holders:
        for _ in range(ROUNDS_MAX):
            if not missing:
                return blocks
            asked = missing[:BLOCKS_ASKED_MAX]
            try:
                found, _ = await ask_blocks(node, contact, asked, deep=deep)
            except (TransportError, ProtocolError) as failed:
                trouble = str(failed)
                break
            blocks |= found
            missing = await _from_store(node, root, blocks)
            if not (found.keys() >= set(asked) or is_full(list(found.values()))):
                trouble = f"{short(contact.public)} does not have them"
                break  # else whoever sends one block a question keeps the reader for half an hour
    if missing:
        raise MissingBlocksError(
            f"{len(missing)} blocks of the value are at none of {len(holders)} nodes: {trouble}",
            hint="the record may have been replaced just now; read it again",
        )
    return blocks


async def _from_store(node: Kademlia, root: bytes, blocks: dict[bytes, bytes]) -> list[bytes]:
    """Add what our own store has of a tree; return what lacks then."""
    while True:
        _, missing = reach(root, blocks.get, MISSING_MAX)
        found = await node.items.blocks(missing) if missing else ()
        here = {n: b for n, b in zip(missing, found, strict=True) if b is not None}
        if not here:
            return missing
        blocks |= here


def tree_of(item: MutableItem, blocks: Sequence[bytes], bytes_max: int) -> dict[bytes, bytes]:
    """Return those of a reply's blocks that are a manifest's; none of a malformed one."""
    try:
        return pick((read_manifest(item.v).root,), blocks, deep=True, bytes_max=bytes_max)
    except NamespaceError:
        return {}
