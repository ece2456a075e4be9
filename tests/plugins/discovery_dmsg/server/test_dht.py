"""The service and the DHT: what is listed is published, what keys publish is listed."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from discovery_dmsg.server.records import essence
from skycore.contracts.discovery import Record
from skycore.model import dmsg_entry
from skycore.model.entries import DmsgClient
from skycore.testing.fakes import identity
from skycore.testing.sources import DictSource
from tests.plugins.discovery_dmsg.conftest import NETWORK, Lab

AT = "/dmsg-discovery"
GONE = (200, {"message": "deleted entry", "code": 200})


def bare(entry):
    """Return an entry as records hold it."""
    return dmsg_entry.decode(dmsg_entry.encode(entry, server_type=""))


async def test_entries_are_published_as_they_were_signed(running):
    alice, server = running.person("alice"), running.person("server")
    mine, theirs = alice.as_client(server), server.as_server(bootstrap=True)
    await running.post(mine)
    await running.post(theirs)
    await anyio.sleep(1)
    assert await running.standing() == {alice.public: bare(mine), server.public: bare(theirs)}
    (advert,) = (await running.servers_standing()).values()
    assert (advert.pk, advert.address) == (server.key, "203.0.113.7:8081")
    assert advert.dht_bootstrap and advert.server_type == "community"
    status = await running.status.status()
    assert status.health.value == "ok"
    for feeding in running.desk.feedings:
        await feeding.verify()
        assert feeding.differences == 0


async def test_l16_what_is_read_back_verifies_and_a_forged_entry_never_gets_there(lab):
    alice = lab.person("alice")
    async with lab.service():
        await lab.post(alice.as_client())
        await anyio.sleep(1)
        (entry,) = (await lab.standing()).values()
        assert dmsg_entry.verify(alice.identity.network, entry) == alice.public
        # what somebody put into the registry past the service is not published
        listed = lab.desk.directory.of(alice.public).entries[0]
        forged = msgspec.structs.replace(entry, client=DmsgClient(("ab" * 32,)), sequence=9)
        from skycore.contracts.registry import Listed, RegistryWrite

        body = dmsg_entry.encode(forged)
        await lab.desk.directory.write(
            [RegistryWrite(alice.public, put=(Listed(listed.key, body),), stamp=9)]
        )
        await anyio.sleep(1)
        assert (await lab.standing())[alice.public] == entry
        assert lab.desk.feedings[0].counters["refused"] == 1


async def test_l6_deletion_deregistration_and_expiry_reach_the_dht(lab):
    alice, bob, carol, server = (lab.person(n) for n in ("alice", "bob", "carol", "server"))
    monitor = lab.person("monitor")
    async with lab.service(monitors=(monitor.key,)):
        for person in (alice, bob, carol):
            await lab.post(person.as_client(server))
        await lab.post(server.as_server())
        await anyio.sleep(1)
        assert len(await lab.standing()) == 4 and len(await lab.servers_standing()) == 1
        end = alice.entry(client=DmsgClient(), deletes=True)
        assert await lab.ask("DELETE", f"{AT}/entry", end) == GONE
        body = msgspec.json.encode([bob.key])
        await lab.ask_signed(monitor, "DELETE", f"{AT}/deregister", body)
        await anyio.sleep(1)
        assert set(await lab.standing()) == {carol.public, server.public}
        await anyio.sleep(120 + 5 + 1)  # the server is heard no more: at most one sweep later
        assert set(await lab.standing()) == {carol.public}
        assert await lab.servers_standing() == {}
        await anyio.sleep(3_600)
        assert await lab.standing() == {}
        status = await lab.status.status()
        assert status.fields["differences"] == 0


async def test_l9_a_repeated_entry_is_signed_and_sent_no_more(running):
    alice, server = running.person("alice"), running.person("server")
    await running.post(alice.as_client(server))
    await running.post(server.as_server(free=10))
    await anyio.sleep(1)
    sent = running.mirror.items_sent
    assert sent == 3
    for turn in range(12):
        await anyio.sleep(60)
        await running.post(alice.as_client(server))
        await running.post(server.as_server(free=9 - turn % 5))
    assert running.mirror.items_sent == sent
    await running.post(alice.as_client())
    await running.post(server.as_server(free=0))  # full: that is news
    await anyio.sleep(1)
    assert running.mirror.items_sent == sent + 2


async def test_l14_two_services_on_one_registry_do_not_quarrel_over_what_was_signed_anew(lab):
    """Each has seen another of a client's entries first, and they say the same."""
    alice, server = lab.person("alice"), lab.person("server")
    other = Lab(identity("other discovery", NETWORK))
    other.clock, other.registry, other.own = lab.clock, lab.registry, lab.own
    other.mirrors = lab.mirrors
    async with lab.service():
        await lab.post(alice.as_client(server))
        await lab.post(server.as_server())
        await anyio.sleep(30)
        await lab.post(alice.as_client(server))
        await lab.post(server.as_server())
        async with other.service():
            await anyio.sleep(80)
            await lab.post(server.as_server())
            sent = lab.mirror.items_sent
            for _ in range(15):
                await anyio.sleep(60)
                await other.post(alice.as_client(server))
                await lab.post(server.as_server())
            for feeding in (*lab.desk.feedings, *other.desk.feedings):
                await feeding.verify()
                assert feeding.differences == 0 == feeding.counters["repaired"], feeding.name
            assert lab.mirror.items_sent - sent <= 3, "a refresh at most"
            await lab.post(alice.as_client())  # that is news, and both see it
            await anyio.sleep(70)
            assert (await lab.standing())[alice.public].client == DmsgClient()
            for feeding in (*lab.desk.feedings, *other.desk.feedings):
                await feeding.verify()
                assert feeding.differences == 0


async def test_m14_a_flip_of_the_bootstrap_flag_is_published_at_once(running):
    server = running.person("server")
    await running.post(server.as_server())
    await anyio.sleep(1)
    for flag in (True, False):
        await running.post(server.as_server(bootstrap=flag))
        await anyio.sleep(1)
        assert (await running.servers_standing())[server.public].dht_bootstrap is flag
        assert (await running.standing())[server.public].server.dht_bootstrap is flag


async def test_l22_http_answers_while_the_mirror_is_away_and_it_is_caught_up(running):
    people = [running.person(f"visor{n}") for n in range(20)]
    running.mirror.is_down = True
    for _ in range(20):
        for person in people:
            status, _ = await running.post(person.as_client())
            assert status == 200
        await anyio.sleep(10)
    assert await running.standing() == {}
    status = await running.status.status()
    assert status.health.value == "degraded" and status.fields["feed_waiting"] == 20
    running.mirror.is_down = False
    await anyio.sleep(90)
    assert set(await running.standing()) == {p.public for p in people}
    assert (await running.status.status()).fields["feed_waiting"] == 0


async def test_without_a_delegation_the_status_says_which_command_to_run(lab):
    async with lab.service(delegated=False):
        await lab.post(lab.person("alice").as_client())
        await anyio.sleep(5)
        status = await lab.status.status()
        assert status.health.value == "degraded"
        assert "skynode network delegate" in status.fields["feed_hint"]


async def test_without_a_publisher_it_is_a_plain_service(lab):
    async with lab.service(mirrored=False):
        await lab.post(lab.person("alice").as_client())
        status = await lab.status.status()
        assert status.health.value == "ok" and "differences" not in status.fields


def test_what_counts_as_a_change_of_an_entry():
    from skycore.model.entries import DmsgEntry, DmsgServer

    one = DmsgEntry("a", "0.0.1", 1, 2, client=DmsgClient(("x", "y")), signature="s")
    same = DmsgEntry("a", "0.0.1", 5, 6, client=DmsgClient(("y", "x")), signature="t")
    assert essence(one) == essence(same)
    free = [essence(DmsgEntry("a", server=DmsgServer("h:1", n))) for n in (0, 1, 9)]
    assert free[0] != free[1] == free[2]


# --- from the DHT --------------------------------------------------------------------------------


class Keys:
    """What keys publish of themselves, as the DHT's local source tells it."""

    def __init__(self, lab):
        self.lab, self.source = lab, DictSource("dht")
        lab.sources.append(self.source)

    def tell(self, person, entry, *, lifetime_s=600, signer=None):
        now_ns = self.lab.clock.wall_ns()
        body = None if entry is None else bare(entry)
        until_s = now_ns // 10**9 + lifetime_s
        signer = person.public if signer is None else signer
        self.source.tell(Record(b"dmsg", person.public, body, now_ns, until_s, "dht", signer))


@pytest.fixture
def keys(lab):
    return Keys(lab)


async def test_what_a_key_publishes_of_itself_is_listed(lab, keys):
    alice, server = lab.person("alice"), lab.person("server")
    async with lab.service():
        entry, other = alice.as_client(server), server.as_server()
        keys.tell(alice, entry)
        keys.tell(server, other)
        await anyio.sleep(6)
        assert await lab.list(f"/entry/{alice.key}") == msgspec.json.decode(
            dmsg_entry.encode(entry)
        )
        assert len(await lab.list("/available_servers")) == 1
        # the next one comes by HTTP: one order for both ways
        assert (await lab.post(alice.as_client()))[0] == 200
        keys.tell(alice, entry)
        await anyio.sleep(1)
        assert (await lab.list(f"/entry/{alice.key}"))["sequence"] == 2
        await anyio.sleep(600)
        assert await lab.list("/entries") == [alice.key]


async def test_l16_a_record_whose_entry_its_key_did_not_sign_is_not_listed(lab, keys):
    alice, bob = lab.person("alice"), lab.person("bob")
    async with lab.service():
        keys.tell(alice, msgspec.structs.replace(alice.as_client(), signature="ab" * 64))
        keys.tell(bob, alice.as_client())
        await anyio.sleep(6)
        assert await lab.list("/entries") == []
        assert lab.desk.taking.counters["refused"] == 2


async def test_what_a_mirror_signed_is_not_taken_back(lab, keys):
    alice, mirror = lab.person("alice"), lab.person("mirror")
    async with lab.service():
        keys.tell(alice, alice.as_client(), signer=mirror.public)
        await anyio.sleep(6)
        assert await lab.list("/entries") == []


async def test_a_deletion_here_is_not_undone_by_a_record_that_is_older(lab, keys):
    alice = lab.person("alice")
    async with lab.service():
        entry = alice.as_client()
        keys.tell(alice, entry)
        await anyio.sleep(6)
        end = alice.entry(client=DmsgClient(), deletes=True)
        assert await lab.ask("DELETE", f"{AT}/entry", end) == GONE
        keys.tell(alice, entry)
        await anyio.sleep(1)
        assert await lab.list("/entries") == []
        keys.tell(alice, alice.as_client())
        await anyio.sleep(1)
        assert await lab.list("/entries") == [alice.key]


async def test_a_deleted_record_ends_what_is_not_newer(lab, keys):
    alice, bob = lab.person("alice"), lab.person("bob")
    async with lab.service():
        keys.tell(alice, alice.as_client())
        keys.tell(bob, bob.as_client())
        await anyio.sleep(6)
        keys.tell(alice, None)
        deleted_at = lab.clock.wall_ns()
        await anyio.sleep(2)
        await lab.post(bob.as_client())
        record = Record(b"dmsg", bob.public, None, deleted_at, 2**40, "dht", bob.public)
        keys.source.tell(record)
        await anyio.sleep(1)
        assert await lab.list("/entries") == [bob.key]


async def test_while_the_source_is_broken_its_entries_live_on(lab, keys):
    server = lab.person("server")
    async with lab.service():
        keys.tell(server, server.as_server(), lifetime_s=130)
        await anyio.sleep(10)
        keys.source.fail()
        await anyio.sleep(400)
        assert await lab.list("/entries") == [server.key]
        await anyio.sleep(400)
        assert await lab.list("/entries") == []
