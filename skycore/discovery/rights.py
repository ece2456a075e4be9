"""By what right a service publishes for others, until when, and which command gives it one.

Why long before the end: records that a delegation covers end with it, all at once, and readers then
find nothing. A person has to fetch the next one, so he is told days ahead.
"""

from __future__ import annotations

from typing import Final

from skycore.contracts.publish import Publisher
from skycore.contracts.runtime import Clock, Identity

__all__ = ["Right"]

SOON_S: Final = 3 * 86_400
_HOUR_S: Final = 3_600


class Right:
    """What lets this node publish under a salt for subjects that are not itself."""

    def __init__(self, publisher: Publisher, identity: Identity, clock: Clock, salt: bytes) -> None:
        self._publisher = publisher
        self._identity = identity
        self._clock = clock
        self._salt = salt

    def left_s(self) -> int:
        """Return for how many seconds it lasts; 0: there is none."""
        return max(0, self._publisher.mirrors_until(self._salt) - self._clock.wall_s())

    def note(self) -> str:
        """Return what a person should know now; empty: nothing."""
        left_s = self.left_s()
        if not 0 < left_s < SOON_S:
            return ""
        return (
            f"the delegation for {self._name} ends in {left_s // _HOUR_S} h, and with it all that"
            f" is published: {self.how_to_get_one()}"
        )

    def how_to_get_one(self) -> str:
        """Return what to do for a new one."""
        if self._identity.network.authority is None:
            return (
                "this network has no authority that could let this node publish of others:"
                " `skynode network new` founds one that has; or set feed = false"
            )
        key = self._identity.public.hex()
        return (
            f"where the network's authority is: `skynode network delegate {key} --salt"
            f" {self._name}`; add what it prints to [publisher] delegations here, and restart"
        )

    @property
    def _name(self) -> str:
        return self._salt.decode(errors="replace")
