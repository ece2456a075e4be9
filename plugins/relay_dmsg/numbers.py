"""The two services of a relay: what is spoken to a server, and what a server speaks to a client."""

from __future__ import annotations

from typing import Final

from skycore.contracts.streams import Service
from skycore.model.numbers import PacketType, Port

__all__ = ["KIND", "TO_CLIENT", "TO_SERVER"]

KIND: Final = "dmsg"
"""The transport type's name."""
TO_SERVER: Final = Service("dmsg server", PacketType.DMSG_SERVER, Port.TRANSPORT, looks_up=True)
"""`looks_up`: a relay is dialled at addresses that are known, so no lookup waits for itself."""
TO_CLIENT: Final = Service("dmsg client", PacketType.DMSG_CLIENT, Port.TRANSPORT, looks_up=True)
