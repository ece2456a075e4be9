"""Facts on their way out: by what right, as what item, and whether anything must be sent at all.

Pure but for the key that signs. `Planner.plan` is cheap, because most facts of a heartbeat have not
changed and end there; `plant` and `sign` are for those that have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum

from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact
from skycore.contracts.runtime import Identity
from skycore.errors import ItemError, NotAuthorisedError, SaltTooBigError, ValueTooBigError
from skycore.model.items import (
    Delegation,
    ItemClass,
    Kind,
    Lease,
    MutableItem,
    item_digest,
    item_signed_bytes,
    lease_bytes,
    make_item,
    mutable_item_target,
)
from skycore.model.keys import short
from skycore.model.limits import (
    CLOCK_SKEW_MAX_S,
    SALT_MAX,
    SUBJECT_MAX,
    TOMBSTONE_LIFETIME_S,
    TREE_BYTES_MAX,
)
from skycore.model.trie import Tree

__all__ = ["Plan", "Planner", "Record", "Step"]

_FOREVER_S = 2**62


class Step(Enum):
    """What an unchanged or changed fact needs."""

    NOTHING = "nothing"
    LEASE = "lease"
    SIGN = "sign"


@dataclass
class Record:
    """What was published last of a subject and salt: enough to know it again and to prolong it."""

    content: bytes
    seq: int
    digest: bytes
    until: int
    until_max: int
    """Where its delegation ends."""
    mirrors: frozenset[str]
    """Names of those that took it."""
    is_confirmed: bool = True
    """Whether they said so since this node began; else it was read from disk."""


@dataclass(frozen=True)
class Plan:
    """A fact with its subject, its right and its class."""

    fact: Fact
    subject: bytes
    item_class: ItemClass
    delegation: Delegation | None
    lifetime_s: int
    content: bytes
    """SHA256 of all that a reader could see."""

    @property
    def target(self) -> bytes:
        """Where the record lives: what tells records apart."""
        return mutable_item_target(self.subject, self.fact.salt)

    @property
    def until_max(self) -> int:
        """Where the delegation ends."""
        return self.delegation.until if self.delegation else _FOREVER_S

    def step(self, record: Record | None, mirrors: AbstractSet[str], now_s: int) -> Step:
        """Return what is needed, given what was published before and who is there now."""
        if (
            record is None
            or record.content != self.content
            or record.until <= now_s
            or not mirrors <= record.mirrors
        ):
            return Step.SIGN
        is_sure = record.is_confirmed and not self.fact.doubted
        if self.fact.v is None:  # no lease can ask whether what was read from disk is still so
            return Step.NOTHING if is_sure else Step.SIGN
        half_s = self.lifetime_s // 2
        if record.until > now_s + self.lifetime_s + CLOCK_SKEW_MAX_S:
            return Step.SIGN  # stamped while our clock ran ahead: nobody else has taken that
        if not is_sure:
            return Step.LEASE
        if record.until - now_s > half_s:
            return Step.NOTHING
        if self.leased_until(record, now_s) - now_s > half_s:
            return Step.LEASE
        return Step.SIGN if min(now_s + half_s, self.until_max) > record.until else Step.NOTHING

    def leased_until(self, record: Record, now_s: int) -> int:
        """Return how far a lease can reach: no item outlives the delegation it was signed with."""
        return min(now_s + self.lifetime_s, record.until_max)


class Planner:
    """Know our rights; make items and leases."""

    def __init__(
        self, identity: Identity, namespaces: Namespaces, delegations: Sequence[Delegation]
    ) -> None:
        self._identity = identity
        self._namespaces = namespaces
        self._delegations = tuple(delegations)

    def plan(self, fact: Fact, delegations: Sequence[Delegation], now_s: int) -> Plan:
        """Return the plan of a fact. Raises `NotAuthorisedError` and what is wrong with sizes."""
        own = self._identity.public
        subject = own if fact.subject is None else fact.subject
        _check_sizes(subject, fact)
        token, item_class = None, ItemClass.OWNER
        if subject != own:
            token = self._right(subject, fact.salt, (*delegations, *self._delegations), now_s)
            item_class = ItemClass.DELEGATE if token.issuer == subject else ItemClass.MIRROR
        lifetime_s = self._namespaces.lifetime_s(fact.salt, item_class)
        if not lifetime_s:
            raise NotAuthorisedError(
                f"no {item_class.name.lower()} may sign under salt {fact.salt[:40]!r}"
            )
        return Plan(fact, subject, item_class, token, lifetime_s, _content(subject, fact))

    def _right(
        self, subject: bytes, salt: bytes, tokens: Sequence[Delegation], now_s: int
    ) -> Delegation:
        """Return the best delegation: the subject's own before the authority's, then the longest.

        Why the order: a delegate's item wins over a mirror's.
        """
        authority = self._identity.network.authority
        fitting = [
            token
            for token in tokens
            if token.delegate == self._identity.public
            and token.salt == salt
            and token.until > now_s
            and (token.issuer == subject or (authority is not None and token.issuer == authority))
        ]
        if not fitting:
            raise NotAuthorisedError(
                f"{short(subject)} is not this node, and no delegation covers it",
                hint="get one with `skynode network delegate`, for this key and this salt",
            )
        return max(fitting, key=lambda token: (token.issuer == subject, token.until))

    def mirrors_until(self, salt: bytes) -> int:
        """Return until when the authority lets us speak for anybody under a salt; 0: never."""
        authority = self._identity.network.authority
        ends = [
            token.until
            for token in self._delegations
            if token.delegate == self._identity.public
            and token.salt == salt
            and authority is not None
            and token.issuer == authority
        ]
        return max(ends, default=0)

    def plant(self, plan: Plan) -> Tree | None:
        """Check the value against its namespace; return its tree if it stands in blocks.

        Raises `NamespaceError`, `ValueTooBigError`.
        """
        if plan.fact.v is None:
            return None
        return self._namespaces.plant(plan.fact.salt, plan.subject, plan.fact.v)

    def sign(self, plan: Plan, tree: Tree | None, seq: int, now_s: int) -> MutableItem:
        """Return the signed item. `now_s` is the time its life begins."""
        is_deleted = plan.fact.v is None
        longest_s = seq // 10**9 + TOMBSTONE_LIFETIME_S if is_deleted else now_s + plan.lifetime_s
        kind = Kind.MANIFEST if tree else Kind.TOMBSTONE if is_deleted else Kind.VALUE
        return make_item(
            self._identity.network,
            self._identity.secret,
            subject=plan.subject,
            salt=plan.fact.salt,
            seq=seq,
            kind=kind,
            until=min(longest_s, plan.until_max),
            v=tree.manifest if tree else plan.fact.v or b"",
            delegation=plan.delegation,
        )

    def record(self, plan: Plan, item: MutableItem, mirrors: frozenset[str]) -> Record:
        """Return what to remember of an item that was taken."""
        digest = item_digest(item_signed_bytes(self._identity.network, item))
        return Record(plan.content, item.seq, digest, item.until, plan.until_max, mirrors)

    def lease(self, plan: Plan, record: Record, until: int) -> Lease:
        """Return a lease for what was published."""
        sig = self._identity.sign(lease_bytes(self._identity.network, record.digest, until))
        return Lease(plan.target, int(plan.item_class), record.digest, until, sig)


def _check_sizes(subject: bytes, fact: Fact) -> None:
    if fact.v is not None and len(fact.v) > TREE_BYTES_MAX:
        raise ValueTooBigError(
            f"a value has {TREE_BYTES_MAX} bytes at most, this has {len(fact.v)}",
            hint="nothing of it was published",
        )
    if len(fact.salt) > SALT_MAX:
        raise SaltTooBigError(f"a salt has {SALT_MAX} bytes at most, this has {len(fact.salt)}")
    if not 1 <= len(subject) <= SUBJECT_MAX:
        raise ItemError(f"a subject has 1 to {SUBJECT_MAX} bytes, this has {len(subject)}")


def _content(subject: bytes, fact: Fact) -> bytes:
    head = bytes((len(subject),)) + subject + bytes((len(fact.salt),)) + fact.salt
    value = b"\0" if fact.v is None else b"\1" + fact.v
    return hashlib.sha256(head + value).digest()
