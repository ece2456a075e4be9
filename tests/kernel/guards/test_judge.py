"""What may be believed: forged, transplanted, misdated, oversized items, and exact limits."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skycore.contracts.namespace import Form, Namespace
from skycore.errors import (
    ExpiredError,
    InvalidSignatureError,
    ItemError,
    NamespaceError,
    NotAuthorisedError,
    SaltTooBigError,
    SeqTooFarError,
    ValueTooBigError,
)
from skycore.model.items import (
    ItemClass,
    Kind,
    Lease,
    MutableItem,
    item_signed_bytes,
    make_lease,
    mutable_item_target,
)
from skycore.model.limits import (
    CLOCK_SKEW_MAX_S,
    DELEGATION_LIFETIME_MAX_S,
    LEASE_LIFETIME_MAX_S,
    SALT_MAX,
    SEQ_MAX,
    SET_INLINE_MAX,
    SUBJECT_MAX,
    TOMBSTONE_LIFETIME_S,
    TREE_BYTES_MAX,
    VALUE_MAX,
)
from skycore.model.network import NetworkConstants
from skycore.testing.fakes import identity

VECTORS = Path(__file__).parents[2] / "vectors"
NS = 10**9
TAGS = Namespace(b"tags", 1, str, Form.SET, {ItemClass.OWNER: 300})
NOTE_LIFE_S = 3_600
UNKNOWN_LIFE_S = 7_200
replace = msgspec.structs.replace


def refused(house, item, error, *, lease=None, words=""):
    with pytest.raises(error) as caught:
        house.gate.judge(item, lease)
    assert type(caught.value) is error
    assert words in str(caught.value)


async def test_an_owners_item_is_ranked(house):
    item = house.item()
    ranked = house.gate.judge(item)
    assert ranked.item_class == ItemClass.OWNER
    assert ranked.target == mutable_item_target(item.subject, item.salt) == item.target
    assert ranked.rank[:8] == item.seq.to_bytes(8, "big")
    assert len(ranked.rank) == 40
    assert ranked.item is item


async def test_c1_a_foreign_signer_is_refused(house):
    for salt in (b"note", b"unknown"):
        item = house.item("mallory", subject=house.public("alice"), salt=salt)
        refused(house, item, NotAuthorisedError, words="no delegation")


@pytest.mark.parametrize("field", ["subject", "salt", "seq", "until", "v", "kind", "network"])
async def test_c2_d14_a_signature_means_nothing_elsewhere(house, field):
    item = house.item(salt=b"unknown", v=b"x")
    moved = {
        "subject": replace(item, subject=house.public("bob"), signer=house.public("bob")),
        "salt": replace(item, salt=b"unknowm"),
        "seq": replace(item, seq=item.seq + 1),
        "until": replace(item, until=item.until + 1),
        "v": replace(item, v=b"y"),
        "kind": replace(item, kind=1, v=b""),
        "network": house.item(
            salt=b"unknown", v=b"x", network=NetworkConstants(house.network.suite, "other")
        ),
    }[field]
    refused(house, moved, InvalidSignatureError)


async def test_c3_o02_a_seq_far_ahead_is_refused(house):
    now = house.clock.wall_ns()
    limit = now + CLOCK_SKEW_MAX_S * NS
    assert house.gate.judge(house.item(seq=limit))
    refused(house, house.item(seq=limit + 1), SeqTooFarError)
    refused(house, house.item(seq=SEQ_MAX), SeqTooFarError)


@pytest.mark.parametrize("seq", [0, -1, 2**63, 2**64 - 1, 10**400, True, 1.0, "5", None])
async def test_o01_d8_a_seq_outside_its_range_is_refused(house, seq):
    refused(house, replace(house.item(), seq=seq), SeqTooFarError, words="whole number")


async def test_d8_the_lowest_seq_is_accepted(house):
    assert house.gate.judge(house.item(seq=1))


async def test_c13_our_own_key_may_be_ahead_of_our_clock(house):
    """With our clock set back, what we write must still be what all others accept."""
    ahead_s = 3_600
    seq, until = house.clock.wall_ns() + ahead_s * NS, house.clock.wall_s() + ahead_s + 600
    assert house.gate.judge(house.item("me", seq=seq, until=until))
    refused(house, house.item("alice", seq=seq, until=until), SeqTooFarError)


async def test_d5_limits_and_one_more(house):
    unknown = b"x" * SALT_MAX
    assert house.gate.judge(house.item(salt=unknown, v=b"v" * VALUE_MAX))
    refused(house, house.item(salt=b"s", v=b"v" * (VALUE_MAX + 1)), ValueTooBigError)
    refused(house, house.item(salt=unknown + b"x"), SaltTooBigError)
    token = house.delegation("authority", "bob")
    biggest = house.item("bob", subject=b"s" * SUBJECT_MAX, delegation=token)
    assert house.gate.judge(biggest).item_class == ItemClass.MIRROR
    assert house.gate.judge(house.item("bob", subject=b"s", delegation=token))
    bigger = house.item("bob", subject=b"s" * (SUBJECT_MAX + 1), delegation=token)
    refused(house, bigger, ItemError, words="subject")
    refused(house, replace(biggest, subject=b""), ItemError, words="subject")


@pytest.mark.parametrize(
    "change", [{"signer": b""}, {"signer": b"k" * 31}, {"signer": b"k" * 33},
               {"signer": b"k" * 300}, {"sig": b""}, {"sig": b"s" * 63}, {"sig": b"s" * 65}]
)  # fmt: skip
async def test_keys_and_signatures_have_their_length(house, change):
    refused(house, replace(house.item(), **change), InvalidSignatureError)


@pytest.mark.parametrize("kind", [3, 255, 256, -1, True, 0.0, "0", None])
async def test_other_kinds_are_refused(house, kind):
    refused(house, replace(house.item(), kind=kind), ItemError, words="kind")


@pytest.mark.parametrize(
    ("salt", "fields", "words"),
    [
        (b"note", (1, 1, VALUE_MAX, bytes(32)), "in the item itself"),
        (b"tags", (1, 9, SET_INLINE_MAX, bytes(32)), "in the item itself"),
        (b"unknown", (0, 1, SET_INLINE_MAX, bytes(32)), "in the item itself"),
        (b"note", (2, 1, VALUE_MAX + 1, bytes(32)), "version 1, not 2"),
        (b"note", (1, 1, TREE_BYTES_MAX + 1, bytes(32)), "at most"),
        (b"note", (1, 1, VALUE_MAX + 1, bytes(31)), "not a manifest"),
        (b"note", (1, 1, VALUE_MAX + 1, bytes(32), 5), "not a manifest"),
        (b"note", (1, 0, VALUE_MAX + 1, bytes(32)), "0 entries"),
    ],
)
async def test_c18_a_manifest_is_judged_before_its_blocks(house, salt, fields, words):
    v = msgspec.msgpack.encode(fields)
    item = house.item(kind=Kind.MANIFEST, salt=salt, v=v, life_s=300)
    refused(house, item, NamespaceError, words=words)


async def test_c22_a_set_too_large_to_stand_inline_is_refused(house):
    fits = TAGS.encode([f"{n:04}" for n in range(818)])
    assert len(fits) <= SET_INLINE_MAX
    assert house.gate.judge(house.item(salt=b"tags", v=fits, life_s=300))
    bigger = TAGS.encode([f"{n:04}" for n in range(820)])
    refused(house, house.item(salt=b"tags", v=bigger, life_s=300), NamespaceError, words="blocks")


async def test_d3_d4_bytes_do_not_move_between_fields(house):
    """Source: BEP 44's known weakness of unprefixed fields."""
    item = house.item(salt=b"ab", v=b"cd")
    refused(house, replace(item, salt=b"a", v=b"bcd"), InvalidSignatureError)
    refused(house, replace(item, salt=b"abc", v=b"d"), InvalidSignatureError)
    refused(house, replace(item, salt=b"", v=b"abcd"), InvalidSignatureError)


# --- lifetimes ------------------------------------------------------------------------------------


async def test_an_item_lives_as_long_as_its_namespace_allows(house):
    for salt, life_s in ((b"note", NOTE_LIFE_S), (b"unknown", UNKNOWN_LIFE_S)):
        longest = life_s + CLOCK_SKEW_MAX_S
        assert house.gate.judge(house.item(salt=salt, life_s=longest))
        refused(house, house.item(salt=salt, life_s=longest + 1), ExpiredError)
    assert house.gate.judge(house.item(life_s=1))
    refused(house, house.item(life_s=0), ExpiredError, words="ended")


@pytest.mark.parametrize("until", [-1, 2**63, 2**64, 10**400, True, 1e12, "9", None])
async def test_an_until_outside_its_range_is_refused(house, until):
    refused(house, replace(house.item(), until=until), ExpiredError)


async def test_c11_c12_a_tombstone_lives_seven_days_from_its_signing(house):
    signed_s = house.clock.wall_s()
    longest = signed_s + TOMBSTONE_LIFETIME_S
    tombstone = house.item(v=None, until=longest)
    assert house.gate.judge(tombstone).item.kind == Kind.TOMBSTONE
    refused(house, house.item(v=None, until=longest + 1), ExpiredError, words="7 days")
    small = house.item(v=None, seq=1)
    refused(house, small, ExpiredError, words="7 days")  # a seq that is no time has no 7 days
    house.clock.advance(TOMBSTONE_LIFETIME_S - 1)
    assert house.gate.judge(tombstone)
    house.clock.advance(1)
    refused(house, tombstone, ExpiredError)


async def test_c12_a_tombstone_carries_nothing(house):
    refused(house, house.item(v=b"x", kind=Kind.TOMBSTONE), NamespaceError, words="tombstone")


# --- delegations ----------------------------------------------------------------------------------


async def test_classes_come_from_delegations(house):
    alice = house.public("alice")
    cases = [
        (house.item("alice"), ItemClass.OWNER),
        (
            house.item("bob", subject=alice, delegation=house.delegation("alice", "bob")),
            ItemClass.DELEGATE,
        ),
        (
            house.item("bob", subject=alice, delegation=house.delegation("authority", "bob")),
            ItemClass.MIRROR,
        ),
    ]
    for item, item_class in cases:
        assert house.gate.judge(item).item_class == item_class


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ({"issuer": "carol"}, "neither"),
        ({"delegate": "carol"}, "another key"),
        ({"salt": b"other"}, "another salt"),
        ({"life_s": 0}, "ended"),
        ({"life_s": -5}, "ended"),
        ({"life_s": DELEGATION_LIFETIME_MAX_S + CLOCK_SKEW_MAX_S + 1}, "30 days"),
    ],
)
async def test_c1_a_delegation_must_fit(house, who, words):
    terms = {"issuer": "alice", "delegate": "bob", **who}
    item = house.item("bob", subject=house.public("alice"), delegation=house.delegation(**terms))
    refused(house, item, NotAuthorisedError, words=words)


async def test_an_item_does_not_outlive_its_delegation(house):
    alice = house.public("alice")
    token = house.delegation("alice", "bob", life_s=100)
    assert house.gate.judge(house.item("bob", subject=alice, delegation=token, life_s=100))
    late = house.item("bob", subject=alice, delegation=token, life_s=101)
    refused(house, late, ExpiredError, words="outlive")
    gone = house.item("bob", None, subject=alice, delegation=token, life_s=101)
    refused(house, gone, ExpiredError, words="outlive")


async def test_a_delegation_is_signed_by_its_issuer(house):
    alice = house.public("alice")
    good = house.delegation("alice", "bob")
    for bad in (
        replace(good, sig=bytes(64)),
        replace(good, sig=b""),
        replace(good, until=good.until + 1),
        replace(house.delegation("mallory", "bob"), issuer=alice),
    ):
        item = house.item("bob", subject=alice, delegation=bad)
        refused(house, item, InvalidSignatureError, words="delegation")


async def test_delegation_signatures_are_checked_once(house):
    token = house.delegation("authority", "bob")
    for n in range(10):
        house.gate.judge(house.item("bob", subject=b"%d" % n, delegation=token))
    assert house.suite.verified == 11


async def test_an_owners_item_carries_no_delegation(house):
    """What is not signed must not vary, or equal items are not equal bytes (C8)."""
    item = house.item("alice", delegation=house.delegation("authority", "alice"))
    refused(house, item, NotAuthorisedError, words="own subject")


async def test_c8_the_rank_tells_two_delegations_apart(house):
    alice = house.public("alice")
    item = house.item("bob", subject=alice, delegation=house.delegation("alice", "bob"))
    other = replace(item, delegation=house.delegation("alice", "bob", life_s=80_000))
    one, two = house.gate.judge(item), house.gate.judge(other)
    assert one.digest == two.digest
    assert one.rank != two.rank


async def test_a_class_that_is_not_listed_may_not_sign(house):
    alice = house.public("alice")
    for salt in (b"tags", b"unknown"):
        token = house.delegation("alice", "bob", salt=salt)
        item = house.item("bob", b"", subject=alice, salt=salt, delegation=token, life_s=60)
        refused(house, item, NotAuthorisedError, words="no delegate may sign")


async def test_without_an_authority_there_are_no_mirrors(open_house):
    lonely = NetworkConstants(identity("x").network.suite, "lonely")
    async with open_house(network=lonely) as house:
        token = house.delegation("authority", "bob")
        item = house.item("bob", subject=b"s", delegation=token, network=lonely)
        refused(house, item, NotAuthorisedError, words="neither")


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "v", [b"", b"\xc1", b"\x92\x02\xa1x", b"\x92\x01\x05", b"\x91\x01", b"\x92\x01\xa2\xff\xfe",
          b"\x93\x01\xa1x\x05", b"\x91" * 2_000]
)  # fmt: skip
async def test_c22_a_value_must_fit_its_schema(house, v):
    refused(house, house.item(v=v), NamespaceError, words="'note'")


async def test_c22_an_unknown_salt_is_kept_as_it_is(house):
    for v in (b"", b"\xc1", b"anything"):
        assert house.gate.judge(house.item(salt=b"stranger", v=v))


async def test_a_set_has_one_order(house):
    from skycore.contracts.namespace import Form, Namespace

    tags = Namespace(b"tags", 1, str, Form.SINGLE, {ItemClass.OWNER: 1})
    namespace = house.namespaces.find(b"tags")
    assert namespace.encode(["b", "a", "b"]) == namespace.encode(["a", "b"])
    good = namespace.encode(["b", "a"])
    assert house.gate.judge(house.item(salt=b"tags", v=good, life_s=60))
    raw = msgspec.msgpack.encode
    for body in (["b", "a"], ["a", "a"]):
        bad = house.item(salt=b"tags", v=raw((1, body)), life_s=60)
        refused(house, bad, NamespaceError, words="order")
    assert tags.form is Form.SINGLE


# --- leases ---------------------------------------------------------------------------------------


async def test_c17_an_item_lives_by_the_lease_that_came_with_it(house):
    item = house.item(life_s=100)
    ranked = house.gate.judge(item)
    house.clock.advance(200)
    refused(house, item, ExpiredError)
    now_s = house.clock.wall_s()
    lease = make_lease(house.network, house.key("alice"), ranked, now_s + 100)
    assert house.gate.judge(item, lease).digest == ranked.digest
    longest = now_s + NOTE_LIFE_S + CLOCK_SKEW_MAX_S
    assert house.gate.judge(item, make_lease(house.network, house.key("alice"), ranked, longest))
    for until in (longest + 1, now_s, now_s - 1, 2**63, -1):
        bad = replace(lease, until=until)
        refused(house, item, ExpiredError, lease=bad)


async def test_a_lease_is_for_one_item_and_by_its_signer(house):
    item = house.item(life_s=100)
    ranked = house.gate.judge(item)
    until = house.clock.wall_s() + 1_000
    lease = make_lease(house.network, house.key("alice"), ranked, until)
    other = house.gate.judge(house.item("bob"))
    for bad in (
        replace(lease, sig=bytes(64)),
        replace(lease, sig=b""),
        replace(lease, until=until + 1),
        replace(lease, digest=other.digest),
        replace(lease, digest=b""),
        replace(lease, target=other.target),
        replace(lease, item_class=1),
        make_lease(house.network, house.key("mallory"), ranked, until),
    ):
        refused(house, item, InvalidSignatureError, lease=bad)
    assert house.gate.judge(item, lease)


async def test_a_tombstone_takes_no_lease(house):
    item = house.item(v=None)
    ranked = house.gate.judge(item)
    lease = make_lease(house.network, house.key("alice"), ranked, item.until + 100)
    refused(house, item, ExpiredError, lease=lease)


async def test_a_lease_does_not_outlive_the_delegation(house):
    token = house.delegation("authority", "bob", life_s=1_000)
    item = house.item("bob", subject=b"s", delegation=token, life_s=100)
    ranked, end = house.gate.judge(item), house.clock.wall_s() + 1_000
    key = house.key("bob")
    assert house.gate.judge(item, make_lease(house.network, key, ranked, end))
    refused(house, item, ExpiredError, lease=make_lease(house.network, key, ranked, end + 1))


async def test_no_namespace_may_outlive_a_tombstone(open_house):
    from skycore.contracts.namespace import Form, Namespace
    from skycore.errors import PluginError

    for life_s, fits in ((LEASE_LIFETIME_MAX_S, True), (LEASE_LIFETIME_MAX_S + 1, False)):
        slow = Namespace(b"slow", 1, str, Form.SINGLE, {ItemClass.OWNER: life_s})
        if fits:
            async with open_house(namespaces=[slow]):
                pass
        else:
            with pytest.raises(PluginError, match="slow"):
                async with open_house(namespaces=[slow]):
                    pass


# --- keys and signatures that other libraries take ------------------------------------------------


async def test_d12_a_key_that_is_nobodys_signs_nothing(house):
    """Under a small-order key a careless library takes one signature for every message."""
    for point in (b"\x01" + bytes(31), bytes(32), b"\xec" + b"\xff" * 30 + b"\x7f"):
        for r in (b"\x01" + bytes(31), point):
            item = replace(house.item(), signer=point, subject=point, sig=r + bytes(32))
            refused(house, item, InvalidSignatureError)


def test_d12_d13_the_suite_is_strict():
    """Source: ed25519-speccheck, the column of what strict libraries accept."""
    vectors = json.loads((VECTORS / "ed25519_speccheck.json").read_text())["vectors"]
    suite = identity("x").network.suite
    for case in vectors:
        fields = (bytes.fromhex(case[name]) for name in ("public_key", "message", "signature"))
        assert suite.verify(*fields) == case["strict"], case["comment"]


async def test_d13_one_encoding_of_a_signature(house):
    order = 2**252 + 27742317777372353535851937790883648493
    item = house.item()
    s = int.from_bytes(item.sig[32:], "little") + order
    refused(house, replace(item, sig=item.sig[:32] + s.to_bytes(32, "little")),
            InvalidSignatureError)  # fmt: skip


# --- anything at all ------------------------------------------------------------------------------

_bytes = st.binary(max_size=70)
_int = st.integers(min_value=-(2**70), max_value=2**70)


@settings(max_examples=300, deadline=None)
@given(
    st.builds(MutableItem, _bytes, _bytes, _bytes, _int, st.integers(-1, 4), _int, _bytes,
              st.binary(min_size=64, max_size=64)),
    st.none() | st.builds(Lease, _bytes, st.integers(-1, 4), _bytes, _int, _bytes),
)  # fmt: skip
async def test_whatever_comes_only_item_errors_leave(open_house, item, lease):
    async with open_house() as house:
        with pytest.raises(ItemError):
            house.gate.judge(item, lease)


@settings(max_examples=200, deadline=None)
@given(st.data())
async def test_d3_signed_bytes_tell_all_items_apart(data):
    """Encoding is injective: two items that differ anywhere are signed over different bytes."""
    network = identity("x").network
    fields = st.tuples(
        st.binary(min_size=1, max_size=4), st.binary(min_size=1, max_size=4), st.binary(max_size=4),
        st.integers(1, 3), st.integers(0, 2), st.integers(0, 3), st.binary(max_size=4),
    )  # fmt: skip
    one, two = data.draw(fields), data.draw(fields)
    signed = [item_signed_bytes(network, MutableItem(*each)) for each in (one, two)]
    assert (signed[0] == signed[1]) == (one == two)
