"""Whom a stranger's word may lead to: never into a house, or onto a machine, that only we are in.

Why: anybody can publish that he is a DMSG server at 127.0.0.1, or at the address that most routers
have inside; every node that looks for servers would then knock there. Who is nearby himself, as in
a laboratory, is led nearby, too: he takes connections there, has a server there in his
configuration, or has a link there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from skycore.contracts.transport import Transports
from skycore.discovery.binds import Reach, reach_of
from skycore.errors import ConfigError
from skycore.model.addresses import split_host_port

__all__ = ["Nearness"]


class Nearness:
    """Where this node is, and so which addresses of others mean anything to it."""

    def __init__(self, transports: Transports, configured: Callable[[], Iterable[str]]) -> None:
        self._transports = transports
        self._configured = configured
        """Endpoints that the operator has written down."""

    def may_dial(self, endpoint: str) -> bool:
        """Tell whether somebody's word is enough to connect there."""
        try:
            host, _ = split_host_port(endpoint)
        except ConfigError:
            return False
        reach = reach_of(host)
        if reach in (Reach.NEVER, Reach.EVERYWHERE):
            return reach is Reach.EVERYWHERE
        return any(Reach.NEVER < reach_of(own) <= reach for own in self._own_hosts())

    def _own_hosts(self) -> Iterator[str]:
        listening = (address.endpoint for address in self._transports.listening())
        for endpoint in (*self._configured(), *listening):
            try:
                yield split_host_port(endpoint)[0]
            except ConfigError:
                continue
        for link in self._transports.all():
            yield link.host
