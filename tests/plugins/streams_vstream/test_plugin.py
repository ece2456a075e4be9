from __future__ import annotations

import pydantic
import pytest

from streams_vstream import plugin
from streams_vstream.service import open_vstream
from streams_vstream.settings import VStreamSettings


def test_the_hooks():
    assert plugin.skycore_settings() is VStreamSettings
    assert plugin.skycore_streams() == [open_vstream]


def test_settings_refuse_typos_and_nonsense():
    for bad in ({"stream_max": 1}, {"streams_max": 0}, {"stalled_s": 0}, {"unread_bytes_max": 1}):
        with pytest.raises(pydantic.ValidationError):
            VStreamSettings(**bad)
