"""What this node says of where it can be dialled: bound at a resolver, and published in the DHT.

Why both follow the one record: what a resolver saw is what the DHT must say, too, and neither waits
for the other. Why the own port and the seen address: behind a forwarded port nobody inside knows
the address outside.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterable, Sequence

import msgspec

from discovery_address.client.settings import AddressSettings
from skycore.contracts.dht import Mirror
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact, Publisher
from skycore.discovery.binds import KINDS, ORDINARY, bind_of
from skycore.discovery.registering import Registration
from skycore.discovery.signed import SignedClient, accepted
from skycore.errors import DiscoveryError
from skycore.model.addresses import Address
from skycore.model.entries import AddressBind, AddressEntry
from skycore.model.keys import PubKey

__all__ = ["Own"]

SALT = b"addr"
BIND = "/bind/stcpr"
ANSWER_BYTES_MAX = 65_536


class _Told(msgspec.Struct, frozen=True):
    """What our resolver answers to a bind; upstream's answers nothing."""

    remote_addr: str = ""
    remote_addr_v6: str = ""


class Own:
    """`contracts.services.OwnAddress`, and the two loops that pass it on."""

    def __init__(
        self,
        settings: AddressSettings,
        public: PubKey,
        listening: Callable[[], Iterable[Address]],
        client: SignedClient | None,
        publisher: Publisher | None,
        mirrors: Sequence[Mirror],
        namespaces: Namespaces,
        dice: random.Random,
    ) -> None:
        self.binding = Registration(
            self._bind,
            self._unbind,
            dice=dice,
            name="address resolver",
            interval_s=settings.interval_s,
        )
        self.publishing = Registration(
            self._publish,
            self._withdraw,
            dice=dice,
            name="own address record",
            interval_s=settings.publish_s,
        )
        self.published: AddressEntry | None = None
        """What stands in the DHT now, as far as this run knows."""
        self.copies = 0
        """How many nodes or places had it when it was last brought there."""
        self._settings = settings
        self._public = public
        self._listening = listening
        self._client = client
        self._publisher = publisher
        self._mirrors = mirrors
        self._namespaces = namespaces
        self._binds: dict[str, AddressBind] = {}

    # --- contracts.services.OwnAddress ----------------------------------------------------------

    def told(self, kind: str, bind: AddressBind | None) -> None:
        """Learn where this node takes connections of a type, as seen from outside."""
        if kind not in KINDS or self._binds.get(kind) == bind:
            return
        if bind is None:
            del self._binds[kind]
        else:
            self._binds[kind] = bind
        self.publishing.nudge()

    def find(self, kind: str) -> AddressBind | None:
        """Return what was told last."""
        return self._binds.get(kind)

    @property
    def listens(self) -> bool:
        """Whether there is anything to bind."""
        return bind_of(ORDINARY, self._listening()) is not None

    # --- the resolver ---------------------------------------------------------------------------

    def look(self) -> AddressBind | None:
        """Return what to bind; without a resolver this is also all that is known of it."""
        bind = bind_of(ORDINARY, self._listening())
        if bind is None or (self._client is None and not bind.addresses):
            self.told(ORDINARY, None)
        elif self.find(ORDINARY) is None and bind.addresses:
            self.told(ORDINARY, bind)
        return bind

    async def _bind(self) -> None:
        bind = self.look()
        if bind is None or self._client is None:
            return
        body = msgspec.json.encode(
            {"port": bind.port, "addresses": [_host(text) for text in bind.addresses]}
        )
        answer = accepted(
            await self._client.request(
                "POST",
                BIND,
                body,
                timeout_s=self._settings.timeout_s,
                body_bytes_max=ANSWER_BYTES_MAX,
            )
        )
        seen: _Told = answer.json(_Told) if answer.body.strip() else _Told()
        self.told(
            ORDINARY,
            msgspec.structs.replace(
                bind,
                remote_addr=_ip(seen.remote_addr),
                remote_addr_v6=_ip(seen.remote_addr_v6),
            ),
        )

    async def _unbind(self) -> None:
        if self._client is not None and self.binding.state.is_current:
            accepted(
                await self._client.request("DELETE", BIND, b"{}", body_bytes_max=ANSWER_BYTES_MAX)
            )

    # --- the DHT --------------------------------------------------------------------------------

    def entry(self) -> AddressEntry | None:
        """Return what is published; None: nothing is known that others could dial.

        Of a type of which nobody told anything, what its listener says of itself.
        """
        listening = self._listening()
        binds = {kind: self.find(kind) or bind_of(kind, listening) for kind in KINDS}
        told = {kind: bind for kind, bind in binds.items() if bind and _is_useful(bind)}
        if not told:
            return None
        return AddressEntry(
            pk=self._public.hex(), stcpr=told.get(ORDINARY), sudph=told.get("sudph")
        )

    async def _publish(self) -> None:
        """Hand the record to the mirrors. Raises `DiscoveryError` where nobody took it."""
        entry, namespace = self.entry(), self._namespaces.find(SALT)
        if not self._settings.publish or namespace is None or not self._mirrors:
            return
        if entry is not None or self.published is not None:
            await self._say(None if entry is None else namespace.encode(entry))
            self.published = entry

    async def _withdraw(self) -> None:
        if self.published is not None:
            await self._say(None)

    async def _say(self, v: bytes | None) -> None:
        if self._publisher is None or not self._mirrors:
            return
        done = await self._publisher.publish(Fact(SALT, v))
        if done.unchanged or not done.reports:
            return
        self.copies = sum(report.stored for report in done.reports)
        if not self.copies:
            why = next((r.outcome.text for r in done.reports if r.outcome.text), "nobody")
            raise DiscoveryError(f"the own address record was taken nowhere: {why}")


def _host(text: str) -> str:
    """Return `address` of `address` or `address:port`: resolvers have one port for all."""
    return text if text.count(":") != 1 else text.partition(":")[0]


def _ip(text: str) -> str:
    """Return an address that a resolver says it saw; nothing where it is none.

    It is published under this node's signature: what is no address must not get there.
    """
    try:
        return str(ipaddress.ip_address(text[:64]))
    except ValueError:
        return ""


def _is_useful(bind: AddressBind) -> bool:
    return bool(bind.addresses or bind.remote_addr or bind.remote_addr_v6)
