"""Settings of the DHT. k, alpha and the quorums are the protocol's, not settings."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["KademliaSettings"]


class KademliaSettings(PluginSettings):
    """Section `[dht_kademlia]`."""

    full_node: bool = False
    """Keep every item of the network instead of those near this node's id."""
    bootstrap: tuple[str, ...] = ()
    """Nodes to start from, each as PK@host:port, or PK@sudph://host:port by another type."""
    bootstrap_retry_s: float = Field(30.0, gt=0)
    """How often the bootstrap nodes are tried while nobody answers, in seconds."""
    bootstrap_interval_s: float = Field(300.0, gt=0)
    """How often they are asked again once somebody has answered, in seconds."""
    check_interval_s: float = Field(30.0, gt=0)
    """How often contacts that were silent for two such periods are pinged, in seconds."""
    bucket_refresh_s: float = Field(900.0, gt=0)
    """A bucket without a lookup for this long is refreshed, in seconds."""
    local_age_max_s: float = Field(60.0, ge=0)
    """A read is answered from this node's own copy if it came in this lately, in seconds."""
    peer_bytes_per_s: int = Field(32 * 1024 * 1024, ge=65_536)
    """Bytes of answers that one peer may draw in a second; beyond, its answers wait."""
    unsent_bytes_max: int = Field(32 * 1024 * 1024, ge=4 * 1024 * 1024)
    """Bytes of answers to all peers that may wait for their readers; over it, the peer that holds
    most loses its oldest answer."""
    peer_streams_max: int = Field(16, ge=1)
    """Streams that one peer may have open at this node's server."""
    streams_max: int = Field(1_024, ge=16)
    """Streams of all peers together; the longest idle one makes room."""
    stream_idle_s: float = Field(60.0, gt=0)
    """A stream without a request for this long is closed, in seconds."""
    pool_streams_per_peer_max: int = Field(8, ge=1)
    """Streams that this node keeps to one peer, in use or ready."""
    sync_s_max: float = Field(600.0, gt=0)
    """A bulk sync ends after this long and goes on from there the next time, in seconds."""
    sync_page_bytes: int = Field(512 * 1024, ge=1_024, le=1024 * 1024)
    """How large a page a bulk sync asks for, in bytes."""
    full_nodes_max: int = Field(16, ge=0, le=64)
    """Full nodes that a full node keeps in step with, by watching each of them; 0 for none."""
    reconcile_interval_s: float = Field(300.0, gt=0)
    """How often it also compares all it has with each of them, and after every connect, in
    seconds."""
    watch_salts: tuple[str, ...] = ()
    """Salts that a regular node keeps in step with some full node; `*` for all."""
    watches_max: int = Field(256, ge=0)
    """Watches that all peers together may have open here, and half of the streams at most."""
    peer_watches_max: int = Field(8, ge=0)
    """Watches that one peer may have open here."""
    repair_interval_s: float = Field(120.0, ge=0)
    """How often this node sees to it that what it is closest to has all its replicas, in seconds;
    0 for never."""
    compare_interval_s: float = Field(300.0, ge=0)
    """How often a full node compares what it holds with what the HTTP services list, where their
    addresses are set, in seconds; 0 for never."""
