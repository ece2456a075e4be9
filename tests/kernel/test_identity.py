"""The key file: made once, for its owner's eyes, never overwritten, never printed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from skycore.errors import ConfigError, KeyFileError
from skycore.identity import (
    load_identity,
    network_constants,
    read_secret_file,
    write_secret_file,
)
from skycore.model.keys import ED25519
from skycore.runtime.files import FolderFiles
from skycore.settings import IdentitySettings, NetworkSettings
from skycore.testing.fakes import TEST_NETWORK, MemoryFiles, SeededEntropy

SEED = bytes(range(32))


def test_the_first_run_makes_a_key_and_later_ones_keep_it(tmp_path: Path) -> None:
    files, where = FolderFiles(tmp_path), IdentitySettings()
    first = load_identity(TEST_NETWORK, where, files, SeededEntropy(1))
    again = load_identity(TEST_NETWORK, where, files, SeededEntropy(2))
    assert first.public == again.public
    assert first.instance_id != again.instance_id
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600


def test_a_node_without_a_folder_has_a_key_of_its_own() -> None:
    one = load_identity(TEST_NETWORK, IdentitySettings(), MemoryFiles(), SeededEntropy(1))
    other = load_identity(TEST_NETWORK, IdentitySettings(), MemoryFiles(), SeededEntropy(2))
    assert one.public != other.public


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    write_secret_file(tmp_path / "k", SEED)
    with pytest.raises(KeyFileError, match="never overwritten"):
        write_secret_file(tmp_path / "k", bytes(32))
    assert read_secret_file(tmp_path / "k", ED25519) == ED25519.secret(SEED)


@pytest.mark.parametrize(
    "content", [b"", b"xyz", b"00" * 31, b"00" * 33, b"\xff" * 64, b"ab" * 3000]
)
def test_what_is_no_key_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="holds no ed25519 secret key"):
        read_secret_file(path, ED25519)


def test_s12_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    write_secret_file(tmp_path / "k", SEED)
    (tmp_path / "k").chmod(0o644)
    with pytest.raises(KeyFileError) as bad:
        read_secret_file(tmp_path / "k", ED25519)
    assert "chmod 600" in bad.value.hint


def test_an_unreadable_key_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):  # even root reads neither
        with pytest.raises(KeyFileError, match="cannot read"):
            read_secret_file(path, ED25519)


def test_n20_a_secret_does_not_print_itself(tmp_path: Path) -> None:
    me = load_identity(TEST_NETWORK, IdentitySettings(), MemoryFiles(), SeededEntropy(3))
    shown = f"{me!r} {me.secret!r} {me.secret} {vars(me)!r}"
    assert me.secret.reveal().hex() not in shown
    assert me.secret.reveal()[:32].hex() not in shown


def test_network_settings_are_checked() -> None:
    key = ED25519.public(ED25519.secret(SEED)).hex()
    made = network_constants(NetworkSettings(name="n", authority=key))
    assert made.authority == bytes.fromhex(key)
    for wrong in ({"suite": "rsa"}, {"authority": "00"}, {"authority": "00" * 32}):
        with pytest.raises(ConfigError):
            network_constants(NetworkSettings(**wrong))
    assert (
        network_constants(NetworkSettings(name="a")).id
        != network_constants(NetworkSettings(name="b")).id
    )
