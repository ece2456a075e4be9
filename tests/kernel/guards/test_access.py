"""The access guard: any no, else any yes, else no."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import product

import pytest

from skycore.contracts.access import Decision, Level
from skycore.guards.access import open_access
from skycore.testing.fakes import identity

ALICE = identity("alice").public


class Policy:
    def __init__(self, decision):
        self.decision = decision
        self.callbacks = []

    def decide(self, peer, level):
        return self.decision

    @contextmanager
    def on_change(self, callback):
        self.callbacks.append(callback)
        try:
            yield
        finally:
            self.callbacks.remove(callback)


async def test_r2_without_a_policy_nobody_may_anything():
    async with open_access(()) as access:
        assert not any(access.allows(ALICE, level) for level in Level)


@pytest.mark.parametrize("decisions", list(product(Decision, repeat=3)))
async def test_any_no_wins_then_any_yes_then_no(decisions):
    async with open_access(tuple(Policy(d) for d in decisions)) as access:
        expected = Decision.DENY not in decisions and Decision.ALLOW in decisions
        assert access.allows(ALICE, Level.READ) is expected


async def test_changes_of_every_policy_are_told_while_somebody_listens():
    policies = Policy(Decision.ALLOW), Policy(Decision.ABSTAIN)
    async with open_access(policies) as access:
        told = []
        with access.on_change(lambda: told.append(1)):
            for policy in policies:
                for callback in policy.callbacks:
                    callback()
        assert told == [1, 1]
        assert not any(policy.callbacks for policy in policies)
