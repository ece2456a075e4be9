"""tp.all: everything or a plain word that it is not; each once; from an index; as HTTP has it."""

from __future__ import annotations

import json

import anyio
import pytest

from dht_kademlia.node import Kademlia
from discovery_transport.client.index import TransportIndex
from discovery_transport.client.listing import ListingMethods
from skycore.contracts.dht import Dht
from skycore.contracts.http import HttpClient
from skycore.contracts.rpc import RpcService
from skycore.contracts.store import Items
from skycore.contracts.transport import Transports
from skycore.errors import DiscoveryError, RpcError
from skycore.testing import World


def index_of(node) -> TransportIndex:
    (methods,) = (s for s in node.node._parts[RpcService] if isinstance(s, ListingMethods))
    return methods._index


def ids(answer):
    return [row["t_id"] for row in answer["transports"]]


async def http_list(net, node):
    answer = await node.get(HttpClient).get(net.url + "/all-transports")
    return json.loads(answer.expect(200).body)


async def test_c54_l18_a_full_node_answers_at_once_what_the_service_has(deployment):
    async with World(seed=11) as world:
        net = await deployment(world).start(visors=5)
        await net.link(net.visors[0], net.visors[2])
        await net.settled()
        full = net.full[0]
        answer = await net.call(full, "tp.all")
        assert (answer["source"], answer["complete"]) == ("dht", True)
        assert answer["age_s"] < 25 and answer["total"] == 6 and answer["one_sided"] == 0
        assert answer["transports"] == await http_list(net, net.visors[0]), "each once, same shape"
        over_http = await net.call(net.visors[0], "tp.all")
        assert (over_http["source"], over_http["complete"]) == ("http", True)
        assert over_http["transports"] == answer["transports"]
        both = await net.call(net.visors[0], "tp.all", source="both")
        assert ids(both) == ids(answer) and not both["complete"], "its own store is not all"


async def test_c54_one_call_answers_by_id_and_by_edge_and_reads_nothing_anew(deployment):
    async with World(seed=12) as world:
        net = await deployment(world).start(visors=5)
        await net.settled()
        full, index = net.full[0], index_of(net.full[0])
        everything = await net.call(full, "tp.all")
        decoded, changes = index.decoded, full.get(Items).changes
        asked = []

        async def counted(*args):
            asked.append(args)
            return await changes(*args)

        full.get(Items).changes = counted
        row = everything["transports"][1]
        assert (await net.call(full, "tp.all", id=row["t_id"]))["transports"] == [row]
        mine = await net.call(full, "tp.all", edge=row["edges"][0])
        assert len(mine["transports"]) == 2
        assert all(row["edges"][0] in one["edges"] for one in mine["transports"])
        for _ in range(50):
            await net.call(full, "tp.all")
        assert index.decoded == decoded and not asked
        del full.get(Items).changes


async def test_c54_another_node_is_asked_in_one_call(deployment):
    async with World(seed=13) as world:
        net = await deployment(world).start(visors=3)
        await net.settled()
        asker, full = net.visors[0], net.full[0]
        await net.call(full, "whitelist.add", key=asker.public.hex())
        answer = await net.call(
            asker, "visor.tp_rpc", remote=full.public.hex(), method="tp.all", params={}
        )
        assert answer["total"] == 3 and answer["source"] == "dht"


async def test_l18_what_is_not_everything_is_never_shown_as_all(deployment):
    async with World(seed=14) as world:
        net = await deployment(world).start(url="")
        visor = net.visors[0]
        await world.until(lambda: len(net.desk.fleet) == 4, limit_s=100)
        with pytest.raises(DiscoveryError, match=r"no full node.*no discovery service") as bad:
            await net.call(visor, "tp.all")
        assert "--url" in bad.value.hint
        with pytest.raises(DiscoveryError, match="does not know all"):
            await net.call(visor, "tp.all", source="dht")
        answer = await net.call(visor, "tp.all", source="dht", partial=True)
        assert not answer["complete"] and "no full node" in answer["note"]


async def test_l18_a_full_node_without_its_first_sync_asks_the_service(deployment):
    async with World(seed=15) as world:
        net = await deployment(world).start()
        await net.settled()
        (fresh,) = world.prepare("fullnode", 1, net.settings)
        await world.start(fresh)
        assert not fresh.get(Dht).is_complete
        first = await net.call(fresh, "tp.all")
        assert first["source"] == "http" and first["total"] == 4
        await world.until(lambda: fresh.get(Dht).is_complete, limit_s=60)
        await anyio.sleep(1)
        later = await net.call(fresh, "tp.all")
        assert later["source"] == "dht" and later["transports"] == first["transports"]


async def test_l18_a_full_node_that_is_cut_off_does_not_claim_to_know(deployment):
    async with World(seed=16) as world:
        net = await deployment(world).start()
        await net.settled()
        lonely = net.full[0]
        world.network.isolate(lonely.address)
        await anyio.sleep(200)
        with pytest.raises(DiscoveryError, match="heard of no other full node"):
            await net.call(lonely, "tp.all")
        assert lonely.get(Kademlia).standing.is_complete


async def test_what_ends_or_is_deleted_leaves_the_list(deployment):
    async with World(seed=17) as world:
        net = await deployment(world).start()
        await net.settled()
        full, stopped, killed = net.full[0], net.visors[0], net.visors[2]
        made = (await net.call(full, "tp.all"))["total"]
        assert made == 4
        await world.stop(stopped)
        await anyio.sleep(5)
        answer = await net.call(full, "tp.all")
        assert stopped.public.hex() not in {row.get("listed_by") for row in answer["transports"]}
        await world.kill(killed)
        await anyio.sleep(330)
        answer = await net.call(full, "tp.all")
        assert answer["transports"] == [], "one visor is left of each pair"


async def test_a_one_sided_transport_is_marked_and_not_counted(deployment):
    async with World(seed=18) as world:
        net = await deployment(world).start(visors=3)
        quiet = {"node": {"disable": ["discovery_transport"]}}
        (mute,) = await world.spawn("visor", 1, quiet)  # it tells nobody of its transports
        made = await net.link(net.visors[0], mute)
        await world.until(lambda: net.desk.directory.having(made.id.bytes), limit_s=30)
        await net.settled()
        for node in (net.full[0], net.visors[1]):
            answer = await net.call(node, "tp.all")
            assert (answer["total"], answer["one_sided"]) == (3, 1)
            (one,) = [row for row in answer["transports"] if row.get("one_sided")]
            assert one["t_id"] == str(made.id)
            assert one["listed_by"] == net.visors[0].public.hex()
            assert (await net.call(node, "tp.all", id=str(made.id)))["transports"] == [one]


async def test_both_marks_what_one_source_alone_knows(deployment):
    async with World(seed=19) as world:
        net = await deployment(world).start(visors=3)
        await net.settled()
        (asker,) = world.prepare("fullnode", 1, net.settings)
        await world.start(asker)
        await world.until(lambda: asker.get(Dht).is_complete, limit_s=60)
        await anyio.sleep(1)
        whole = await net.call(asker, "tp.all", source="both")
        assert whole["complete"] and not any("source" in row for row in whole["transports"])
        transport = net.visors[0].get(Transports).all()
        shown = {row["t_id"] for row in whole["transports"]}
        assert {str(t.id) for t in transport if t.label == "user"} <= shown
        await world.stop(net.server)
        partial = await net.call(asker, "tp.all", source="both")
        assert not partial["complete"] and "http did not answer" in partial["note"]
        assert ids(partial) == ids(whole)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"id": "nonsense"}, "no id of a transport"),
        ({"id": "00000000-0000-0000-8000-000000000000"}, "no transport"),
        ({"source": "moon"}, "moon"),
        ({"extra": 1}, "extra"),
    ],
)
async def test_questions_that_make_no_sense(params, match, deployment):
    async with World(seed=20) as world:
        net = await deployment(world).start(visors=2)
        await net.settled()
        with pytest.raises(RpcError, match=match):
            await net.call(net.full[0], "tp.all", **params)


async def test_l18_a_full_node_that_finds_no_other_does_not_say_that_it_has_all(deployment):
    """It becomes complete after a while all the same, so that two newcomers can find each other."""
    async with World(seed=17) as world:
        net = await deployment(world).start(visors=2)
        await net.settled()
        (late,) = world.prepare("fullnode", 1, {"node": {"enable": ["discovery_transport"]}})
        for full in (net.server, *net.full):
            world.network.cut(late.address, full.address)
            world.network.cut(full.address, late.address)
        await world.start(late)
        await net.link(net.visors[0], late)
        await world.until(lambda: late.get(Dht).is_complete, limit_s=200)
        await anyio.sleep(60)
        assert late.get(Dht).lag_s > 150
        with pytest.raises(DiscoveryError, match="has heard of no other full node for"):
            await net.call(late, "tp.all", source="dht")
        world.heal()
        await world.until(lambda: late.get(Dht).lag_s < 30, limit_s=200)
        await anyio.sleep(1)  # the index reads what has come
        answer = await net.call(late, "tp.all", source="dht")
        assert answer["complete"] and answer["total"] >= 2


async def test_a_mistyped_key_is_no_key_without_transports(deployment):
    async with World(seed=18) as world:
        net = await deployment(world).start(visors=2)
        with pytest.raises(RpcError, match="'a1b2' is no public key"):
            await net.call(net.visors[0], "tp.all", edge="a1b2")
