"""What the node sees of the plugin: its settings and its one factory."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing

import pytest
from pydantic import ValidationError

from security_noise import plugin
from security_noise.service import open_noise
from security_noise.settings import NoiseSettings
from skycore.contracts.runtime import Entropy, Identity, OwnClock


def test_hooks() -> None:
    assert plugin.skycore_settings() is NoiseSettings
    assert list(plugin.skycore_security()) == [open_noise]


def test_needs_are_in_the_signature() -> None:
    hints = typing.get_type_hints(inspect.unwrap(open_noise))
    hints.pop("return")
    assert list(hints.values()) == [NoiseSettings, Identity, OwnClock, Entropy]


def test_importing_the_plugin_imports_no_cryptography() -> None:
    code = (
        "import sys, security_noise.plugin; "
        "assert not {'cryptography', 'nacl', 'anyio', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "wrong",
    [{"features": ["f" * 33]}, {"features": ["f"] * 33}, {"key_pairs_max": 0}, {"typo": 1}],
    ids=str,
)
def test_settings_out_of_bounds(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NoiseSettings.model_validate(wrong)
    assert all(field.description for field in NoiseSettings.model_fields.values())
