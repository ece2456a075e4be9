"""`skynode visor tp-rpc`: call a method of another node."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from skycore.console import Console
from skycore.errors import ConfigError

__all__ = ["tp_rpc"]


def tp_rpc(
    console: Console,
    key: Annotated[str, typer.Argument(metavar="PK", help="Public key of the other node.")],
    method: Annotated[str, typer.Argument(help="Overview, Health, Summary, dht.status, tp.ls, …")],
    args: Annotated[str, typer.Argument(help="Parameters as a JSON object.")] = "{}",
) -> None:
    """Call a method of another node over an encrypted transport; one is made if there is none.

    The other node must list this node's key: `skynode visor whitelist add PK` over there.
    """
    try:
        params = json.loads(args)
    except ValueError as bad:
        raise ConfigError(f"the parameters are not JSON: {bad}", hint="for example '{}'") from bad
    if not isinstance(params, dict):
        raise ConfigError(
            "the parameters are a JSON object", hint="""for example '{"salt": "tp"}'"""
        )
    result = console.call("visor.tp_rpc", "calling", remote=key, method=method, params=params)
    console.show(result)
