"""What may be set, and what is refused because it could not hold."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from transport_sudph.settings import SudphSettings


def test_an_idle_time_longer_than_pings_allow_is_refused_by_name():
    assert SudphSettings(idle_s=60.0).idle_s == 60.0
    with pytest.raises(ValidationError, match="idle_s"):
        SudphSettings(idle_s=61.0)
