"""One item at its nodes: a node with too much to do says so at once."""

from __future__ import annotations

import anyio

from dht_kademlia.carry.push import Cargo
from dht_kademlia.core.messages import ErrorCode, PutValue
from dht_kademlia.put.placing import place
from skycore.model.addresses import Contact
from skycore.testing.fakes import identity


def test_c44_a_node_too_busy_to_send_ends_its_put_at_once(virtual, make_network, make, monkeypatch):
    """The stand-ins are tried, and refused, in the same breath: nothing is waited for."""

    async def story():
        async with make_network().node("n0") as member:
            monkeypatch.setattr(member.node, "later", lambda work, *args: False)
            contacts = [Contact(identity(f"peer {i}").public, ()) for i in range(40)]
            began = anyio.current_time()
            said = await place(
                member.node, Cargo(member.node, [PutValue(make("u"))]), 0, contacts, 20
            )
            assert anyio.current_time() - began < 0.01
            assert len(said) == 40
            assert {(r.code, r.text) for r in said} == {
                (ErrorCode.NO_ANSWER, "this node is too busy")
            }

    virtual(story)
