"""The registry of numbers: packet types, DHT methods, ports. docs/numbers.md is made from it.

Why a registry: a number used twice is two features that break each other in production. Types
0 to 127 keep Skywire's meaning (docs/protocols/packet.md); 128 to 255 belong to plugins.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["DhtMethod", "PacketType", "Port"]


class PacketType(IntEnum):
    """First byte of a packet. Those below 128 that we do not list are Skywire's, and reserved."""

    ERROR = 6
    TRANSPORT_PING = 8
    TRANSPORT_PONG = 9
    DHT = 12
    VISOR_RPC = 14
    DMSG_SERVER = 128
    """What a node says to a DMSG server: attach, dial."""
    DMSG_CLIENT = 129
    """What a DMSG server says to an attached client: dials for it."""


class DhtMethod(IntEnum):
    """The byte after the length in a DHT frame; 0 is an error reply."""

    ERROR = 0
    PING = 1
    FIND_NODE = 2
    GET_VALUE = 3
    PUT_VALUE = 4
    GET_ITEMS = 5
    PUT_BATCH = 6
    GET_BLOCKS = 7
    RECONCILE = 8
    WATCH = 9


class Port(IntEnum):
    """DMSG ports of the services that also speak over packets."""

    TRANSPORT = 45
    """Transports over relays."""
    VISOR_RPC = 65
    DHT = 100
