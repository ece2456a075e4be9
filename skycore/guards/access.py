"""All opinions on who may do what, folded into one answer: default deny.

Any DENY wins, else any ALLOW, else the answer is no. Without a policy nobody remote may do
anything (R2).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager

from skycore.contracts.access import Access, AccessPolicy, Decision, Level
from skycore.model.keys import PubKey

__all__ = ["open_access"]


class _Access:
    def __init__(self, policies: Sequence[AccessPolicy]) -> None:
        self._policies = policies

    def allows(self, peer: PubKey, level: Level) -> bool:
        allowed = False
        for policy in self._policies:
            decision = policy.decide(peer, level)
            if decision is Decision.DENY:
                return False
            allowed = allowed or decision is Decision.ALLOW
        return allowed

    def on_change(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        return self._told(callback)

    @contextmanager
    def _told(self, callback: Callable[[], None]) -> Iterator[None]:
        with ExitStack() as stack:
            for policy in self._policies:
                stack.enter_context(policy.on_change(callback))
            yield


@asynccontextmanager
async def open_access(policies: tuple[AccessPolicy, ...]) -> AsyncIterator[Access]:
    """Fold the policies of all plugins."""
    yield _Access(policies)
