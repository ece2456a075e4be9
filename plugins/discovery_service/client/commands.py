"""`skynode svc ls`: the network's services, with a node or without one."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
import typer

from skycore.console import Console
from skycore.contracts.rpc import Caller, RpcContext, RpcService
from skycore.errors import ConfigError

__all__ = ["ls"]

PLUGINS = ("http_client", "discovery_service", "namespaces_skywire")


def ls(
    console: Console,
    kind: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="Only these: vpn, skysocks, visor.")
    ] = "",
    source: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Ask this source alone: dht, http, redis. Left out: all of them."
        ),
    ] = "",
    url: Annotated[
        str,
        typer.Option(metavar="URL", help="Ask this server, and not the one of the settings."),
    ] = "",
) -> None:
    """List the services of the network: each once, and who says so.

    All sources are asked together. Works without a running node, over HTTP. What is not known to be
    everything is marked PARTIAL.
    """
    answer = _ask(console, {"type": kind, "source": source}, url)
    console.show(answer, lambda told: _page(console, told))


def _ask(console: Console, wanted: dict[str, str], url: str) -> Any:
    """Ask the node; where none runs, or --url names a server, ask over HTTP from here."""
    is_http = wanted["source"] in ("", "http")
    if url:
        if not is_http:
            raise ConfigError("--url asks a server over HTTP", hint="leave --source out")
        return _ask_alone(console, wanted, {"discovery_service": {"url": url}})
    alone = partial(_ask_alone, console, wanted, {}) if is_http else None
    return console.call_or(alone, "discovery_service", "svc.ls", "collecting services", **wanted)


def _ask_alone(console: Console, wanted: dict[str, str], settings: dict[str, Any]) -> Any:
    async def use(service: RpcService) -> Any:
        from discovery_service.client.listing import LsParams

        (method,) = (method for method in service.methods if method.name == "svc.ls")
        answer = await method.call(LsParams(**wanted), RpcContext(Caller()))
        return msgspec.to_builtins(answer)

    return console.alone(RpcService, PLUGINS, use, settings)


def _page(console: Console, answer: Any) -> object:
    rows = [
        (
            row["type"],
            row["address"],
            row.get("version", ""),
            "/".join(filter(None, (row.get("country", ""), row.get("region", "")))),
            "+".join(row["sources"]),
            "yes" if row["signed"] else "",
            f"{row['age_s']:.0f} s",
        )
        for row in answer["services"]
    ]
    columns = ("TYPE", "ADDRESS", "VERSION", "WHERE", "SOURCE", "SIGNED", "AGE")
    parts: list[object] = [console.table(columns, rows)] if rows else []
    return console.stack(*parts, *_lines(answer))


def _lines(answer: Any) -> list[str]:
    names = " and ".join(f"{s['name']} ({s['age_s']:.0f} s old)" for s in answer["sources"])
    first = f"{len(answer['services'])} services. Source: {names}."
    lines = [f"PARTIAL: {first}" if answer["partial"] else first]
    lines += [
        f"{source['name']}: {source['note'] or 'it does not know everything'}"
        for source in answer["sources"]
        if source["note"] or not source["complete"]
    ]
    lines += [f"{name} could not be asked: {why}" for name, why in answer["failed"].items()]
    return lines
