from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.errors import LocalProtocolError
from skycore.model.limits import PACKET_PAYLOAD_MAX
from skycore.model.packets import HEADER_BYTES, PacketParser, encode_packet, transport_id

PACKETS = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=600)), max_size=12
)

# Source: Skywire's packages of March 2024 with keys SHA256("alice") and SHA256("bob").
ALICE = bytes.fromhex("039997a497d964fc1a62885b05a51166a65a90df00492c8d7cf61d6accf54803be")
BOB = bytes.fromhex("024edfcf9dfe6c0b5c83d1ab3f78d1b39a46ebac6798e08e19761f5ed89ec83c10")
GOLDEN_IDS = {
    "stcpr": "c5a0d3e4-9967-046c-8209-f5fdef2e5105",
    "sudph": "53030c12-f5de-09cd-8a8e-3eb656ca1589",
    "dmsg": "0b4e836e-9010-06a7-8130-b86c915db9d9",
    "stcp": "872b9010-678f-0683-9241-3368ff2a1d18",
}


def encode_all(packets):
    return b"".join(encode_packet(kind, payload, route) for kind, route, payload in packets)


def test_the_header_is_seven_bytes_of_type_route_and_size():
    assert encode_packet(14, b"abc") == bytes.fromhex("0e 00000000 0003") + b"abc"
    assert encode_packet(8, b"", 0x01020304) == bytes.fromhex("08 01020304 0000")
    assert HEADER_BYTES == 7


@given(PACKETS, st.randoms(use_true_random=False))
def test_f5_any_split_of_the_stream_gives_the_same_packets(packets, dice: random.Random):
    data = encode_all(packets)
    parser, got, at = PacketParser(), [], 0
    while at < len(data):
        size = dice.randint(1, 400)
        got += parser.feed(data[at : at + size])
        at += size
    assert got == packets


def test_t4891_byte_by_byte():
    packets = [(8, 0, bytes(8)), (12, 0, b""), (200, 7, b"x" * 300)]
    parser, got = PacketParser(), []
    for byte in encode_all(packets):
        got += parser.feed(bytes((byte,)))
    assert got == packets


def test_f2_a_cut_at_any_byte_yields_only_whole_packets():
    packets = [(8, 0, bytes(8)), (12, 0, b"hello"), (14, 3, b"")]
    data = encode_all(packets)
    ends = [len(encode_all(packets[:n])) for n in range(len(packets) + 1)]
    for cut in range(len(data) + 1):
        whole = sum(end <= cut for end in ends) - 1
        assert list(PacketParser().feed(data[:cut])) == packets[:whole]


def test_f1_the_largest_length_holds_no_memory_in_advance():
    parser = PacketParser()
    assert list(parser.feed(bytes.fromhex("0c 00000000 ffff"))) == []
    assert len(parser._rest) == HEADER_BYTES


def test_f4_noise_never_raises_and_holds_one_packet_at_most():
    dice = random.Random(4)
    parser = PacketParser()
    for _ in range(10_000):
        for _kind, _route, payload in parser.feed(dice.randbytes(dice.randint(1, 100))):
            assert len(payload) <= PACKET_PAYLOAD_MAX
        assert len(parser._rest) < HEADER_BYTES + PACKET_PAYLOAD_MAX


def test_an_oversize_payload_is_our_own_mistake():
    encode_packet(12, bytes(PACKET_PAYLOAD_MAX))
    with pytest.raises(LocalProtocolError):
        encode_packet(12, bytes(PACKET_PAYLOAD_MAX + 1))


@pytest.mark.parametrize("kind", GOLDEN_IDS)
def test_t839_transport_ids_are_skywires(kind):
    assert transport_id(ALICE, BOB, kind) == uuid.UUID(GOLDEN_IDS[kind])
    assert transport_id(BOB, ALICE, kind) == uuid.UUID(GOLDEN_IDS[kind])


@given(st.binary(min_size=32, max_size=33), st.binary(min_size=32, max_size=33))
def test_t839_order_of_edges_changes_nothing(one, other):
    assert transport_id(one, other, "stcpr") == transport_id(other, one, "stcpr")
    assert transport_id(one, other, "stcpr") != transport_id(one, other, "sudph")
