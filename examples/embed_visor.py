"""A visor inside your own program: open it, use its parts, leave.

    python examples/embed_visor.py [PK@host:port]

With the contact of a running node it joins that node's network; alone it talks to itself.
"""

from __future__ import annotations

import sys

import anyio

from skycore import Node
from skycore.contracts.dht import Dht
from skycore.contracts.publish import Fact, Publisher


async def main(bootstrap: list[str]) -> None:
    settings = {
        "transport_stcpr": {"listen": "127.0.0.1:0"},
        "dht_kademlia": {"bootstrap": bootstrap},
    }
    async with Node.open(profile="visor", settings=settings) as node:
        print(f"I am {node.identity.public.hex()}")
        await node.get(Publisher).publish(Fact(b"greeting", b"hello from inside a program"))
        found = await node.get(Dht).get(node.identity.public, b"greeting")
        assert found is not None
        print(f"the network says: {found.item.v.decode()} (seq {found.item.seq})")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:])
