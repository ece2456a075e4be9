"""The commands under `skynode visor dht`, as a table that costs nothing to import."""

from __future__ import annotations

from skycore.contracts.command import Command

__all__ = ["COMMANDS"]

_RUN = "dht_kademlia.commands"
COMMANDS = (
    Command("visor dht status", "What the DHT is, holds and does.", f"{_RUN}:status"),
    Command("visor dht put", "Publish a record.", f"{_RUN}:put"),
    Command("visor dht get", "Read a record.", f"{_RUN}:get"),
    Command("visor dht delete", "Delete a record everywhere.", f"{_RUN}:delete"),
    Command("visor dht list", "List the records held here.", f"{_RUN}:ls"),
    Command("visor dht sync", "Pull what changed at a full node.", f"{_RUN}:sync"),
    Command("visor dht peers", "Show the routing table.", f"{_RUN}:peers"),
    Command("visor dht import", "Publish a recorded network.", f"{_RUN}:import_recording"),
)
