"""What every mirror must do. Inherit `MirrorContract` and give it `mirrored`.

```
class TestMine(MirrorContract):
    @pytest.fixture
    async def mirrored(self):
        async with my_mirror() as mirror:
            yield Mirrored(mirror, identity("alice"), clock)
```
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec
import pytest

from skycore.contracts.dht import Mirror, PutReport, RenewingMirror
from skycore.contracts.runtime import Clock, Identity
from skycore.contracts.store import Outcome
from skycore.errors import CasMismatchError, MissingBlocksError, SeqTooLowError
from skycore.model.items import (
    ItemClass,
    Kind,
    Lease,
    MutableItem,
    item_digest,
    item_signed_bytes,
    lease_bytes,
    make_item,
)
from skycore.model.trie import Tree, plant_value

__all__ = ["MirrorContract", "Mirrored"]


@dataclass(frozen=True)
class Mirrored:
    """A mirror that reaches at least one store, whose items are `author`'s."""

    mirror: Mirror
    author: Identity
    clock: Clock
    salt: bytes = b"mirror-contract"
    """An undeclared salt, unless the mirror takes none."""
    read: Callable[[MutableItem], Awaitable[bytes | None]] | None = None
    """Return the whole value that a store behind the mirror serves for this item now, if any."""

    def item(
        self,
        v: bytes,
        *,
        seq: int | None = None,
        salt: bytes | None = None,
        kind: Kind = Kind.VALUE,
    ) -> MutableItem:
        """Sign an item."""
        return make_item(
            self.author.network,
            self.author.secret,
            salt=self.salt if salt is None else salt,
            seq=self.clock.wall_ns() if seq is None else seq,
            until=self.clock.wall_s() + 600,
            v=v,
            kind=kind,
        )

    def large(self, size: int = 300_000, seed: int = 1) -> tuple[bytes, Tree, MutableItem]:
        """Return a value that stands in blocks, its tree, and the manifest's item."""
        value = random.Random(seed).randbytes(size)
        tree = plant_value(value)
        return value, tree, self.item(tree.manifest, kind=Kind.MANIFEST)

    async def codes(self, *items: MutableItem, cas: int | None = None) -> list[int]:
        """Mirror items; return the lowest code that anybody answered for each."""
        return [lowest(report) for report in await self.mirror.mirror(items, cas=cas)]


def lowest(report: PutReport) -> int:
    """Return the best thing that was said."""
    said = [replica.code for replica in report.replicas]
    if report.outcome.code != Outcome.NOT_HELD:
        said.append(report.outcome.code)
    return min(said)


class MirrorContract:
    """Tests of `contracts.dht.Mirror`, and of `RenewingMirror` where it is one."""

    takes_blocks = True
    """A mirror to a place that keeps no large values says False, and refuses them."""

    async def test_it_has_a_name(self, mirrored: Mirrored) -> None:
        """Reports and records are told apart by it."""
        assert isinstance(mirrored.mirror.name, str)

    async def test_one_report_each_in_order(self, mirrored: Mirrored) -> None:
        """Of a batch with a forged item in the middle exactly that one is refused."""
        items = [mirrored.item(b"%d" % n, salt=mirrored.salt + b"%d" % n) for n in range(20)]
        forged = msgspec.structs.replace(items[7], sig=bytes(len(items[7].sig)))
        reports = await mirrored.mirror.mirror([*items[:7], forged, *items[8:]])
        assert [report.stored > 0 for report in reports] == [n != 7 for n in range(20)]

    async def test_nothing_is_nothing(self, mirrored: Mirrored) -> None:
        """An empty batch has no reports."""
        assert list(await mirrored.mirror.mirror([])) == []

    async def test_the_same_item_is_held(self, mirrored: Mirrored) -> None:
        """Mirroring twice is no error."""
        item = mirrored.item(b"x")
        assert await mirrored.codes(item) == [Outcome.STORED]
        assert await mirrored.codes(item) == [Outcome.HELD]

    async def test_an_older_item_is_refused_with_the_current_seq(self, mirrored: Mirrored) -> None:
        """So that a publisher that lost its count can go on."""
        now = mirrored.clock.wall_ns()
        await mirrored.codes(mirrored.item(b"new", seq=now))
        (report,) = await mirrored.mirror.mirror([mirrored.item(b"old", seq=now - 1)])
        assert report.stored == 0
        told: Sequence[tuple[int, int]] = [(r.code, r.seq) for r in report.replicas]
        assert (SeqTooLowError.code, now) in [*told, (report.outcome.code, report.outcome.seq)]

    async def test_cas_is_honoured(self, mirrored: Mirrored) -> None:
        """A wrong expectation changes nothing."""
        now = mirrored.clock.wall_ns()
        assert await mirrored.codes(mirrored.item(b"1", seq=now - 9), cas=0) == [Outcome.STORED]
        wrong = mirrored.item(b"2", seq=now - 8)
        assert await mirrored.codes(wrong, cas=5) == [CasMismatchError.code]
        assert await mirrored.codes(wrong, cas=now - 9) == [Outcome.STORED]

    async def test_a_lease_prolongs_what_is_held(self, mirrored: Mirrored) -> None:
        """And for what is not held the item is asked for."""
        mirror = mirrored.mirror
        if not isinstance(mirror, RenewingMirror):
            return
        item = mirrored.item(b"x")
        lease = self._lease(mirrored, item)
        (before,) = await mirror.renew([lease])
        assert lowest(before) == Outcome.NOT_HELD if before.replicas else not before.stored
        await mirrored.codes(item)
        (after,) = await mirror.renew([lease])
        assert after.stored > 0

    async def test_c20_a_large_record_arrives_whole_with_its_blocks(
        self, mirrored: Mirrored
    ) -> None:
        """300 KB; then a change of it, of which the place has most blocks already."""
        value, tree, item = mirrored.large()
        reports = await mirrored.mirror.mirror([item], blocks=tree.blocks)
        if not self.takes_blocks:
            assert reports[0].stored == 0
            return
        assert lowest(reports[0]) == Outcome.STORED
        assert await self._read(mirrored, item) == value
        changed = value[:-1] + bytes((value[-1] ^ 1,))
        after = plant_value(changed)
        mirrored_item = mirrored.item(after.manifest, seq=item.seq + 1, kind=Kind.MANIFEST)
        reports = await mirrored.mirror.mirror([mirrored_item], blocks=after.blocks)
        assert lowest(reports[0]) == Outcome.STORED
        assert await self._read(mirrored, item) == changed

    async def test_c20_large_and_small_records_in_one_call(self, mirrored: Mirrored) -> None:
        """Blocks belong to the call, not to an item; a part of a tree is never stored."""
        if not self.takes_blocks:
            pytest.skip("this mirror takes no blocks")
        value, tree, item = mirrored.large(seed=2)
        small = mirrored.item(b"small", salt=mirrored.salt + b"2")
        names = list(tree.blocks)
        partly = {name: tree.blocks[name] for name in names[:-1]}
        first, second = await mirrored.mirror.mirror([item, small], blocks=partly)
        assert first.stored == 0
        assert lowest(first) in (Outcome.MISSING_BLOCKS, MissingBlocksError.code)
        assert lowest(second) == Outcome.STORED
        assert await self._read(mirrored, item) is None
        (whole,) = await mirrored.mirror.mirror([item], blocks=tree.blocks)
        assert lowest(whole) == Outcome.STORED
        assert await self._read(mirrored, item) == value

    async def _read(self, mirrored: Mirrored, item: MutableItem) -> bytes | None:
        assert mirrored.read is not None, "say how to read what the mirror has stored"
        return await mirrored.read(item)

    def _lease(self, mirrored: Mirrored, item: MutableItem) -> Lease:
        network = mirrored.author.network
        digest, until = item_digest(item_signed_bytes(network, item)), item.until + 60
        sig = mirrored.author.sign(lease_bytes(network, digest, until))
        return Lease(item.target, int(ItemClass.OWNER), digest, until, sig)
