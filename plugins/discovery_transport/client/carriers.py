"""Both sides together: who carries this node's transports, and the loops that see to it.

Why three loops: registering must go on while the DHT hangs, publishing while the service hangs, and
somebody must notice that proof grew old while both hang. Each changes the evidence and nothing
else; who carries follows from it (core/handover.py).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any, Final

import anyio
import msgspec

from discovery_transport.client.core.handover import Evidence, Limits, Verdict, judge
from discovery_transport.client.own import OwnTransports
from discovery_transport.client.publication import Publication
from discovery_transport.client.registrar import Registrar
from discovery_transport.client.settings import TransportDiscoverySettings
from skycore.contracts.runtime import Clock
from skycore.contracts.transport import Transport
from skycore.discovery.registering import Registration, leave_all
from skycore.errors import DiscoveryError, SkycoreError
from skycore.tasks import every

__all__ = ["Carriers"]

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0
"""How often the list and the age of the proof are looked at."""
CYCLE_S_MAX: Final = 50.0
"""A cycle that takes longer is given up: less than the time between two."""


class Carriers:
    """Publishes, registers, and hands over between the two."""

    def __init__(
        self,
        settings: TransportDiscoverySettings,
        own: OwnTransports,
        registrar: Registrar | None,
        publication: Publication | None,
        clock: Clock,
        dice: random.Random,
    ) -> None:
        self.own, self.registrar, self.publication = own, registrar, publication
        self.limits = Limits(
            holders_min=settings.full_nodes_min,
            read_age_max_s=1.5 * settings.publish_s,
            check_s=settings.http_check_s,
            check_late_s=1.5 * settings.publish_s,
        )
        self.seen = Evidence()
        self.rested = 0
        """Rounds in which no registration was sent, because the DHT carries."""
        self.changes = 0
        """How often another side took over."""
        self._may_hand_over = settings.hand_over
        self._clock = clock
        self._carried_by_dht = False
        leave = None if registrar is None else registrar.leave
        self.registration = Registration(
            self._register, leave, dice=dice, name="registration of transports",
            interval_s=settings.register_s, debounce_s=settings.debounce_s,
        )  # fmt: skip
        withdraw = None if publication is None else publication.withdraw
        self.publishing = Registration(
            self._cycle, withdraw, dice=dice, name="publication of transports",
            interval_s=settings.publish_s, debounce_s=settings.debounce_s,
        )  # fmt: skip

    # --- what others see -------------------------------------------------------------------------

    @property
    def verdict(self) -> Verdict:
        """Return who carries now, by the evidence."""
        if self.registrar is None or self.publication is None or not self._may_hand_over:
            return Verdict(False, "", check_due=False)
        return judge(self.seen, self.limits, self._clock.now())

    # --- loops -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Go on until cancelled."""
        async with anyio.create_task_group() as tasks:
            if self.registrar is not None:
                tasks.start_soon(self.registration.run)
            if self.publication is not None:
                tasks.start_soon(self.publishing.run)
            await every(LOOK_S, self._look, name="own transports")

    async def leave(self) -> None:
        """Take back what was told: the node stops."""
        await leave_all(self.registration, self.publishing)

    def changed(self, transport: Transport, is_up: bool) -> None:
        """Learn that a transport came or went."""
        self._note_list()

    async def _look(self) -> None:
        self._note_list()
        self._settle()

    def _note_list(self) -> None:
        """Note a change of the list: whoever carried it as it was does not carry it as it is."""
        if self.own.look():
            self.note(version=self.own.version, count=len(self.own.entries))
            self.publishing.nudge()
            self.registration.nudge()

    def note(self, **seen: Any) -> None:
        """Add to the evidence."""
        self.seen = msgspec.structs.replace(self.seen, **seen)
        self._settle()

    def _settle(self) -> None:
        """See whether another side carries now; where proof is lost, register at once."""
        verdict = self.verdict
        if verdict.is_handed_over == self._carried_by_dht:
            return
        self._carried_by_dht = verdict.is_handed_over
        self.changes += 1
        if verdict.is_handed_over:
            log.info("handed over: the DHT carries transports=%d", self.seen.count)
        else:
            log.info("taken back: registering over HTTP reason=%r", verdict.why)
            self.registration.nudge()

    # --- HTTP ------------------------------------------------------------------------------------

    async def _register(self) -> None:
        assert self.registrar is not None
        self._note_list()
        if self.verdict.is_handed_over:
            self.rested += 1
            return
        await self.registrar.register()

    async def _check(self) -> None:
        """See whether the service lists every transport, out of the record that full nodes hold."""
        assert self.registrar is not None
        version, seq = self.own.version, self.seen.seq
        ids = {entry.t_id for entry in self.own.entries}
        try:
            listed = await self.registrar.look()
        except SkycoreError as bad:
            self.note(checked_version=-1, check_trouble=str(bad))
            return
        if missing := len(ids - listed.ids):
            trouble = f"{missing} of {len(ids)} transports are missing from the service"
        elif gone := listed.ids - ids:  # told by a clock that runs ahead of ours: no record of
            trouble = f"the service lists {len(gone)} that are gone"  # ours takes them away
            self.registrar.expect(gone)
            self.registration.nudge()
        elif listed.seq != seq:
            trouble = "the service does not have them from the DHT (yet)"
        else:
            self.note(checked_version=version, checked_at=self._clock.now(), check_trouble="")
            return
        self.note(checked_version=-1, check_trouble=trouble)

    # --- DHT -------------------------------------------------------------------------------------

    async def _cycle(self) -> None:
        """Publish, read back, and see whether the service has it: one round of proof."""
        with anyio.move_on_after(CYCLE_S_MAX) as limit:
            await self._prove()
        if limit.cancelled_caught:
            raise DiscoveryError(f"publishing took longer than {CYCLE_S_MAX:g} s")

    async def _prove(self) -> None:
        assert self.publication is not None
        self._note_list()
        version, entries = self.own.version, self.own.entries
        try:
            seq = await self.publication.publish(entries)
        except SkycoreError:
            self.note(seq=0)
            raise
        if seq != self.seen.seq:  # the service was seen to have it from another record
            self.note(checked_version=-1, check_trouble="")
        self.note(published_version=version, seq=seq)
        if not seq or self.registrar is None or not self._may_hand_over:
            return
        back = await self.publication.read_back(seq, self.limits.holders_min)
        now = self._clock.now()
        ends_at = now + back.until_s - self._clock.wall_s()
        self.note(read_seq=seq, read_at=now, holders=back.holders, ends_at=ends_at)
        if self.verdict.check_due:
            await self._check()

    # --- status ----------------------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        """Return what keeps the transports from being known where they should be; or nothing."""
        told = []
        if self.registrar is not None and self.registration.state.trouble:
            told.append(f"not registered over HTTP: {self.registration.state.trouble}")
        if self.publication is not None and self.publishing.state.trouble:
            told.append(f"not published: {self.publishing.state.trouble}")
        return "; ".join(told)

    @property
    def summary(self) -> str:
        """Return who carries, in a line."""
        listed = len(self.own.entries)
        count = f"{listed} transport{'' if listed == 1 else 's'}"
        if self.registrar is None and self.publication is None:
            return f"{count}; told to nobody: no discovery service is set, and there is no DHT"
        if self._carried_by_dht:
            return f"{count}, carried by the DHT; HTTP registration rests"
        sides = {"HTTP": self.registrar, "the DHT": self.publication}
        return f"{count}, told to {' and '.join(n for n, side in sides.items() if side)}"

    def fields(self) -> Mapping[str, Any]:
        """Return numbers and words for the status; numbers become metrics."""
        told: dict[str, Any] = {
            "transports": self.seen.count,
            "carried_by_dht": int(self._carried_by_dht),
            "hand_overs": self.changes,
            "full_nodes_holding": self.seen.holders,
            "registrations_rested": self.rested,
            "lacking": self.verdict.why,
        }
        if (registrar := self.registrar) is not None:
            told["registrations"] = registrar.registrations
            told["delete_batches"] = registrar.deletes
            told["checks"] = registrar.checks
            told["registration_failures"] = self.registration.state.failures
            told["registration_trouble"] = self.registration.state.trouble
        if self.publication is not None:
            told["publications"] = self.publication.rounds
            told["publication_failures"] = self.publishing.state.failures
            told["publication_trouble"] = self.publishing.state.trouble
        return told
