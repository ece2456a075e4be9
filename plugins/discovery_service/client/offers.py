"""What this node offers: from its settings and its plugins, told to the server and to the DHT.

Why one list for both: whoever asks either of them must hear the same. Why all in one request: the
list says what there is and so also what there is no more, and costs the server one round trip.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import msgspec

from discovery_service.client.settings import Offer, ServiceSettings
from discovery_service.entries import steady
from skycore.contracts.dht import Mirror
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact, Publisher
from skycore.discovery.registering import Registration
from skycore.discovery.signed import SignedClient, accepted
from skycore.errors import DiscoveryError, LocalProtocolError
from skycore.model.entries import Geo, ServiceEntry
from skycore.model.keys import PubKey

__all__ = ["Offers"]

SALT = b"svc"
PATH = "/api/services"
ANSWER_BYTES_MAX = 1024 * 1024


def _entry(offer: Offer, public: PubKey, version: str) -> ServiceEntry:
    geo = Geo(offer.lat, offer.lon, offer.country, offer.region)
    return ServiceEntry(
        address=f"{public.hex()}:{offer.port}",
        type=offer.type,
        version=offer.version or version,
        geo=geo if geo != Geo() else None,
        display_node_ip=offer.display_node_ip,
        local_ips=offer.local_ips,
    )


class Offers:
    """`contracts.services.OfferedServices`, and the two loops that pass them on."""

    def __init__(
        self,
        settings: ServiceSettings,
        public: PubKey,
        version: str,
        client: SignedClient | None,
        publisher: Publisher | None,
        mirrors: Sequence[Mirror],
        namespaces: Namespaces,
        dice: random.Random,
    ) -> None:
        self.registering = Registration(
            self._register,
            self._deregister,
            dice=dice,
            name="service discovery",
            interval_s=settings.interval_s,
        )
        self.publishing = Registration(
            self._publish,
            self._withdraw,
            dice=dice,
            name="own services record",
            interval_s=settings.publish_s,
        )
        self.listed = 0
        """How many services the server has taken."""
        self.published = 0
        """How many stand in the DHT."""
        self.copies = 0
        """How many nodes or places had the record when it was last brought there."""
        self._settings = settings
        self._public = public
        self._client = client
        self._publisher = publisher
        self._mirrors = mirrors
        self._namespaces = namespaces
        self._offers: list[ServiceEntry] = [
            _entry(offer, public, version) for offer in settings.services
        ]

    # --- contracts.services.OfferedServices -----------------------------------------------------

    @contextmanager
    def _offer(self, entry: ServiceEntry) -> Iterator[None]:
        self._offers.append(entry)
        self._nudge()
        try:
            yield
        finally:
            place = next(i for i, one in enumerate(self._offers) if one is entry)
            del self._offers[place]
            self._nudge()

    def offer(self, entry: ServiceEntry) -> AbstractContextManager[None]:
        """Offer a service while the context lasts. Raises `LocalProtocolError`."""
        key, _, port = entry.address.partition(":")
        if key != self._public.hex() or not port.isdigit():
            raise LocalProtocolError(f"{entry.address!r} is no address of this node: key:port")
        return self._offer(entry)

    def entries(self) -> Sequence[ServiceEntry]:
        """Return what is offered, each type and address once, in order."""
        by_key = {entry.set_key: entry for entry in self._offers}
        return [by_key[key] for key in sorted(by_key)]

    def _nudge(self) -> None:
        self.registering.nudge()
        self.publishing.nudge()

    # --- the server -----------------------------------------------------------------------------

    async def _register(self) -> None:
        entries = self.entries()
        if entries or self.listed:
            await self._post(entries)

    async def _deregister(self) -> None:
        if self.listed:
            await self._post(())

    async def _post(self, entries: Sequence[ServiceEntry]) -> None:
        if self._client is None:
            return
        body = msgspec.json.encode(entries)
        timeout_s = self._settings.timeout_s
        accepted(
            await self._client.request(
                "POST", PATH, body, timeout_s=timeout_s, body_bytes_max=ANSWER_BYTES_MAX
            )
        )
        self.listed = len(entries)

    # --- the DHT --------------------------------------------------------------------------------

    async def _publish(self) -> None:
        """Hand the record to the mirrors. Raises `DiscoveryError` where nobody took it."""
        entries, namespace = self.entries(), self._namespaces.find(SALT)
        if not self._settings.publish or namespace is None or not self._mirrors:
            return
        if entries or self.published:
            v = namespace.encode([steady(entry) for entry in entries]) if entries else None
            await self._say(v)
            self.published = len(entries)

    async def _withdraw(self) -> None:
        if self.published:
            await self._say(None)

    async def _say(self, v: bytes | None) -> None:
        if self._publisher is None:
            return
        done = await self._publisher.publish(Fact(SALT, v))
        if done.unchanged or not done.reports:
            return
        self.copies = sum(report.stored for report in done.reports)
        if not self.copies:
            why = next((r.outcome.text for r in done.reports if r.outcome.text), "nobody")
            raise DiscoveryError(f"the own services record was taken nowhere: {why}")
