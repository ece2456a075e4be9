"""The suite that every Dht passes: inherit `DhtContract` and give it a small network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from skycore.contracts.dht import Dht
from skycore.errors import TransportError
from skycore.model.items import Kind, MutableItem, make_item
from skycore.model.keys import PubKey
from skycore.testing.fakes import TEST_NETWORK, identity

__all__ = ["DhtContract"]


class DhtContract:
    """What a Dht promises, whatever is below it.

    Give one fixture, `dht_story`: a function that runs `story(dhts, now_s)` with at least three
    connected Dhts (on whatever clock), where `now_s()` is their Unix time in seconds. The first is
    a full node. Items are of TEST_NETWORK.
    """

    @pytest.fixture
    def dht_story(self) -> Callable[..., None]:
        """Run a story on a network of your Dht."""
        raise NotImplementedError

    @staticmethod
    def item(
        name: str, now_s: int, seq: int = 1, v: bytes = b"value", kind: Kind = Kind.VALUE
    ) -> MutableItem:
        """Return an item signed by `name`."""
        secret = identity(name).secret
        return make_item(
            TEST_NETWORK, secret, salt=b"t", seq=seq, until=now_s + 3_000, v=v, kind=kind
        )

    def test_what_one_puts_everyone_gets(self, dht_story: Callable[..., None]) -> None:
        """Also a node that does not hold it."""

        async def story(dhts: Sequence[Dht], now_s: Callable[[], int]) -> None:
            item = self.item("alice", now_s())
            report = await dhts[1].put(item)
            assert report.stored >= 2
            for dht in dhts:
                found = await dht.get(item.subject, b"t", age_max_s=0)
                assert found is not None
                assert found.item == item

        dht_story(story)

    def test_a_newer_item_wins_and_an_older_one_is_told(
        self, dht_story: Callable[..., None]
    ) -> None:
        """SeqTooLow with the seq that is there."""

        async def story(dhts: Sequence[Dht], now_s: Callable[[], int]) -> None:
            new, old = self.item("alice", now_s(), 5), self.item("alice", now_s(), 4)
            await dhts[0].put(new)
            report = await dhts[2].put(old)
            codes = {(r.code, r.seq) for r in report.replicas}
            assert (302, 5) in codes | {(report.outcome.code, report.outcome.seq)}
            found = await dhts[1].get(new.subject, b"t", age_max_s=0)
            assert found is not None
            assert found.item.seq == 5

        dht_story(story)

    def test_cas_protects_what_is_there(self, dht_story: Callable[..., None]) -> None:
        """A wrong expectation changes nothing."""

        async def story(dhts: Sequence[Dht], now_s: Callable[[], int]) -> None:
            await dhts[0].put(self.item("alice", now_s(), 1))
            refused = await dhts[1].put(self.item("alice", now_s(), 3), cas=2)
            assert refused.stored == 0
            accepted = await dhts[1].put(self.item("alice", now_s(), 3), cas=1)
            assert accepted.stored >= 2

        dht_story(story)

    def test_a_deletion_is_no_miss(self, dht_story: Callable[..., None]) -> None:
        """A tombstone is returned as what it is."""

        async def story(dhts: Sequence[Dht], now_s: Callable[[], int]) -> None:
            await dhts[0].put(self.item("alice", now_s(), 1))
            await dhts[0].put(self.item("alice", now_s(), 2, b"", Kind.TOMBSTONE))
            found = await dhts[2].get(identity("alice").public, b"t", age_max_s=0)
            assert found is not None
            assert found.item.kind == Kind.TOMBSTONE
            assert await dhts[2].get(identity("bob").public, b"t") is None

        dht_story(story)

    def test_a_forged_item_goes_nowhere(self, dht_story: Callable[..., None]) -> None:
        """Refused by our own side already."""

        async def story(dhts: Sequence[Dht], now_s: Callable[[], int]) -> None:
            forged = msgspec.structs.replace(self.item("alice", now_s()), v=b"other")
            report = await dhts[1].put(forged)
            assert report.stored == 0
            assert report.outcome.code == 206
            assert await dhts[2].get(forged.subject, b"t") is None

        dht_story(story)

    def test_a_batch_is_as_many_puts(self, dht_story: Callable[..., None]) -> None:
        """One report an item, in order; the bad one among them costs itself alone."""

        async def story(dhts: Sequence[Dht], now_s: Callable[[], int]) -> None:
            items = [self.item(f"user {n}", now_s()) for n in range(40)]
            items[7] = msgspec.structs.replace(items[7], v=b"forged")
            done: list[int] = []
            reports = await dhts[1].put_many(items, done.append)
            assert done[-1] == 40
            assert [r.stored >= 2 for r in reports] == [n != 7 for n in range(40)]
            for n in (0, 39):
                assert await dhts[2].get(items[n].subject, b"t", age_max_s=0) is not None

        dht_story(story)

    def test_sync_brings_what_is_there_once(self, dht_story: Callable[..., None]) -> None:
        """And says so truly."""

        async def story(dhts: Sequence[Dht], now_s: Callable[[], int]) -> None:
            items = [self.item(f"user {n}", now_s()) for n in range(20)]
            await dhts[0].put_many(items)
            first = await dhts[2].sync()
            assert first.complete
            assert first.stored + first.held == first.received == 20
            second = await dhts[2].sync()
            assert (second.received, second.complete) == (0, True)
            assert all([await dhts[2].get(i.subject, b"t", local=True) for i in items])

        dht_story(story)

    def test_peers_are_listed(self, dht_story: Callable[..., None]) -> None:
        """As many as are counted."""

        async def story(dhts: Sequence[Dht], now_s: Callable[[], int]) -> None:
            for dht in dhts:
                assert len(dht.peers()) == dht.peer_count > 0

        dht_story(story)

    def test_one_peer_says_what_it_holds(self, dht_story: Callable[..., None]) -> None:
        """Exactly that, deleted or not, and nothing for what it never saw."""

        async def story(dhts: Sequence[Dht], now_s: Callable[[], int]) -> None:
            assert dhts[0].is_complete
            assert not dhts[1].is_complete, "a regular node never has everything"
            assert (dhts[0].lag_s, dhts[1].lag_s) == (0.0, None)
            item = self.item("alice", now_s(), 3)
            gone = self.item("alice", now_s(), 4, b"", Kind.TOMBSTONE)
            peers = [PubKey(peer.public) for peer in dhts[1].peers()]
            assert not any([await dhts[1].ask(peer, item.subject, b"t") for peer in peers])
            for put in (item, gone):
                await dhts[2].put(put)
                held = [await dhts[1].ask(peer, item.subject, b"t") for peer in peers]
                assert [stored.item for one in held for stored in one][:1] == [put]

        dht_story(story)

    def test_a_peer_that_is_not_there_cannot_be_asked(self, dht_story: Callable[..., None]) -> None:
        """Not knowing is not the same as nothing."""

        async def story(dhts: Sequence[Dht], now_s: Callable[[], int]) -> None:
            with pytest.raises(TransportError):
                await dhts[1].ask(identity("nobody").public, identity("alice").public, b"t")

        dht_story(story)
