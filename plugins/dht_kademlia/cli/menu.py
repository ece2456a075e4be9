"""The commands under `skynode visor dht`, as a table that costs nothing to import."""

from __future__ import annotations

from skycore.contracts.command import Command

__all__ = ["COMMANDS"]

_ONE = "dht_kademlia.cli.records"
_LIVE = "dht_kademlia.cli.live"
_RECORDING = "dht_kademlia.cli.recording"
COMMANDS = (
    Command("visor dht status", "What the DHT is, holds and does.", f"{_LIVE}:status"),
    Command("visor dht peers", "Show the routing table.", f"{_LIVE}:peers"),
    Command("visor dht put", "Publish a record.", f"{_ONE}:put"),
    Command("visor dht get", "Read a record, and by what right it was signed.", f"{_ONE}:get"),
    Command("visor dht history", "The versions of a record held here.", f"{_ONE}:history"),
    Command("visor dht delete", "Delete a record everywhere.", f"{_ONE}:delete"),
    Command("visor dht list", "List the records held here.", f"{_ONE}:ls"),
    Command("visor dht sync", "Pull what changed at a full node.", f"{_LIVE}:sync"),
    Command("visor dht reconcile", "Compare with a node, repair both.", f"{_LIVE}:reconcile"),
    Command("visor dht watch", "Show records as they change.", f"{_LIVE}:watch"),
    Command("visor dht full-node", "Be a full node, or a regular one.", f"{_LIVE}:full_node"),
    Command("visor dht full-nodes", "Find the full nodes.", f"{_LIVE}:full_nodes"),
    Command("visor dht import", "Publish a recorded network.", f"{_RECORDING}:import_recording"),
    Command("visor dht verify", "Compare with a node or a recording.", f"{_RECORDING}:verify"),
)
