"""What every access policy must do. Inherit `AccessPolicyContract` and give it `judged`.

```
class TestMine(AccessPolicyContract):
    @pytest.fixture
    async def judged(self):
        async with open_mine(MySettings(friends=[key.hex()])) as policy:
            yield Judged(policy, operator=key, change=lambda: policy.forget(key))
```
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from skycore.contracts.access import AccessPolicy, Decision, Level
from skycore.guards.access import open_access
from skycore.model.keys import PubKey
from skycore.testing.fakes import identity

__all__ = ["AccessPolicyContract", "Judged"]


@dataclass(frozen=True)
class Judged:
    """A policy, a key that it lets read and operate but not administer, and a way to end that."""

    policy: AccessPolicy
    operator: PubKey
    change: Callable[[], Awaitable[object]]
    """Take all rights from `operator`, while the policy is in use."""


class AccessPolicyContract:
    """The suite."""

    @pytest.fixture
    async def judged(self) -> Judged:
        """Return the policy under test."""
        raise NotImplementedError("give this suite a `judged` fixture")

    async def test_a_level_includes_those_below(self, judged: Judged) -> None:
        """Who may operate may read; who may not administer is not let."""
        decide = judged.policy.decide
        assert decide(judged.operator, Level.READ) is Decision.ALLOW
        assert decide(judged.operator, Level.OPERATE) is Decision.ALLOW
        assert decide(judged.operator, Level.ADMIN) is not Decision.ALLOW

    async def test_r2_strangers_are_not_let_in(self, judged: Judged) -> None:
        """No opinion, or no: never yes by default."""
        stranger = identity("a stranger to every policy").public
        async with open_access((judged.policy,)) as access:
            assert not any(access.allows(stranger, level) for level in Level)

    async def test_r4_only_the_exact_key_is_let_in(self, judged: Judged) -> None:
        """Not a prefix of it, not its text, not one bit beside it."""
        key = bytes(judged.operator)
        near = [key[:-1], key + b"\0", key.hex().encode(), key.hex().upper().encode(), b""]
        near += [bytes((key[0] ^ 1,)) + key[1:], key[:-1] + bytes((key[-1] ^ 0x80,))]
        for other in near:
            assert judged.policy.decide(PubKey(other), Level.READ) is not Decision.ALLOW

    async def test_it_answers_at_once_and_alike(self, judged: Judged) -> None:
        """Asked on every call, so it must be a plain function of what it knows."""
        first = judged.policy.decide(judged.operator, Level.READ)
        assert isinstance(first, Decision)
        assert judged.policy.decide(judged.operator, Level.READ) is first

    async def test_r5_it_tells_of_changes(self, judged: Judged) -> None:
        """Open streams are judged again when it does; the new answer stands by then."""
        told = []
        with judged.policy.on_change(
            lambda: told.append(judged.policy.decide(judged.operator, Level.READ))
        ):
            await judged.change()
        assert told and told[-1] is not Decision.ALLOW

    async def test_it_tells_nobody_who_has_stopped_listening(self, judged: Judged) -> None:
        """A callback that outlived its part would call into a part that is gone."""
        told = []
        with judged.policy.on_change(lambda: told.append(1)):
            pass
        await judged.change()
        assert not told
