"""Settings of the server role."""

from __future__ import annotations

from pydantic import Field, field_validator

from skycore.discovery.desk import ServerSettings
from skycore.errors import ConfigError
from skycore.model.addresses import split_host_port

__all__ = ["AddressServerSettings"]


class AddressServerSettings(ServerSettings):
    """Where the address resolver serves, whom it believes, how long binds live."""

    prefix: str = "/ar"
    """Path before all routes; "" puts them at the root, as upstream has them."""
    requests_per_minute: float = Field(120.0, ge=0)
    """Signed requests of one key; 0 for no limit. The HTTP server bounds addresses besides."""
    burst: int = Field(40, ge=1)
    """How many may come at once before the rate counts."""
    private_addresses: bool = False
    """Also bind keys that are seen at an address that is not public: for laptops, tests and
    networks of one building. Elsewhere nobody could dial them."""
    udp_listen: str = ""
    """host:port where sudph bindings are taken, by UDP (upstream's is 30178); empty: nowhere."""
    udp_other_port: int = Field(0, ge=0, le=65_535)
    """The second UDP port, by which visors tell what kind of NAT they are behind; 0: any free."""
    udp_advertise: str = ""
    """address:port that `/health` tells; empty tells `udp_listen`."""
    udp_silence_s: float = Field(40.0, ge=20, le=300)
    """A visor that was not heard for this long is not bound any more; they beat every 10 s."""
    udp_sessions_max: int = Field(20_000, ge=1)
    """Visors that may be bound by UDP at one time."""
    udp_sessions_per_host_max: int = Field(256, ge=1)
    """How many of them at one address (IPv6: one /64): a house, or an office, behind one NAT."""
    udp_questions_per_s: float = Field(20.0, gt=0)
    """Datagrams answered to one address that has not shown that it receives the answers."""

    @field_validator("udp_listen")
    @classmethod
    def _udp_listen_is_an_address(cls, text: str) -> str:
        try:
            if text:
                split_host_port(text)
        except ConfigError as bad:
            raise ValueError(f"{bad}; {bad.hint}") from bad
        return text
