"""The demo of a network that loses its HTTP discovery, with fewer nodes and a small recording."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.demo_network import Country, Size, demo
from skycore.testing.recording import generate_recording

pytestmark = pytest.mark.processes


def test_m6_c40_l12_l16_a_network_without_http_is_joined_by_one_relay(tmp_path: Path) -> None:
    """Each step that does not hold is a `DemoError`; visors take no connections and have no UDP."""
    recording = tmp_path / "recording.json"
    small = generate_recording(
        seed=1, clients=60, visors_with_services=40, transports=30, snapshots=1
    )
    recording.write_bytes(small)
    figures = demo(tmp_path, recording, Country(None), Size(fulls=2, visors=3))
    assert "a new visor had its first DHT answer" in figures
