"""Every bound of the wire formats, in one place.

Why here: a limit that stands beside its use is a limit that two places disagree about. Sizes are
bytes, times are seconds unless the name ends in `_ns`. Bounds that an operator may move are
settings; these are not, because both ends of a wire must agree on them.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ADDRESS_KIND_MAX",
    "BEAT_DAYS",
    "BEAT_SLOTS",
    "BLOCKS_ASKED_MAX",
    "BLOCKS_BYTES_MAX",
    "BLOCK_GRACE_S",
    "BLOCK_MAX",
    "CALL_TIMEOUT_S",
    "CLOCK_SKEW_MAX_S",
    "CONTACTS_MAX",
    "DELEGATION_LIFETIME_MAX_S",
    "DHT_FRAME_MAX",
    "DMSG_AGE_MAX_S",
    "DMSG_MESSAGE_MAX",
    "DMSG_PURPOSE_MAX",
    "DMSG_REASON_MAX",
    "DMSG_REQUEST_MAX",
    "ENDPOINT_MAX",
    "ENTRY_BYTES",
    "FEATURES_MAX",
    "FEATURE_NAME_MAX",
    "FRAME_PLAINTEXT_MAX",
    "HANDSHAKE_TIMEOUT_S",
    "HELLO_ADDRESSES_MAX",
    "HELLO_MAX",
    "INSTANCE_ID_BYTES",
    "JSON_DEPTH_MAX",
    "LEAF_MAX",
    "LEASE_LIFETIME_MAX_S",
    "LISTED_KEY_MAX",
    "LISTED_SUBJECT_MAX",
    "MISSING_MAX",
    "PACKET_PAYLOAD_MAX",
    "PAGE_BYTES_MAX",
    "PAGE_ITEMS_MAX",
    "PAGE_TIMEOUT_S",
    "PENDING_HEAD_S",
    "RANGES_MAX",
    "RANGE_ITEMS_MAX",
    "RANGE_PARTS",
    "RECONCILE_ROUNDS_MAX",
    "REQUEST_HOST_MAX",
    "REQUEST_TARGET_MAX",
    "RPC_FRAME_MAX",
    "SALT_MAX",
    "SEQ_MAX",
    "SET_CHILDREN_MAX",
    "SET_INLINE_MAX",
    "STREAM_BACKLOG_MAX",
    "STREAM_CHUNK_MAX",
    "STREAM_ID_MAX",
    "STREAM_WINDOW",
    "SUBJECT_MAX",
    "SUDPH_DATAGRAM_MIN",
    "SUDPH_IDLE_MAX_S",
    "SUDPH_PUNCHES_MAX",
    "SUDPH_PUNCH_MAX",
    "TOMBSTONE_LIFETIME_S",
    "TRANSPORT_QUEUE_MAX",
    "TREE_BYTES_MAX",
    "TREE_CHILDREN_MAX",
    "TREE_DEPTH_MAX",
    "TREE_STORED_MAX",
    "VALUE_MAX",
    "WANTED_MAX",
]

# items (docs/protocols/items.md)
SALT_MAX: Final = 200
SUBJECT_MAX: Final = 64
VALUE_MAX: Final = 65_536
SEQ_MAX: Final = 2**63 - 1
CLOCK_SKEW_MAX_S: Final = 600
TOMBSTONE_LIFETIME_S: Final = 7 * 86_400
DELEGATION_LIFETIME_MAX_S: Final = 30 * 86_400
LEASE_LIFETIME_MAX_S: Final = 86_400
BLOCK_MAX: Final = 8_192
BLOCK_GRACE_S: Final = 120
"""How long readers of a replaced head still find its blocks."""
SET_INLINE_MAX: Final = 4_096
"""A set whose encoding is larger stands in blocks; so does any value over VALUE_MAX."""
LEAF_MAX: Final = 4_096
"""Bytes of entries at which a leaf of a set's trie splits, and of a piece of a plain value."""
TREE_CHILDREN_MAX: Final = 64
SET_CHILDREN_MAX: Final = 16
"""Children of an inner block of a set: few, so that one change moves few bytes."""
TREE_DEPTH_MAX: Final = 16
TREE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of a value in blocks, as it reads when put together."""
TREE_STORED_MAX: Final = 2 * TREE_BYTES_MAX
"""Bytes of all blocks of a tree: a set of tiny entries reaches this first."""
PENDING_HEAD_S: Final = 600
"""How long blocks wait for the rest of their verified head."""
MISSING_MAX: Final = 1_024
"""Hashes of missing blocks that one outcome names."""
ENTRY_BYTES: Final = 300
"""What an item counts for besides its value, in pages and in what a sender may hand in."""

# secure channel (docs/protocols/noise.md)
FEATURES_MAX: Final = 32
FEATURE_NAME_MAX: Final = 32
INSTANCE_ID_BYTES: Final = 16
FRAME_PLAINTEXT_MAX: Final = 65_535 - 16
HANDSHAKE_TIMEOUT_S: Final = 5.0
HELLO_MAX: Final = 2_048
HELLO_ADDRESSES_MAX: Final = 8
ADDRESS_KIND_MAX: Final = 32
"""Characters of the name of a transport type."""
ENDPOINT_MAX: Final = 260

# packets and streams (docs/protocols/packet.md, vstream.md)
PACKET_PAYLOAD_MAX: Final = 65_535
TRANSPORT_QUEUE_MAX: Final = 4 * 1024 * 1024
STREAM_CHUNK_MAX: Final = 16_384
STREAM_WINDOW: Final = 262_144
STREAM_BACKLOG_MAX: Final = 256
STREAM_ID_MAX: Final = 2**32 - 1

# UDP transports (docs/protocols/sudph.md)
SUDPH_DATAGRAM_MIN: Final = 1_200
"""Bytes of a datagram that every way must carry, and of the first one of a connection."""
SUDPH_IDLE_MAX_S: Final = 45.0
"""Silence after which a connection is over: three keepalives."""
SUDPH_PUNCHES_MAX: Final = 10
"""Punch datagrams to one target in a minute."""
SUDPH_PUNCH_MAX: Final = 64
"""Bytes of a punch datagram."""

# relays (docs/protocols/dmsg.md)
DMSG_MESSAGE_MAX: Final = 2_048
"""Bytes of a message after its length."""
DMSG_REQUEST_MAX: Final = 1_024
"""Bytes of what is signed of a dial."""
DMSG_PURPOSE_MAX: Final = 64
DMSG_REASON_MAX: Final = 200
"""Characters of a reason."""
DMSG_AGE_MAX_S: Final = 60
"""How far a dial's time may lie from the clock of who reads it, either way."""

# DHT RPC (docs/protocols/dht.md)
DHT_FRAME_MAX: Final = 4 * 1024 * 1024
CONTACTS_MAX: Final = 20
PAGE_BYTES_MAX: Final = 1024 * 1024
PAGE_ITEMS_MAX: Final = 4_096
CALL_TIMEOUT_S: Final = 10.0
PAGE_TIMEOUT_S: Final = 30.0
BLOCKS_ASKED_MAX: Final = 1_024
BLOCKS_BYTES_MAX: Final = 2 * 1024 * 1024
"""Bytes of blocks in one message."""
RANGES_MAX: Final = 256
RANGE_PARTS: Final = 16
RANGE_ITEMS_MAX: Final = 32
"""A range with at most so many items is listed instead of split."""
RECONCILE_ROUNDS_MAX: Final = 8
WANTED_MAX: Final = 1_024
"""Targets whose items one Reconcile asks for."""

# RPC to a node (docs/protocols/rpc.md)
RPC_FRAME_MAX: Final = 4 * 1024 * 1024
JSON_DEPTH_MAX: Final = 64

# signed HTTP requests (docs/protocols/discovery.md)
REQUEST_HOST_MAX: Final = 1_024
"""Bytes of the Host header, and of every header of a signature."""
REQUEST_TARGET_MAX: Final = 8_192
"""Bytes of path and query."""

# registries (docs/protocols/registry.md)
LISTED_KEY_MAX: Final = 512
LISTED_SUBJECT_MAX: Final = 128
BEAT_SLOTS: Final = 288
"""Spans of five minutes in a day."""
BEAT_DAYS: Final = 8
"""Days before today of which it is known who was seen."""
