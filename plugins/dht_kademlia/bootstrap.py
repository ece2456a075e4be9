"""Getting in and staying in: bootstrap nodes, dead contacts, stale buckets, and the saved table.

Why a bootstrap node is never written off: in the original, one failure closed the door to it for
ten minutes (C40, O05). Here the door is tried every 30 s while nobody answers, then every 5 min,
and contacts saved from the last run are tried beside the configured ones. Where nobody of them is
there, DMSG servers that say of themselves `dht_bootstrap` are (M14), and nobody without that flag:
to dial whoever is listed anywhere was how one bad list made every node dial the wrong ones. All of
it runs on `tasks.every`, so on a virtual clock too.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import anyio
import msgspec

from dht_kademlia.core.contacts import clean_contact
from dht_kademlia.core.routing_table import ID_BITS, K
from dht_kademlia.node import SETTLE, Kademlia
from skycore.contracts.discovery import EntrySource, Record
from skycore.contracts.runtime import Files
from skycore.discovery.binds import addresses_of, listens_nearby
from skycore.discovery.sources import find_all, list_all, rank_records
from skycore.errors import InvalidKeyError
from skycore.model.addresses import Address, Contact
from skycore.model.entries import AddressEntry, DmsgServerEntry
from skycore.model.keys import PubKey

__all__ = ["TABLE_FILE", "bootstrap", "check_contacts", "load_table", "save_table"]

log = logging.getLogger(__name__)

TABLE_FILE: Final = "routing_table.msgpack"
SAVED_MAX: Final = 256
CHECKS_MAX: Final = 32
REFRESHES_MAX: Final = 4
BEYOND_MAX: Final = 6
SEEDS_MAX: Final = 2
SERVERS_MAX: Final = 8
"""DMSG servers that are asked in one round; of more than that, any."""
SOURCE_S: Final = 5.0
"""How long a source of their entries, or of their addresses, may take."""
DMSG_SERVER: Final = b"dmsg-server"
ADDR: Final = b"addr"


def load_table(files: Files, key_bytes: int) -> tuple[Contact, ...]:
    """Return the contacts of the last run: candidates, to be asked before they are believed."""
    data = files.read(TABLE_FILE)
    if not data:
        return ()
    try:
        saved = msgspec.msgpack.decode(data, type=tuple[Contact, ...])
    except (msgspec.DecodeError, UnicodeError) as bad:
        log.warning("cannot read %s, starting without it error=%r", TABLE_FILE, str(bad))
        return ()
    cleaned = (clean_contact(c, key_bytes, teller_is_global=False) for c in saved[:SAVED_MAX])
    return tuple(c for c in cleaned if c is not None)


def save_table(node: Kademlia, files: Files) -> None:
    """Write down who answers, nearest buckets first."""
    live = [e.contact for e in node.table if not e.failures][:SAVED_MAX]
    if live:  # an empty table is no reason to forget whom we knew
        files.write(TABLE_FILE, msgspec.msgpack.encode(live))


async def bootstrap(
    node: Kademlia, saved: Sequence[Contact] = (), sources: Iterable[EntrySource] = ()
) -> bool:
    """Ask the bootstrap nodes and the saved contacts, then look for our own neighbours.

    The DMSG servers that `sources` know to answer DHT calls are asked too: nobody waits for them
    unless nobody else is there. Returns whether anybody answered at all.
    """
    first = not len(node.table)
    contacts = {c.public: c for c in (*saved, *node.seeds) if c.public != node.identity.public}
    async with anyio.create_task_group() as tasks:
        for contact in contacts.values():
            tasks.start_soon(node.probe, contact)
    if len(node.table):
        node.later(_ask_servers, node, sources)
    else:
        await _ask_servers(node, sources)
    if not len(node.table):
        return False
    await node.find_nodes(node.table.own_id)
    for bucket in node.table.stale(0.0):  # never looked into: as the paper has it, when joining
        await _refresh(node, bucket, K if first else SETTLE)
    if first:
        node.joined_s = node.clock.now()
        log.info("bootstrapped peers=%d", len(node.table))
    return True


async def _ask_servers(node: Kademlia, sources: Iterable[EntrySource]) -> None:
    """Ping DMSG servers that say they answer DHT calls; raises nothing remote (M14)."""
    servers = [key for key in await _bootstrap_servers(node, sources) if key not in node.table]
    if not servers:
        return

    async def ask(key: PubKey) -> None:
        await node.probe(Contact(key, await _addresses(node, sources, key)))

    log.debug("asking dmsg servers count=%d", len(servers))
    async with anyio.create_task_group() as tasks:
        for key in node.dice.sample(servers, min(SERVERS_MAX, len(servers))):
            tasks.start_soon(ask, key)


async def _bootstrap_servers(node: Kademlia, sources: Iterable[EntrySource]) -> list[PubKey]:
    """Return the keys of servers whose best record has the flag, in order."""
    listings = await list_all(sources, DMSG_SERVER, wait_s=SOURCE_S)
    by_subject: dict[bytes, list[Record]] = defaultdict(list)
    for answer in listings.by_source.values():
        for record in answer.records:
            by_subject[record.subject].append(record)
    suite, now_s = node.identity.network.suite, node.clock.wall_s()
    keys = []
    for subject in sorted(by_subject):
        body = rank_records(by_subject[subject], now_s)[0].body
        if not isinstance(body, DmsgServerEntry) or not body.dht_bootstrap:
            continue
        if subject == node.identity.public:
            continue
        try:
            keys.append(suite.check_public(subject))
        except InvalidKeyError:  # another network's: nobody can be dialled by it
            continue
    return keys


async def _addresses(
    node: Kademlia, sources: Iterable[EntrySource], key: PubKey
) -> tuple[Address, ...]:
    """Return where a server takes links, as far as anybody knows.

    What its own entry has is where it takes DMSG sessions, which is no address of a transport.
    """
    known = node.transports.addresses.find(key)
    if known or node.transports.find(key) is not None:
        return tuple(known)
    found = (await find_all(sources, ADDR, key, node.clock, wait_s=SOURCE_S)).best
    if found is None or not isinstance(found.body, AddressEntry):
        return ()
    nearby = listens_nearby(node.transports.listening())
    return addresses_of(found.body, nearby=nearby)


async def _refresh(node: Kademlia, bucket: int, settle: int = SETTLE) -> None:
    """Look for a random id of a bucket; for an empty one, ask those beyond it as well.

    Why: of two neighbouring parts of the id space with more than k nodes each, one may not know
    of the other, and a lookup from within ends when the k closest known (all of the own part)
    have answered. To those beyond both, the two are one bucket, in which they know some of each.
    """
    table = node.table
    target = table.target_in(bucket, node.dice.getrandbits(ID_BITS))
    first: list[Contact] = []
    if table.is_empty(bucket):
        settle = K  # whoever answers fills it
        beyond = [e.contact for e in islice(table.beyond(bucket), K)]
        first = node.dice.sample(beyond, min(BEYOND_MAX, len(beyond)))
        # newcomers ask the bootstrap nodes first; one that is away is left to `bootstrap`
        asked = {c.public for c in first}
        seeds = (s for s in node.seeds if s.public in table and s.public not in asked)
        first += islice(seeds, SEEDS_MAX)
    await node.find_nodes(target, settle=settle, first=first)


async def check_contacts(node: Kademlia) -> None:
    """Ping whoever was silent for two periods or failed lately; refresh the stalest buckets.

    A dead contact fails two of these and is out (C39).
    """
    settings, now = node.settings, node.clock.now()
    late = node.table.unseen(now - 2 * settings.check_interval_s, CHECKS_MAX)
    async with anyio.create_task_group() as tasks:
        for entry in late:
            tasks.start_soon(node.probe, entry.contact)
    stale = node.table.stale(now - settings.bucket_refresh_s)
    empty = [bucket for bucket in node.table.overdue(node.joined_s, now) if bucket not in stale]
    for bucket in (*stale, *empty)[:REFRESHES_MAX]:
        await _refresh(node, bucket)
    await node.client.reap()
