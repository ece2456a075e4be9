"""The node's key file: made at the first run, mode 0600, refused when others can read it."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from skycore.contracts.runtime import Entropy, Files, Identity
from skycore.errors import ConfigError, InvalidKeyError, KeyFileError
from skycore.model.keys import ED25519, KeySuite, SecretKey, parse_public
from skycore.model.limits import INSTANCE_ID_BYTES
from skycore.model.network import NetworkConstants
from skycore.settings import IdentitySettings, NetworkSettings

__all__ = [
    "SUITES",
    "load_identity",
    "load_secret",
    "network_constants",
    "read_secret_file",
    "write_secret_file",
]

log = logging.getLogger(__name__)

SUITES = {ED25519.name: ED25519}
KEY_FILE_BYTES_MAX = 4_096


def network_constants(settings: NetworkSettings) -> NetworkConstants:
    """Return the constants that `[network]` names. Raises `ConfigError`."""
    suite = SUITES.get(settings.suite)
    if suite is None:
        raise ConfigError(
            f"network.suite: there is no key suite {settings.suite!r}",
            hint=f"suites: {', '.join(SUITES)}",
        )
    try:
        authority = parse_public(suite, settings.authority) if settings.authority else None
    except InvalidKeyError as bad:
        raise ConfigError(f"network.authority: {bad}", hint=bad.hint) from bad
    return NetworkConstants(suite, settings.name, authority)


def write_secret_file(path: Path, seed: bytes) -> None:
    """Make a key file, for its owner's eyes only. Raises `KeyFileError` if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyFileError(
            f"{path} exists; a key is never overwritten",
            hint="move the old file away first, or use another --data folder",
        ) from None
    except OSError as bad:
        raise KeyFileError(f"cannot write {path}: {bad.strerror}") from bad
    with os.fdopen(handle, "w") as file:
        file.write(seed.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_secret_file(path: Path, suite: KeySuite) -> SecretKey:
    """Read a key file. Raises `KeyFileError`: unreadable, open to others, or not a key."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_bytes()[: KEY_FILE_BYTES_MAX + 1]
    except OSError as bad:
        raise KeyFileError(
            f"cannot read the key file {path}: {bad.strerror}",
            hint="it must belong to the user that runs the node",
        ) from bad
    if mode & 0o077:
        raise KeyFileError(
            f"{path} can be read by others (mode {mode:04o})", hint=f"chmod 600 {path}"
        )
    try:
        return suite.secret(bytes.fromhex(text.decode("ascii").strip()))
    except (ValueError, InvalidKeyError):
        raise KeyFileError(
            f"{path} holds no {suite.name} secret key",
            hint=f"a key file is one line of {suite.seed_bytes * 2} hex digits",
        ) from None


def load_secret(
    suite: KeySuite, where: IdentitySettings, files: Files, entropy: Entropy
) -> SecretKey:
    """Return the node's key, made now if this is the first run."""
    path = files.path(where.secret_key_file)
    if path is None:
        return suite.secret(entropy.bytes(suite.seed_bytes))
    if not path.exists():
        write_secret_file(path, entropy.bytes(suite.seed_bytes))
        secret = read_secret_file(path, suite)
        log.info("made a new key public_key=%s file=%s", suite.public(secret).hex(), path)
        return secret
    return read_secret_file(path, suite)


def load_identity(
    network: NetworkConstants,
    where: IdentitySettings,
    files: Files,
    entropy: Entropy,
    secret: SecretKey | None = None,
) -> Identity:
    """Return who this node is, with an instance id for this run."""
    secret = secret or load_secret(network.suite, where, files, entropy)
    return Identity(network, secret, entropy.bytes(INSTANCE_ID_BYTES))
