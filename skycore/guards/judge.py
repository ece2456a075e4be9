"""The judge: whether an item may be believed, from the item, the clock and the network alone.

Why nothing else: what depends on a node's own lists is decided differently by every node, and then
two stores that saw the same items hold different ones (C1, C8, L15). Room and rates are another
matter (`skycore.guards.quota`). The order is from cheap to dear, so that junk costs little: sizes,
seq, kind, right to sign, lifetime, namespace, and signatures last. No I/O; `verify` may run in a
thread. Source of every rule: docs/protocols/items.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from skycore.contracts.namespace import Namespaces
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
    Delegation,
    ItemClass,
    Kind,
    Lease,
    MutableItem,
    RankedItem,
    delegation_bytes,
    item_digest,
    item_rank,
    item_signed_bytes,
    lease_bytes,
    mutable_item_target,
)
from skycore.model.keys import PubKey
from skycore.model.limits import (
    CLOCK_SKEW_MAX_S,
    DELEGATION_LIFETIME_MAX_S,
    LEASE_LIFETIME_MAX_S,
    SALT_MAX,
    SEQ_MAX,
    SET_INLINE_MAX,
    SUBJECT_MAX,
    TOMBSTONE_LIFETIME_S,
    VALUE_MAX,
)
from skycore.model.manifest import Manifest, read_manifest
from skycore.model.network import NetworkConstants

__all__ = ["Check", "Claim", "Evidence", "Judge", "sort_class"]

_NS = 10**9
_SKEW_NS = CLOCK_SKEW_MAX_S * _NS
_KINDS = frozenset(Kind)
DELEGATIONS_REMEMBERED_MAX = 4_096


class Claim(NamedTuple):
    """An item in good form. All that is left to check is dear: its value and its signatures."""

    item: MutableItem
    item_class: ItemClass
    target: bytes
    lease: Lease | None = None


Check = tuple[bytes, bytes, bytes]
"""Public key, message, signature."""


class Evidence(NamedTuple):
    """A claim whose value fits, and the signatures that would prove it."""

    claim: Claim
    signed: bytes
    digest: bytes
    checks: tuple[Check, ...]


def sort_class(network: NetworkConstants, item: MutableItem) -> ItemClass:
    """Return by what right the signer claims to speak. Raises `NotAuthorisedError`.

    Claims: the delegation's signature is checked later. An owner's item carries no delegation,
    because what is not signed must not be able to vary.
    """
    token = item.delegation
    if token is None:
        if item.signer != item.subject:
            raise NotAuthorisedError("the signer is not the subject and shows no delegation")
        return ItemClass.OWNER
    if item.signer == item.subject:
        raise NotAuthorisedError("an item of its own subject carries no delegation")
    if token.delegate != item.signer or token.salt != item.salt:
        raise NotAuthorisedError("the delegation is for another key or another salt")
    if token.issuer == item.subject:
        return ItemClass.DELEGATE
    if network.authority is not None and token.issuer == network.authority:
        return ItemClass.MIRROR
    raise NotAuthorisedError("the delegation is neither the subject's nor the network authority's")


class Judge:
    """Judge items and leases of one network."""

    def __init__(self, network: NetworkConstants, own: PubKey, namespaces: Namespaces) -> None:
        self._network = network
        self._suite = network.suite
        self._own = own
        self._namespaces = namespaces
        self._lifetimes_s = {
            (namespace.salt, item_class): namespaces.lifetime_s(namespace.salt, item_class)
            for namespace in namespaces
            for item_class in ItemClass
        }
        self._proven: dict[Delegation, None] = {}
        self._proven_before: dict[Delegation, None] = {}

    # --- cheap: on the loop, for every item ------------------------------------------------------

    def look(self, item: MutableItem, lease: Lease | None, now_ns: int) -> Claim:
        """Check everything that costs next to nothing. Raises the `ItemError` that says why not.

        Our own key is exempt from "too far ahead" alone: with our clock set back we must still be
        able to write what all others will accept (C13), and nobody else can sign with it.
        """
        self._check_sizes(item)
        self._check_seq(item, now_ns)
        _check_until(item.until)
        if lease is not None:
            _check_until(lease.until)
        item_class = sort_class(self._network, item)
        target = mutable_item_target(item.subject, item.salt)
        if lease is not None and lease.until <= item.until:
            lease = None
        self._check_life(item, item_class, lease, now_ns)
        if lease is not None:
            self._check_lease_form(item, item_class, target, lease, now_ns)
        return Claim(item, item_class, target, lease)

    def _check_sizes(self, item: MutableItem) -> None:
        if len(item.v) > VALUE_MAX:
            raise ValueTooBigError(f"a value has {VALUE_MAX} bytes at most, this has {len(item.v)}")
        if len(item.salt) > SALT_MAX:
            raise SaltTooBigError(f"a salt has {SALT_MAX} bytes at most, this has {len(item.salt)}")
        if not 1 <= len(item.subject) <= SUBJECT_MAX:
            raise ItemError(f"a subject has 1 to {SUBJECT_MAX} bytes, this has {len(item.subject)}")
        if len(item.signer) != self._suite.public_bytes:
            raise InvalidSignatureError(f"the signer is no {self._suite.name} key: wrong length")
        if len(item.sig) != self._suite.signature_bytes:
            raise InvalidSignatureError("the signature has the wrong length")
        if item.kind.__class__ not in (int, Kind) or item.kind not in _KINDS:
            raise ItemError(f"there is no kind {item.kind!r:.20} of item")

    def _check_seq(self, item: MutableItem, now_ns: int) -> None:
        seq = item.seq
        if seq.__class__ is not int or not 1 <= seq <= SEQ_MAX:
            raise SeqTooFarError("seq is a whole number from 1 to 2^63-1")
        if seq > now_ns + _SKEW_NS and item.signer != self._own:
            ahead_s = (seq - now_ns) // _NS
            raise SeqTooFarError(
                f"seq lies {ahead_s} s ahead of this node's clock, not {CLOCK_SKEW_MAX_S} at most",
                hint="one of the two clocks is wrong",
            )

    def _check_life(
        self, item: MutableItem, item_class: ItemClass, lease: Lease | None, now_ns: int
    ) -> None:
        until, now_s = item.until, now_ns // _NS
        if until <= now_s and (lease is None or lease.until <= now_s):
            raise ExpiredError(f"the item's life ended {now_s - until} s ago")
        lifetime_s = self._lifetime_s(item.salt, item_class)
        if item.kind == Kind.TOMBSTONE:
            if until > item.seq // _NS + TOMBSTONE_LIFETIME_S:
                raise ExpiredError("a tombstone lives until 7 days after its signing (its seq)")
        elif until > now_s + lifetime_s + CLOCK_SKEW_MAX_S and item.signer != self._own:
            raise ExpiredError(f"an item of this class and salt lives {lifetime_s} s at most")
        if item.delegation is not None:
            _check_delegation_life(item.delegation, until, now_s)

    def _lifetime_s(self, salt: bytes, item_class: ItemClass) -> int:
        lifetime_s = self._lifetimes_s.get((salt, item_class))
        if lifetime_s is None:
            lifetime_s = self._namespaces.lifetime_s(salt, item_class)
        if not lifetime_s:
            raise NotAuthorisedError(f"no {item_class.name.lower()} may sign under this salt")
        return lifetime_s

    def _check_lease_form(
        self, item: MutableItem, item_class: ItemClass, target: bytes, lease: Lease, now_ns: int
    ) -> None:
        if lease.target != target or lease.item_class != item_class:
            raise InvalidSignatureError("the lease is for another item")
        self.check_lease(item, lease, now_ns)

    def check_lease(self, item: MutableItem, lease: Lease, now_ns: int) -> ItemClass:
        """Check what a lease promises for an item, not its signature; return the item's class.

        Raises `ItemError`s.
        """
        item_class = sort_class(self._network, item)
        now_s = now_ns // _NS
        if len(lease.sig) != self._suite.signature_bytes or len(lease.digest) != 32:
            raise InvalidSignatureError("the lease's signature or digest has the wrong length")
        _check_until(lease.until)
        if lease.until <= now_s:
            raise ExpiredError("the lease is over")
        if item.kind == Kind.TOMBSTONE:
            raise ExpiredError("a tombstone takes no lease")
        longest_s = min(self._lifetime_s(item.salt, item_class), LEASE_LIFETIME_MAX_S)
        if lease.until > now_s + longest_s + CLOCK_SKEW_MAX_S and item.signer != self._own:
            raise ExpiredError(f"a lease for this class and salt lasts {longest_s} s at most")
        if item.delegation is not None:
            _check_delegation_life(item.delegation, lease.until, now_s)
        return item_class

    # --- dear: value, bytes and signatures -------------------------------------------------------

    def prepare(self, claim: Claim) -> Evidence:
        """Check value and delegation, and say which signatures are left to check.

        Raises `ItemError`s. A delegation is checked here, once while it is in use.
        """
        item, lease = claim.item, claim.lease
        self._check_value(item)
        if item.delegation is not None:
            self._prove_delegation(item.delegation)
        signed = item_signed_bytes(self._network, item)
        digest = item_digest(signed)
        if lease is None:
            return Evidence(claim, signed, digest, ((item.signer, signed, item.sig),))
        checks = (item.signer, signed, item.sig), self.lease_check(item.signer, digest, lease)
        return Evidence(claim, signed, digest, checks)

    def lease_check(self, signer: bytes, digest: bytes, lease: Lease) -> Check:
        """Return the check of a lease for the item with this digest."""
        if lease.digest != digest:
            raise InvalidSignatureError("the lease is for another item")
        return signer, lease_bytes(self._network, digest, lease.until), lease.sig

    def verify(self, checks: Iterable[Check]) -> list[bool]:
        """Check signatures: nothing else, so that it runs in a thread without holding others up."""
        verify = self._suite.verify
        return [verify(public, message, sig) for public, message, sig in checks]

    def rank(
        self,
        evidence: Evidence,
        verdicts: Sequence[bool],
        sender: bytes,
        now_ns: int,
        cas: int | None,
    ) -> RankedItem:
        """Return the item ready for a store. Raises `InvalidSignatureError`.

        The rank covers all that is not in the signed bytes, or stores that saw the same items
        could keep different ones: the signature, and a delegation's after it.
        """
        claim, signed, digest, _ = evidence
        item = claim.item
        if not verdicts[0]:
            raise InvalidSignatureError("the signature is not the signer's over this item")
        if not all(verdicts):
            raise InvalidSignatureError("the lease is not signed by the item's signer")
        proof = item.sig if item.delegation is None else item.sig + item.delegation.sig
        rank = item_rank(item.seq, signed, proof)
        return RankedItem(claim.target, claim.item_class, rank, digest, item, sender, now_ns, cas)

    def _check_value(self, item: MutableItem) -> None:
        """Check what stands in the item itself.

        The blocks that a manifest stands on are looked for when its signature is known to be good.
        """
        if item.kind == Kind.VALUE:
            self._namespaces.check(item.salt, item.subject, item.v)
        elif item.kind == Kind.MANIFEST:
            self._check_manifest(item.salt, read_manifest(item.v))
        elif item.v:
            raise NamespaceError("a tombstone carries no value")

    def _check_manifest(self, salt: bytes, manifest: Manifest) -> None:
        """Refuse what its tree could not make right."""
        namespace = self._namespaces.find(salt)
        least = SET_INLINE_MAX if namespace is None else namespace.inline_max
        if manifest.bytes <= least:
            raise NamespaceError(f"a value of {manifest.bytes} bytes stands in the item itself")
        if namespace is not None and manifest.version != namespace.version:
            raise NamespaceError(
                f"namespace {salt!r} is at version {namespace.version}, not {manifest.version}"
            )

    def _prove_delegation(self, token: Delegation) -> None:
        """Check a delegation's signature, once while it is in use.

        The memory has two generations: when the younger is full it becomes the older, so what is
        used stays and the whole is bounded.
        """
        if token in self._proven:
            return
        if token not in self._proven_before and not self._suite.verify(
            token.issuer, delegation_bytes(self._network, token), token.sig
        ):
            raise InvalidSignatureError("the delegation is not signed by its issuer")
        if len(self._proven) >= DELEGATIONS_REMEMBERED_MAX // 2:
            self._proven, self._proven_before = {}, self._proven
        self._proven[token] = None


def _check_until(until: int) -> None:
    if until.__class__ is not int or not 0 <= until < 2**63:
        raise ExpiredError("until is a whole number of Unix seconds")


def _check_delegation_life(token: Delegation, until: int, now_s: int) -> None:
    if token.until.__class__ is not int or not 0 <= token.until < 2**63:
        raise NotAuthorisedError("a delegation's until is a whole number of Unix seconds")
    if token.until <= now_s:
        raise NotAuthorisedError(f"the delegation ended {now_s - token.until} s ago")
    if token.until > now_s + DELEGATION_LIFETIME_MAX_S + CLOCK_SKEW_MAX_S:
        raise NotAuthorisedError("a delegation lasts 30 days at most")
    if until > token.until:
        raise ExpiredError("an item does not outlive its delegation")
