"""Settings of transport_stcpr."""

from __future__ import annotations

from pydantic import Field, field_validator

from skycore.contracts.settings import PluginSettings
from skycore.errors import ConfigError
from skycore.model.addresses import split_host_port
from skycore.model.limits import HELLO_ADDRESSES_MAX

__all__ = ["StcprSettings"]


class StcprSettings(PluginSettings):
    """Where to listen, what to tell others, how long to try."""

    listen: str = "0.0.0.0:0"
    """host:port to take connections on; port 0 is any free one, an empty text takes none."""
    advertise: tuple[str, ...] = Field(default=(), max_length=HELLO_ADDRESSES_MAX)
    """host:port list to tell others; empty tells them the port, and they see the host."""
    dial_timeout_s: float = Field(default=4.0, gt=0)
    """How long one address may take to answer a dial."""

    @field_validator("listen")
    @classmethod
    def _listen_is_an_address(cls, text: str) -> str:
        return _checked(text) if text else text

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
