"""Manifests on their way in: finding the blocks below verified heads, and checking the trees.

Why after the signature: blocks are taken for verified heads only, so that nobody can fill memory
with pieces of nothing (C19). Why all heads of a batch level by level: a page of a thousand small
records then costs a few questions to the store, not thousands. Why nothing is checked twice: one
change of 5,000 entries must cost the blocks that are new in it (docs/protocols/blocks.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import anyio
import anyio.lowlevel
import msgspec

from skycore.contracts.namespace import Namespaces
from skycore.contracts.runtime import Clock, Workers
from skycore.contracts.store import ItemKey, ItemStore, Outcome, PutOutcome, Usage
from skycore.errors import (
    CasMismatchError,
    ItemError,
    MissingBlocksError,
    NamespaceError,
    QuotaError,
    SeqTooLowError,
)
from skycore.guards.admission import Candidate, seq_of
from skycore.guards.blocks import PendingBlocks
from skycore.guards.quota import Growth, Quotas
from skycore.guards.shapes import Shape, Shapes
from skycore.guards.trees import ASKED_MAX, INLINE_BYTES_MAX
from skycore.model.items import Kind, RankedItem
from skycore.model.limits import (
    LEAF_MAX,
    MISSING_MAX,
    SET_CHILDREN_MAX,
    TREE_DEPTH_MAX,
    TREE_STORED_MAX,
)
from skycore.model.trie import Manifest, Proven, read_manifest

__all__ = ["Heads"]

LOADED_BYTES_MAX = 3 * TREE_STORED_MAX
"""What the trees of one batch may have the store read, all together."""
BLOCKS_MAX = 2 * SET_CHILDREN_MAX * TREE_STORED_MAX // LEAF_MAX
"""More than any tree has whose blocks are split only where they must be, and as many as one batch
may name: a block names 64 others that need not exist, for each head that begins with it."""
_TOO_LARGE = "the trees of one batch are too large together"
STEPS_AT_ONCE = 1_000
"""Blocks looked at between two breaths of the event loop."""


@dataclass(slots=True)
class _Tree:
    """One head's tree, as far as it is known."""

    candidate: Candidate
    ranked: RankedItem
    manifest: Manifest
    sources: Sequence[Mapping[bytes, bytes]]
    """What was given with the head, and what has waited for it."""
    row: list[bytes]
    """Blocks to look at next."""
    refs: dict[bytes, None] = field(default_factory=dict)
    blocks: dict[bytes, bytes] = field(default_factory=dict)
    """Those in hand."""
    missing: dict[bytes, None] = field(default_factory=dict)
    stored: int = 0
    """Bytes of all its blocks."""

    def in_hand(self) -> dict[bytes, bytes]:
        """Return the blocks that came with the head, or earlier for it."""
        return {name: block for name, block in self.blocks.items() if self.find(name) is not None}

    def find(self, name: bytes) -> bytes | None:
        """Return a block that came with the head, or earlier for it."""
        for source in self.sources:
            if (block := source.get(name)) is not None:
                return block
        return None


class Heads:
    """Complete verified heads with their blocks, or say what lacks."""

    def __init__(
        self,
        store: ItemStore,
        namespaces: Namespaces,
        quotas: Quotas,
        pending: PendingBlocks,
        workers: Workers,
        clock: Clock,
    ) -> None:
        self._store = store
        self._namespaces = namespaces
        self._quotas = quotas
        self._pending = pending
        self._workers = workers
        self._clock = clock
        self._shapes = Shapes()
        self._proven = Proven()
        self._checking = anyio.Lock()
        """`_proven` is used by one check at a time, in whichever thread."""

    async def complete(
        self, heads: Sequence[Candidate], given: Mapping[bytes, bytes] | None, sender: bytes
    ) -> None:
        """Give each head its refs, blocks and growth, or its outcome.

        `given` is what came with them, by id; None where the sender may hand in no more for now.
        """
        trees = [self._tree(c, c.ranked, given or {}) for c in heads if c.ranked is not None]
        trees = [tree for tree in trees if not self._is_stale(tree)]
        await self._grow(trees)
        lacking = [tree for tree in trees if tree.missing and tree.candidate.is_open]
        if lacking:
            await self._wait(lacking, given, sender)
        done = read = 0
        for tree in trees:
            if tree.candidate.is_open and read > LOADED_BYTES_MAX:
                tree.candidate.refuse(QuotaError(_TOO_LARGE))
            if tree.candidate.is_open:
                read += await self._finish(tree)
                done += sum(map(len, tree.blocks.values()))
                tree.blocks = {}  # or all trees of a batch would be in memory at once
                if done > INLINE_BYTES_MAX:
                    done = 0
                    await anyio.lowlevel.checkpoint()

    def _tree(
        self, candidate: Candidate, ranked: RankedItem, given: Mapping[bytes, bytes]
    ) -> _Tree:
        manifest = read_manifest(ranked.item.v)
        sources = [given, *self._pending.of(ranked)]
        return _Tree(candidate, ranked, manifest, sources, [manifest.root])

    def _is_stale(self, tree: _Tree) -> bool:
        """Decide a head that the store would refuse whatever its blocks, before they are sent."""
        candidate, old = tree.candidate, tree.candidate.old
        if old is not None and old.until <= self._clock.wall_s():
            old = None
        current = seq_of(old)
        if old is not None and old.rank == tree.ranked.rank:
            return False
        if candidate.cas is not None and candidate.cas != current:
            candidate.outcome = PutOutcome(CasMismatchError.code, current)
        elif old is not None and tree.ranked.rank < old.rank:
            candidate.outcome = PutOutcome(SeqTooLowError.code, old.item.seq)
        return not candidate.is_open

    # --- looking for blocks ----------------------------------------------------------------------

    async def _grow(self, trees: Sequence[_Tree]) -> None:
        """Walk all trees down, level by level, as far as their blocks are here."""
        loaded: dict[bytes, bytes] = {}
        growing = trees
        names = steps = size = 0
        for _ in range(TREE_DEPTH_MAX + 1):
            if size <= LOADED_BYTES_MAX:
                asked = {n: None for tree in growing for n in self._unseen(tree, loaded)}
                size += await self._load(list(asked), loaded)
            else:
                _refuse(growing, QuotaError(_TOO_LARGE))
            for tree in growing:
                steps += len(tree.row)
                await self._step(tree, loaded)
                names += len(tree.row)
                if names > BLOCKS_MAX:
                    _refuse([tree], QuotaError(_TOO_LARGE))
                if steps > STEPS_AT_ONCE:
                    steps = 0
                    await anyio.lowlevel.checkpoint()
            growing = [tree for tree in growing if tree.row and tree.candidate.is_open]
            if not growing:
                return
        _refuse(growing, NamespaceError(f"a tree deeper than {TREE_DEPTH_MAX}"))

    def _unseen(self, tree: _Tree, loaded: Mapping[bytes, bytes]) -> Iterator[bytes]:
        """Yield what the store must be asked for: the root always, it says what kind of tree."""
        for name in tree.row:
            if (
                name not in loaded
                and tree.find(name) is None
                and (name == tree.manifest.root or self._shapes.get(name) is None)
            ):
                yield name

    async def _load(self, names: Sequence[bytes], loaded: dict[bytes, bytes]) -> int:
        size = 0
        for start in range(0, len(names), ASKED_MAX):
            part = names[start : start + ASKED_MAX]
            for name, block in zip(part, await self._store.blocks(part), strict=True):
                if block is not None:
                    loaded[name] = block
                    size += len(block)
        return size

    async def _step(self, tree: _Tree, loaded: Mapping[bytes, bytes]) -> None:
        """Look at one level of a tree."""
        row, tree.row = tree.row, []
        below: dict[bytes, None] = {}
        try:
            for number, name in enumerate(row, 1):
                if number % STEPS_AT_ONCE == 0:
                    await anyio.lowlevel.checkpoint()
                shape = self._look(tree, name, loaded)
                if shape is None:
                    tree.missing[name] = None
                    continue
                tree.refs[name] = None
                tree.stored += shape.bytes
                below.update(dict.fromkeys(shape.children))
            if tree.stored > TREE_STORED_MAX:
                raise NamespaceError(f"the blocks of a value have over {TREE_STORED_MAX} bytes")
            if len(tree.refs) + len(tree.missing) + len(below) > BLOCKS_MAX:
                raise NamespaceError(f"a value in more than {BLOCKS_MAX} blocks")
        except ItemError as error:
            tree.candidate.refuse(error)
            return
        tree.row = [n for n in below if n not in tree.refs]

    def _look(self, tree: _Tree, name: bytes, loaded: Mapping[bytes, bytes]) -> Shape | None:
        block = tree.find(name) or loaded.get(name)
        if block is None:
            return None if name == tree.manifest.root else self._shapes.get(name)
        tree.blocks[name] = block
        return self._shapes.learn(name, block)

    # --- not all there ---------------------------------------------------------------------------

    async def _wait(
        self, trees: Sequence[_Tree], given: Mapping[bytes, bytes] | None, sender: bytes
    ) -> None:
        """Keep what came, where there would be room for the whole, and name what lacks."""
        accounts = list(dict.fromkeys(tree.ranked.account for tree in trees))
        used = dict(zip(accounts, await self._store.signer_usage(accounts), strict=True))
        for tree in trees:
            try:
                self._wait_for(tree, given, sender, used[tree.ranked.account])
            except ItemError as error:
                tree.candidate.refuse(error)

    def _wait_for(
        self, tree: _Tree, given: Mapping[bytes, bytes] | None, sender: bytes, used: Usage
    ) -> None:
        if given is None:
            raise QuotaError("this sender has handed in all that one minute allows")
        growth = self.growth(tree.candidate, max(tree.stored, tree.manifest.bytes))
        self._quotas.check(tree.ranked, growth, used)
        self._pending.keep(tree.ranked, sender, tree.in_hand(), self._clock.now())
        tree.candidate.outcome = _missing(tree.candidate, tree.missing)

    # --- all there -------------------------------------------------------------------------------

    async def _finish(self, tree: _Tree) -> int:
        """Decide a head all of whose blocks are known; return how many bytes had to be read."""
        candidate, before = tree.candidate, sum(map(len, tree.blocks.values()))
        try:
            async with self._checking:
                await self._check(tree)
        except MissingBlocksError:
            candidate.outcome = _missing(candidate, tree.missing)
            candidate.blocks = tree.in_hand()
        except ItemError as error:
            candidate.refuse(error)
        else:
            self._accept(tree)
        return sum(map(len, tree.blocks.values())) - before

    def _accept(self, tree: _Tree) -> None:
        candidate = tree.candidate
        candidate.ranked = msgspec.structs.replace(tree.ranked, refs=tuple(tree.refs))
        candidate.blocks = tree.in_hand()
        candidate.growth = self.growth(candidate, tree.stored)
        self._shapes.learn_total(tree.manifest.root, tree.stored)

    async def _check(self, tree: _Tree) -> None:
        """Check a tree; of subtrees that were proven before the blocks need not be in hand."""
        item = tree.ranked.item
        check = partial(
            self._namespaces.check_tree,
            item.salt, item.subject, tree.manifest, tree.blocks.get, self._proven,
        )  # fmt: skip
        try:
            await self._run(check, tree)
        except MissingBlocksError:  # what was proven of it is forgotten
            lacking = [name for name in tree.refs if name not in tree.blocks]
            await self._load(lacking, tree.blocks)
            tree.missing = {name: None for name in lacking if name not in tree.blocks}
            if tree.missing:
                raise
            await self._run(check, tree)

    async def _run(self, check: partial[None], tree: _Tree) -> None:
        if sum(map(len, tree.blocks.values())) <= INLINE_BYTES_MAX:
            check()
        else:
            await self._workers.run(check)

    def growth(self, candidate: Candidate, blocks_bytes: int = 0) -> Growth:
        """Return what the node holds more once this one has taken the place of the old.

        Where the old one's blocks are not known they count as its value does, which is less.
        """
        old = candidate.old
        size = len(candidate.item.v) + blocks_bytes
        if old is None:
            return Growth(1, size)
        size -= len(old.item.v)
        if old.item.kind == Kind.MANIFEST:
            manifest = read_manifest(old.item.v)
            total = self._shapes.total(manifest.root)
            size -= manifest.bytes if total is None else total
        return Growth(0, size)

    def settle(self, heads: Sequence[Candidate], sender: bytes) -> None:
        """Let go of what waited for heads that are decided."""
        for candidate in heads:
            claim, outcome, ranked = candidate.claim, candidate.outcome, candidate.ranked
            if claim is None or outcome is None:
                continue
            slot = ItemKey(claim.target, claim.item_class)
            if outcome.code == Outcome.MISSING_BLOCKS:
                self._keep_waiting(candidate, sender)
            elif outcome.accepted and ranked is not None:
                self._pending.settle(slot, ranked.rank)
            else:
                self._pending.forget(slot, sender)

    def _keep_waiting(self, candidate: Candidate, sender: bytes) -> None:
        """Keep the blocks in hand where the store, after all, has not all the others any more."""
        if candidate.blocks and candidate.ranked is not None and candidate.outcome is not None:
            try:
                now = self._clock.now()
                self._pending.keep(candidate.ranked, sender, candidate.blocks, now)
                candidate.outcome = _missing(candidate, candidate.outcome.missing)
            except ItemError as error:
                candidate.refuse(error)

    def expire(self) -> None:
        """Let go of blocks that have waited long enough."""
        self._pending.expire(self._clock.now())


def _refuse(trees: Sequence[_Tree], error: ItemError) -> None:
    for tree in trees:
        if tree.row:
            tree.row = []
            tree.candidate.refuse(error)


def _missing(candidate: Candidate, names: Iterable[bytes]) -> PutOutcome:
    return PutOutcome(
        Outcome.MISSING_BLOCKS, seq_of(candidate.old), tuple(islice(names, MISSING_MAX)),
        "blocks that this value stands on are missing",
    )  # fmt: skip
