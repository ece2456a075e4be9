"""C50: what an empty configuration protects: the table of docs/protocols/items.md is the truth."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest

from skycore.contracts.access import Access
from skycore.contracts.store import Outcome, Usage
from skycore.errors import QuotaError
from skycore.events import Events
from skycore.guards.gate import GateSettings, open_gate
from skycore.guards.quota import Growth, Quotas
from skycore.model.keys import PubKey
from skycore.node import KERNEL_SECTIONS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "protocols" / "items.md").read_text()
STORED = int(Outcome.STORED)
REFUSED = QuotaError.code
MANY = 10**6


def policy():
    """Return the table's rows: whose record -> (account, items, bytes), None for no bound."""
    _, _, section = PAGE.partition("## Default policy")
    rows = [[c.strip() for c in row.strip("|").split("|")]
            for row in re.findall(r"^\|.*\|$", section.partition("\n## ")[0], re.M)]  # fmt: skip
    bound = {"all": None, "as its signer's": None}
    return {r[0]: (r[1], *(bound[c] if c in bound else int(c) for c in r[2:4])) for r in rows[2:]}


POLICY = policy()


def item_of(house, whose):
    """Return an item that a row is about, ranked as the gate does."""
    if whose == "this node's own":
        return house.gate.judge(house.item("me"))
    if whose == "owner's":
        return house.gate.judge(house.item("mallory"))
    if whose == "under an undeclared salt":
        return house.gate.judge(house.item("mallory", salt=b"undeclared"))
    issuer = {"delegate's": "alice", "mirror's": "authority"}[whose]
    right = house.delegation(issuer, "mallory")
    item = house.item("mallory", subject=house.public("alice"), delegation=right)
    return house.gate.judge(item)


@pytest.mark.parametrize("whose", POLICY)
async def test_c50_the_default_bounds_are_those_of_the_table(house, whose):
    account, items, size = POLICY[whose]
    quotas = Quotas(GateSettings(), PubKey(house.me.public), house.namespaces, Events())
    ranked = item_of(house, whose)
    signer = ranked.item.signer
    assert ranked.account == {
        "nobody": signer, "the signer": signer, "the signer as a mirror": signer + b"*",
    }[account]  # fmt: skip
    if whose == "under an undeclared salt":
        quotas.refresh({b"undeclared": Usage(items - 1, 0)})
        quotas.check(ranked, Growth(1, 1), Usage(0, 0))
        quotas.refresh({b"undeclared": Usage(items, 0)})
        with pytest.raises(QuotaError, match="undeclared"):
            quotas.check(ranked, Growth(1, 1), Usage(0, 0))
        quotas.refresh({b"note": Usage(items, 0)})  # what is declared does not count there
        quotas.check(ranked, Growth(1, 1), Usage(0, 0))
        return
    for used, more, bound in (
        (Usage(items or MANY, 0), Growth(1, 0), items),
        (Usage(0, size or MANY), Growth(0, 1), size),
    ):
        if bound is None:
            quotas.check(ranked, more, used)
            continue
        quotas.check(ranked, more, Usage(max(used.items - 1, 0), max(used.bytes - 1, 0)))
        with pytest.raises(QuotaError):
            quotas.check(ranked, more, used)


async def test_c50_a_signer_over_its_bound_takes_no_place_of_ours_or_of_others(house):
    """The same story on a whole gate with nothing configured: each row by its outcome."""
    bound = POLICY["owner's"][1]
    own = [house.item("me", salt=b"own/%d" % n, v=b"") for n in range(5)]
    assert await house.put(*own, sender="me") == [STORED] * 5
    assert await house.put(house.item("alice")) == [STORED]
    before = await house.contents()
    flood = [house.item("mallory", salt=b"flood/%d" % n, v=b"") for n in range(bound + 5)]
    assert await house.put(*flood, sender="mallory") == [STORED] * bound + [REFUSED] * 5
    as_delegate = house.item(
        "mallory", subject=house.public("bob"), delegation=house.delegation("bob", "mallory")
    )
    assert await house.put(as_delegate, sender="mallory") == [REFUSED]  # one account
    as_mirror = house.item(
        "mallory", subject=house.public("bob"), delegation=house.delegation("authority", "mallory")
    )
    assert await house.put(as_mirror, sender="mallory") == [STORED]  # another
    assert await house.put(house.item("bob"), sender="mallory") == [STORED]  # the sender's is none
    more = [house.item("me", salt=b"more/%d" % n, v=b"") for n in range(bound + 5)]
    assert await house.put(*more, sender="mallory") == [STORED] * (bound + 5)
    held = await house.contents()
    assert {key: held.get(key) for key in before} == before


async def test_c50_what_is_full_keeps_its_own_and_all_that_lives(open_house):
    async with open_house(items_max=10) as house:
        first = [house.item(f"k{n}") for n in range(10)]
        assert await house.put(*first) == [STORED] * 10
        before = await house.contents()
        assert await house.put(*[house.item(f"late {n}") for n in range(20)]) == [REFUSED] * 20
        assert await house.put(house.item("me"), sender="me") == [STORED]
        held = await house.contents()
        assert {key: held[key] for key in before} == before


def test_c50_no_profile_changes_the_policy():
    for profile in (ROOT / "skycore" / "profiles").glob("*.toml"):
        assert "gate" not in tomllib.loads(profile.read_text())


def test_c50_no_list_of_keys_has_a_say():
    """The gate is not told who may call, and no setting of it takes a key."""
    annotations = inspect.get_annotations(open_gate, eval_str=True).values()
    assert Access not in annotations
    assert all(f.annotation in (int, float) for f in GateSettings.model_fields.values())
    # the one setting of the kernel with tokens in it is about what this node itself may sign
    assert KERNEL_SECTIONS["publisher"]().delegations == ()
