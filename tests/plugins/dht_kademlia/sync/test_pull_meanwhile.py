"""A sync while others write: all that was there throughout arrives, once, whatever the seqs."""

import random
from collections import Counter

import anyio
import pytest

from skycore.model.items import Kind, mutable_item_target
from skycore.testing.fakes import START_NS, identity

NS = 10**9
SIGNERS = 10


def listen_in(member):
    """Count what a node's gate is handed, item by item."""
    handed, admit = Counter(), member.items.admit

    async def counting(items, **more):
        handed.update(items)
        return await admit(items, **more)

    member.items.admit = counting
    return handed


def pair(network, **settings):
    quiet = {"repair_interval_s": 0, "full_nodes_max": 0, "full_node": True, "gate": {}}
    return (
        network.node("n0", **quiet),
        network.node("n1", seeds=("n0",), **quiet, **settings),
    )


@pytest.mark.parametrize("seed", range(15))
def test_c24_any_interleaving_of_writes_misses_and_repeats_nothing(
    virtual, make_network, make, seed
):
    async def story():
        dice = random.Random(seed)
        network = make_network(dice.choice((0.0, 0.01, 0.05)))
        alice_, bob_ = pair(network, sync_page_bytes=4_096)
        async with alice_ as alice, bob_ as bob:
            await anyio.sleep(2)

            def item(kind, n, seq, salt=b"t"):
                v = b"" if kind == Kind.TOMBSTONE else dice.randbytes(dice.randint(0, 900))
                return make(f"u{n % SIGNERS}", seq=START_NS + seq, v=v, kind=kind,
                            salt=salt + b"%d" % n)  # fmt: skip

            lasting = [item(Kind.VALUE, n, dice.randint(1, 9)) for n in range(120)]
            moving = [item(Kind.VALUE, n, 1, b"m") for n in range(40)]
            first = [*lasting, *moving]
            dice.shuffle(first)
            await alice.items.admit(first, sender=b"")
            handed, over = listen_in(bob), anyio.Event()

            async def write():
                seq = 10
                while not over.is_set():
                    seq += 1
                    kind = dice.choice((Kind.VALUE, Kind.VALUE, Kind.TOMBSTONE))
                    await alice.items.admit([item(kind, dice.randrange(80), seq, b"m")], sender=b"")
                    await anyio.sleep(dice.uniform(0, 0.03))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                report = await bob.dht.sync(alice.public)
                over.set()
            assert report.complete
            assert report.pages > 5
            assert {handed[one] for one in lasting} == {1}
            assert max(handed.values()) == 1
            await bob.dht.sync(alice.public)
            for one in [*lasting, *moving]:
                assert [s.item for s in await bob.items.get(one.target)] == [
                    s.item for s in await alice.items.get(one.target)
                ]

    virtual(story)


def test_l17_ten_thousand_in_shuffled_seq_with_ties_and_a_writer_arrive(
    virtual, make_network, make
):
    """O24 besides: two thirds of them have one and the same seq, more than any page holds."""

    async def story():
        dice = random.Random(17)
        network = make_network(0.01)
        alice_, bob_ = pair(network, sync_page_bytes=262_144)
        async with alice_ as alice, bob_ as bob:
            await anyio.sleep(2)
            seqs = [START_NS + 1] * 6_690 + [START_NS + dice.randint(1, NS) for _ in range(3_310)]
            dice.shuffle(seqs)
            items = [make(f"u{n % SIGNERS}", seq=seq, v=bytes(200), salt=b"%d" % n)
                     for n, seq in enumerate(seqs)]  # fmt: skip
            await alice.items.admit(items, sender=b"")
            handed, over = listen_in(bob), anyio.Event()

            async def write():
                for n in range(10**6):
                    if over.is_set():
                        return
                    extra = make("u1", seq=START_NS + n + 1, salt=b"more %d" % (n % 50))
                    await alice.items.admit([extra], sender=b"")
                    await anyio.sleep(0.01)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                report = await bob.dht.sync(alice.public)
                over.set()
            assert report.complete
            assert all(handed[item] == 1 for item in items)
            usage = await bob.items.usage()
            assert sum(used.items for used in usage.values()) >= 10_000
            where = mutable_item_target(identity("u1").public, b"1")
            assert len(await bob.items.get(where)) == 1

    virtual(story)
