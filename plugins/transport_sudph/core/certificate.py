"""A throw-away certificate, because QUIC has none without one.

Why it is not checked by anybody: who is at the other end is proved by Noise, inside the stream, and
by nothing else. A certificate that were checked would be a second identity with rules of its own.
QUIC's encryption is kept for what it protects here: every datagram is authentic, so strangers who
do not see the handshake can neither break a connection nor make it remember or send anything.
"""

from __future__ import annotations

import datetime
import ssl

from aioquic.quic.configuration import QuicConfiguration
from aioquic.tls import CipherSuite
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from skycore.model.limits import SUDPH_DATAGRAM_MIN
from transport_sudph.core.congestion import CONGESTION_CONTROL

__all__ = ["ALPN", "configurations"]

ALPN = "skycore-sudph/1"
SINCE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
UNTIL = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)
PLENTY = 2**60
"""Limit of all streams of a connection together: there is one, and it has its own."""


def configurations(
    secret: bytes, *, idle_s: float, window_bytes: int
) -> tuple[QuicConfiguration, QuicConfiguration]:
    """Return what a dialler and a listener are made with. `secret`: 32 random bytes.

    AES is offered alone: with it a megabyte costs a tenth less than with ChaCha20 here.
    """
    key = Ed25519PrivateKey.from_private_bytes(secret)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sudph")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(SINCE)
        .not_valid_after(UNTIL)
        .sign(key, None)
    )

    def make(*, is_client: bool) -> QuicConfiguration:
        return QuicConfiguration(
            is_client=is_client,
            alpn_protocols=[ALPN],
            cipher_suites=[CipherSuite.AES_128_GCM_SHA256],
            congestion_control_algorithm=CONGESTION_CONTROL,
            idle_timeout=idle_s,
            max_data=PLENTY,
            max_stream_data=window_bytes,
            max_datagram_size=SUDPH_DATAGRAM_MIN,
            verify_mode=ssl.CERT_NONE,
        )

    listener = make(is_client=False)
    listener.certificate, listener.private_key = certificate, key
    return make(is_client=True), listener
