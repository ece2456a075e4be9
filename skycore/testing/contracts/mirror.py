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

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from skycore.contracts.dht import Mirror, PutReport, RenewingMirror
from skycore.contracts.runtime import Clock, Identity
from skycore.contracts.store import Outcome
from skycore.errors import CasMismatchError, SeqTooLowError
from skycore.model.items import (
    ItemClass,
    Lease,
    MutableItem,
    item_digest,
    item_signed_bytes,
    lease_bytes,
    make_item,
)

__all__ = ["MirrorContract", "Mirrored"]


@dataclass(frozen=True)
class Mirrored:
    """A mirror that reaches at least one store, whose items are `author`'s."""

    mirror: Mirror
    author: Identity
    clock: Clock
    salt: bytes = b"mirror-contract"
    """An undeclared salt, unless the mirror takes none."""

    def item(self, v: bytes, *, seq: int | None = None, salt: bytes | None = None) -> MutableItem:
        """Sign an item."""
        return make_item(
            self.author.network,
            self.author.secret,
            salt=self.salt if salt is None else salt,
            seq=self.clock.wall_ns() if seq is None else seq,
            until=self.clock.wall_s() + 600,
            v=v,
        )

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

    def _lease(self, mirrored: Mirrored, item: MutableItem) -> Lease:
        network = mirrored.author.network
        digest, until = item_digest(item_signed_bytes(network, item)), item.until + 60
        sig = mirrored.author.sign(lease_bytes(network, digest, until))
        return Lease(item.target, int(ItemClass.OWNER), digest, until, sig)
