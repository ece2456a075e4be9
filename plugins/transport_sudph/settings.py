"""Settings of transport_sudph."""

from __future__ import annotations

from pydantic import Field, field_validator

from skycore.contracts.settings import PluginSettings
from skycore.errors import ConfigError
from skycore.model.addresses import split_host_port
from skycore.model.limits import HELLO_ADDRESSES_MAX, SUDPH_IDLE_MAX_S

__all__ = ["SudphSettings"]


class SudphSettings(PluginSettings):
    """Which socket to use, who helps through NATs, how long to try."""

    listen: str = "0.0.0.0:0"
    """host:port of the one UDP socket; port 0 is any free one; `[::]:7777` takes IPv6 and IPv4."""
    accept: bool = True
    """Whether to take connections; dialling needs the socket anyway."""
    advertise: tuple[str, ...] = Field(default=(), max_length=HELLO_ADDRESSES_MAX)
    """host:port list to tell others; empty tells what a resolver sees, or the port."""
    resolver: str = ""
    """host:port of an address resolver's UDP side. Empty: that of `discovery_address.url`, which
    tells it; without either, only known addresses can be dialled."""
    dial_timeout_s: float = Field(default=4.5, gt=0)
    """How long a dial may take, punching included: below the 5 s that the transport manager gives
    to what is known, so that it hears why none was made."""
    keepalive_s: float = Field(default=15.0, ge=0.5, le=20.0)
    """Longest silence of ours on a connection: NATs forget who is silent, many after 30 s."""
    idle_s: float = Field(default=SUDPH_IDLE_MAX_S, ge=1.5, le=60.0)
    """Silence of the other side after which a connection is over: not above 60 s, when unanswered
    pings end the link whatever is set here."""
    window_bytes: int = Field(default=1024 * 1024, ge=64 * 1024, le=16 * 1024 * 1024)
    """Bytes that may be under way or unread in one direction of a connection."""
    connections_max: int = Field(default=1_024, ge=1)
    """Connections at one time, dialled and accepted."""

    @field_validator("listen")
    @classmethod
    def _listen_is_an_address(cls, text: str) -> str:
        return _checked(text)

    @field_validator("resolver")
    @classmethod
    def _resolver_has_a_port(cls, text: str) -> str:
        if text:
            host, port = split_host_port(_checked(text))
            if not host or not port:
                raise ValueError("a resolver has a host and a port")
        return text

    @field_validator("advertise")
    @classmethod
    def _advertise_has_addresses(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            _checked(text)
            if text.endswith(":0"):
                raise ValueError(f"{text!r}: others cannot dial port 0")
        return texts


def _checked(text: str) -> str:
    try:
        split_host_port(text)
    except ConfigError as bad:
        raise ValueError(f"{bad}; {bad.hint}") from bad
    return text
