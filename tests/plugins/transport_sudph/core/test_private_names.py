"""Every private name of aioquic that SUDPH touches: a release without one shows here first."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import tomllib
from pathlib import Path

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.recovery import QuicPacketRecovery

import transport_sudph.core.link
import transport_sudph.core.recovery
import transport_sudph.core.sizing
from transport_sudph.core.link import QuicLink
from transport_sudph.core.recovery import PatientRecovery
from transport_sudph.core.sizing import SizedConnection

CONNECTION = (
    "_ack_delay", "_ack_eliciting_sent_since_receipt", "_add_network_path", "_close_event",
    "_close_pending", "_crypto_buffers", "_cryptos", "_flush_builder", "_get_or_create_stream",
    "_handshake_confirmed", "_is_client", "_local_max_stream_data_bidi_local",
    "_local_max_stream_data_bidi_remote", "_local_max_streams_bidi", "_local_max_streams_uni",
    "_loss", "_max_datagram_size", "_network_paths", "_on_max_stream_data_delivery",
    "_packet_number", "_peer_cid", "_peer_cid_available", "_ping_pending", "_send_probe",
    "_spaces", "_spin_bit",
    "_state", "_streams", "_version", "_write_stream_limits",
)  # fmt: skip
RECOVERY = (
    "_cc", "_detect_loss", "_in_persistent_congestion", "_on_packets_lost", "_pacer",
    "_pto_count", "_rtt_initial", "_rtt_initialized", "_rtt_latest", "_rtt_smoothed",
)  # fmt: skip
OTHERS = {"_buffer", "_buffer_fin", "_max_datagram_size", "_packet"}
"""Of streams' senders, the pacer and the packet builder."""
ADVICE = "aioquic {version} has no {owner}.{name}: see docs/adr/0007, and pin an older release"


def own_names(*classes):
    """Return what our subclasses define themselves."""
    found = set()
    for one in classes:
        tree = ast.parse(inspect.getsource(one).lstrip())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return found


@pytest.mark.parametrize("name", CONNECTION)
def test_a_connection_has_the_private_name(name):
    connection = QuicConnection(configuration=QuicConfiguration(is_client=True))
    version = importlib.metadata.version("aioquic")
    assert hasattr(connection, name), ADVICE.format(version=version, owner="conn", name=name)


@pytest.mark.parametrize("name", RECOVERY)
def test_a_recovery_has_the_private_name(name):
    recovery = QuicPacketRecovery(
        congestion_control_algorithm="reno", initial_rtt=0.1, max_datagram_size=1200,
        peer_completed_address_validation=True, send_probe=lambda: None,
    )  # fmt: skip
    version = importlib.metadata.version("aioquic")
    assert hasattr(recovery, name), ADVICE.format(version=version, owner="recovery", name=name)


def test_no_other_private_name_is_used():
    used = set()
    for module in (
        transport_sudph.core.link,
        transport_sudph.core.recovery,
        transport_sudph.core.sizing,
    ):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                used.add(node.attr)
    used = {name for name in used if not name.startswith("__")}
    ours = own_names(QuicLink, SizedConnection, PatientRecovery) - {*CONNECTION, *RECOVERY}
    assert used - ours <= {*CONNECTION, *RECOVERY} | OTHERS


def test_the_release_is_one_of_the_range_that_was_tried():
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())
    wanted = [d for d in project["project"]["dependencies"] if d.startswith("aioquic")]
    assert wanted == ["aioquic>=1.7,<1.8"]
    assert importlib.metadata.version("aioquic").startswith("1.7.")
