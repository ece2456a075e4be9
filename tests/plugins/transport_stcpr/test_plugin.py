from __future__ import annotations

import subprocess
import sys

from transport_stcpr import plugin
from transport_stcpr.service import open_stcpr
from transport_stcpr.settings import StcprSettings


def test_declares_its_settings_and_its_transport_type():
    assert plugin.skycore_settings() is StcprSettings
    assert list(plugin.skycore_transports()) == [open_stcpr]


def test_listing_the_plugin_costs_nothing():
    code = "import transport_stcpr.plugin, sys; print('anyio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
