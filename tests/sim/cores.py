"""A thousand Kademlia cores on a heap of timed events: tier 1 of the simulation.

The routing table, the lookup and the placement are the ones that run in production; the network is
a heap of events, and a signature is a keyed hash. Every run of a seed is the same run.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from functools import partial

from dht_kademlia.core.lookup import Lookup
from dht_kademlia.core.placement import Placement
from dht_kademlia.core.routing_table import K, RoutingTable
from skycore.contracts.dht import Replica
from skycore.model.addresses import Address, Contact

RTT_S = 0.05
TIMEOUT_S = 1.0
CHECK_S = 30.0
RETRY_S, AGAIN_S = 30.0, 300.0
REPUBLISH_S = 120.0
SETTLE = 3
NETWORK_KEY = b"the authority's key in this simulation"


def sign(target, seq):
    return hashlib.blake2b(target + seq.to_bytes(8, "big"), key=NETWORK_KEY).digest()[:16]


class World:
    """Time, and a wire that loses calls."""

    def __init__(self, seed, loss=0.0, kind=None):
        self.kind = kind or Node
        self.dice = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.nodes = {}
        self.order = []
        self.cut = lambda a, b: False
        self.calls = 0
        self.trace = hashlib.blake2b()
        self._heap = []
        self._turn = itertools.count()

    def at(self, delay_s, what, *args):
        heapq.heappush(self._heap, (self.now + delay_s, next(self._turn), what, args))

    def run(self, until):
        while self._heap and self._heap[0][0] <= until:
            self.now, _, what, args = heapq.heappop(self._heap)
            what(*args)
        self.now = until

    def call(self, caller, public, method, argument, then):
        """Ask a node; `then` gets its answer, or None after the time limit."""
        self.calls += 1
        self.trace.update(caller.public[:4] + public[:4] + method.encode())
        other = self.nodes.get(public)
        lost = self.dice.random() < self.loss
        if other is None or lost or self.cut(caller.public, public):
            self.at(TIMEOUT_S, then, None)
            return
        self.at(
            RTT_S * self.dice.uniform(0.5, 1.5), self._answer, caller, other, method, argument, then
        )

    def _answer(self, caller, other, method, argument, then):
        if not other.alive:
            self.at(TIMEOUT_S - RTT_S, then, None)
            return
        then(other.serve(caller, method, argument))

    def spawn(self, *seeds):
        node = self.kind(self, self.dice.randbytes(32))
        self.nodes[node.public] = node
        self.order.append(node)
        node.start(seeds)
        return node

    def settled(self):
        """Return a node that has been up for ten seconds."""
        while True:
            node = self.dice.choice(self.order)
            if node.born_s <= self.now - 10.0:
                return node

    def kill(self, node):
        node.alive = False
        del self.nodes[node.public]
        self.order.remove(node)


class Node:
    """The cores, and nothing else, behind a wire."""

    spread_settle = SETTLE

    def __init__(self, world, public):
        self.world, self.public, self.alive = world, public, True
        self.table = RoutingTable(public)
        self.contact = Contact(public, (Address("sim", public.hex()[:8]),))
        self.store = {}
        self.seeds = ()
        self.entered_s = float("-inf")
        self.born_s = world.now

    # --- server ---

    def serve(self, caller, method, argument):
        self.heard(caller.contact)
        if method == "ping":
            return ()
        if method == "put":
            target, seq, sig = argument
            number = int.from_bytes(target, "big")
            if sig != sign(target, seq) or not self.table.is_near(number):
                return 405
            if self.store.get(target, (0,))[0] <= seq:
                self.store[target] = (seq, sig)
                self.stored(caller, target, sig)
            return 0
        contacts = [e.contact for e in self.table.closest(argument, live=True)]
        held = self.store.get(argument.to_bytes(32, "big")) if method == "get" else None
        return held, contacts

    def heard(self, contact):
        to_ping = self.table.seen(contact.public, contact.addresses, self.world.now)
        if to_ping is not None:
            self.ask(to_ping.contact, "ping", None, lambda answer: None)

    def stored(self, caller, target, sig):
        pass

    def lost(self, contact):
        return self.table.failed(contact.public)

    def ask(self, contact, method, argument, then):
        def came(answer):
            if not self.alive:
                return
            if answer is None:
                self.lost(contact)
            else:
                self.heard(contact)
            then(answer)

        self.world.call(self, contact.public, method, argument, came)

    # --- lookups ---

    def look(self, target, then, *, method="find", settle=K):
        world = self.world
        lookup = Lookup(
            target,
            [e.contact for e in self.table.closest(target)],
            own=self.public,
            now=world.now,
            settle=settle,
            wants_value=method == "get",
        )
        state = {"over": False}

        def go():
            if state["over"] or not self.alive:
                return
            lookup.tick(world.now)
            for candidate in lookup.next(world.now):
                contact = candidate.contact
                self.ask(contact, method, target, partial(came, contact))
            if lookup.done(world.now):
                state["over"] = True
                self.table.refreshed(target, world.now)
                then(lookup)
            else:
                world.at(max(0.0, lookup.wake_s() - world.now) + 0.001, go)

        def came(contact, answer):
            if answer is None:
                lookup.failed(contact.public)
            else:
                held, contacts = answer
                rank, junk = b"", False
                if held is not None:
                    seq, sig = held
                    junk = sig != sign(target.to_bytes(32, "big"), seq)
                    rank = b"" if junk else b"\x03" + seq.to_bytes(8, "big")
                lookup.answered(contact.public, contacts, now=world.now, rank=rank, junk=junk)
            go()

        go()

    def put(self, target, seq, then=lambda replicas: None):
        world = self.world
        item = (target, seq, sign(target, seq))

        def found(lookup):
            placement = Placement(lookup.closest(K), now=world.now, limit_s=10.0)
            state = {"over": False}

            def go():
                if state["over"] or not self.alive:
                    return
                for contact in placement.next():
                    self.ask(contact, "put", item, partial(came, contact))
                if placement.done(world.now):
                    state["over"] = True
                    then(placement.replicas())
                else:
                    world.at(max(0.0, placement.wake_s() - world.now) + 0.001, go)

            def came(contact, code):
                if code is None:
                    placement.failed(contact.public, "no answer")
                else:
                    placement.answered(Replica(contact.public, code), world.now)
                go()

            go()

        self.look(int.from_bytes(target, "big"), found, settle=SETTLE)

    # --- timers ---

    def start(self, seeds):
        self.seeds = seeds
        self.world.at(0.0, self.enter)
        self.world.at(CHECK_S * self.world.dice.uniform(0.5, 1.5), self.check)

    def enter(self):
        """Bootstrap: every 30 s until somebody answers, then every 5 min."""
        if not self.alive:
            return
        now = self.world.now
        self.world.at(RETRY_S, self.enter)
        if len(self.table) and now - self.entered_s < AGAIN_S:
            return
        self.entered_s = now
        for seed in self.seeds:
            self.ask(seed() if callable(seed) else seed, "ping", None, self.entered)

    def entered(self, answer):
        if answer is not None:
            self.look(self.table.own_id, self.spread)

    def spread(self, lookup=None):
        """Look once into every bucket that nobody looked into: joining, as the paper has it."""
        for bucket in self.table.stale(0.0)[:1]:
            self.look(self.target_in(bucket), self.spread, settle=self.spread_settle)

    def target_in(self, bucket):
        return self.table.target_in(bucket, self.world.dice.getrandbits(256))

    def check(self):
        if not self.alive:
            return
        world = self.world
        world.at(CHECK_S, self.check)
        for entry in self.table.unseen(world.now - 2 * CHECK_S, 32):
            self.ask(entry.contact, "ping", None, lambda answer: None)
        for bucket in self.table.stale(world.now - 300.0)[:1]:
            self.look(self.target_in(bucket), lambda lookup: None, settle=SETTLE)


def grown(seed, count, loss=0.0, kind=None):
    """Return a world of `count` nodes that bootstrapped from one another."""
    world = World(seed, loss, kind)
    first = world.spawn()
    for n in range(1, count):
        world.at(n * 0.02, world.spawn, first.contact)
    world.run(count * 0.02 + 60.0)
    return world
