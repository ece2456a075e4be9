"""`skynode network`: found a network with an authority, and let keys mirror in its name."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from skycore.console import Console
from skycore.errors import ConfigError, KeyFileError
from skycore.identity import SUITES, network_constants, read_secret_file, write_secret_file
from skycore.model.delegation_token import encode_delegation
from skycore.model.items import make_delegation
from skycore.model.keys import ED25519, parse_public
from skycore.model.limits import DELEGATION_LIFETIME_MAX_S, SALT_MAX
from skycore.model.network import NetworkConstants
from skycore.runtime.clock import RealClock
from skycore.runtime.entropy import RealEntropy
from skycore.settings import NetworkSettings, read_file, read_sections

__all__ = ["delegate", "new", "show"]

AUTHORITY_FILE = "authority.key"


def _settings(console: Console) -> NetworkSettings:
    context = console.context
    sections = read_sections(
        {"network": NetworkSettings},
        profile=context.profile,
        file=context.config_file,
        environment=os.environ,
        assigned=context.assigned,
    )
    network = sections["network"]
    assert isinstance(network, NetworkSettings)
    return network


def _toml(constants: NetworkConstants) -> str:
    lines = ["[network]"]
    if constants.suite is not ED25519:
        lines.append(f'suite = "{constants.suite.name}"')
    authority = constants.authority.hex() if constants.authority else ""
    lines += [f'name = "{constants.name}"', f'authority = "{authority}"']
    return "\n".join(lines)


def _described(constants: NetworkConstants) -> dict[str, Any]:
    return {
        "suite": constants.suite.name,
        "name": constants.name,
        "authority": constants.authority.hex() if constants.authority else "",
        "network_id": constants.id.hex(),
        "toml": _toml(constants),
    }


def new(
    console: Console,
    name: Annotated[str, typer.Argument(help="What the network is called.")],
    suite: Annotated[str, typer.Option(help="The kind of keys.")] = "ed25519",
) -> None:
    """Found a network: make its authority's key here, and print what every node must have.

    The folder's node.toml is told too. The authority signs delegations (`skynode network
    delegate`); no running node needs its key.
    """
    if suite not in SUITES:
        raise ConfigError(f"there is no key suite {suite!r}", hint=f"suites: {', '.join(SUITES)}")
    if not name or not name.isprintable() or '"' in name or "\\" in name:
        raise ConfigError("a network's name is printable text without quotes or backslashes")
    path = console.context.data / AUTHORITY_FILE
    settings = console.context.data / "node.toml"
    if settings.exists() and "network" in read_file(settings):
        raise ConfigError(
            f"{settings} names a network already", hint="found the new one in another --data folder"
        )
    write_secret_file(path, RealEntropy().bytes(SUITES[suite].seed_bytes))
    authority = SUITES[suite].public(read_secret_file(path, SUITES[suite]))
    founded = NetworkConstants(SUITES[suite], name, authority)
    with settings.open("a") as file:
        file.write(f"\n{_toml(founded)}\n")
    result = _described(founded) | {"file": str(path)}
    console.show(
        result,
        lambda r: (
            f"authority's secret key: {r['file']} (keep it away from the nodes)\n"
            f"every node of this network needs, in its node.toml:\n\n{r['toml']}"
        ),
    )


def show(console: Console) -> None:
    """Show the network that the node of --data belongs to."""
    console.show(
        _described(network_constants(_settings(console))),
        lambda r: f"{r['toml']}\n# suite {r['suite']}, network id {r['network_id']}",
    )


def delegate(
    console: Console,
    key: Annotated[str, typer.Argument(metavar="PK", help="The mirror's public key.")],
    salt: Annotated[list[str], typer.Option(help="A salt it may sign; may be repeated.")],
    days: Annotated[int, typer.Option(min=1, max=30, help="For how long.")] = 30,
) -> None:
    """Let a key sign records of any subject under a salt, in the name of the network's authority.

    Run it where `skynode network new` made the authority. Prints one token a salt: put them into
    the mirror's settings (publisher.delegations) or hand them to `visor dht import --delegation`.
    """
    constants = network_constants(_settings(console))
    path = console.context.data / AUTHORITY_FILE
    if not path.exists():
        raise KeyFileError(f"no authority key at {path}", hint="skynode network new NAME makes one")
    secret = read_secret_file(path, constants.suite)
    authority = constants.suite.public(secret)
    if constants.authority != authority:
        raise ConfigError(
            f"{path} is not the authority of network {constants.name!r}",
            hint="use the --data folder in which `skynode network new` founded it",
        )
    mirror = parse_public(constants.suite, key)
    until = RealClock().wall_s() + min(days * 86_400, DELEGATION_LIFETIME_MAX_S)
    tokens = {}
    for text in salt:
        if len(text.encode()) > SALT_MAX:
            raise ConfigError(f"a salt has {SALT_MAX} bytes at most")
        token = make_delegation(constants, secret, mirror, text.encode(), until)
        tokens[text] = encode_delegation(token)
    console.show(
        {"delegate": key, "until": until, "authority": authority.hex(), "delegations": tokens},
        lambda r: "\n".join(r["delegations"].values()),
    )
