"""`skynode dmsg servers`: the network's DMSG servers, with a node or without one."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
import typer

from skycore.console import Console
from skycore.contracts.rpc import Caller, RpcContext, RpcService
from skycore.errors import ConfigError

__all__ = ["servers"]

PLUGINS = ("http_client", "discovery_dmsg", "namespaces_skywire")


def servers(
    console: Console,
    source: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Ask this source alone: dht, http, redis. Left out: all of them."
        ),
    ] = "",
    url: Annotated[
        str,
        typer.Option(metavar="URL", help="Ask this service, and not the one of the settings."),
    ] = "",
) -> None:
    """List the DMSG servers of the network: each once, and who says so.

    All sources are asked together, and of each server the record to believe first is shown. Works
    without a running node, over HTTP. What is not known to be everything is marked PARTIAL.
    """
    answer = _ask(console, source, url)
    console.show(answer, lambda told: _page(console, told))


def _ask(console: Console, source: str, url: str) -> Any:
    """Ask the node; where none runs, or --url names a service, ask over HTTP from here."""
    if url:
        if source not in ("", "http"):
            raise ConfigError("--url asks a service over HTTP", hint="leave --source out")
        return _ask_alone(console, "http", {"discovery_dmsg": {"url": url}})
    alone = partial(_ask_alone, console, source, {}) if source in ("", "http") else None
    return console.call_or(
        alone, "discovery_dmsg", "dmsg.servers", "collecting servers", source=source
    )


def _ask_alone(console: Console, source: str, settings: dict[str, Any]) -> Any:
    async def use(service: RpcService) -> Any:
        from discovery_dmsg.client.listing import ServersParams

        (method,) = (method for method in service.methods if method.name == "dmsg.servers")
        answer = await method.call(ServersParams(source), RpcContext(Caller()))
        return msgspec.to_builtins(answer)

    return console.alone(RpcService, PLUGINS, use, settings)


def _page(console: Console, answer: Any) -> object:
    rows = [
        (
            row["pk"],
            row["address"],
            "-" if row["free_sessions"] is None else row["free_sessions"],
            "yes" if row["dht_bootstrap"] else "",
            row["server_type"],
            "+".join(row["sources"]),
            f"{row['age_s']:.0f} s",
        )
        for row in answer["servers"]
    ]
    columns = ("PK", "ADDRESS", "FREE", "BOOTSTRAP", "TYPE", "SOURCE", "AGE")
    parts: list[object] = [console.table(columns, rows)] if rows else []
    return console.stack(*parts, *_lines(answer))


def _lines(answer: Any) -> list[str]:
    """Say how many there are, and who told all that it knows, and who did not."""
    names = " and ".join(source["name"] for source in answer["sources"])
    count = len(answer["servers"])
    first = f"{count} server{'' if count == 1 else 's'}. Source: {names}."
    if not answer["partial"]:
        return [first]
    lines = [f"PARTIAL, there may be more: {first}"]
    for source in answer["sources"]:
        told = "this is all that it lists" if source["complete"] else "not all that there may be"
        lines.append(f"{source['name']}: {told}" + (f": {source['note']}" * bool(source["note"])))
    return lines + [f"{name} could not be asked: {why}" for name, why in answer["failed"].items()]
