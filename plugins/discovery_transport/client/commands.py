"""`skynode tp all`: the network's transports, with a node or without one."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
import typer

from skycore.console import Console
from skycore.contracts.rpc import RpcService
from skycore.errors import ConfigError

__all__ = ["all_transports"]

PLUGINS = ("http_client", "discovery_transport", "namespaces_skywire")
SOURCES = ("auto", "dht", "http", "both")
NOT_THE_SERVICES = ("one_sided", "listed_by", "source")


def all_transports(
    console: Console,
    source: Annotated[
        str,
        typer.Option(
            metavar="auto|dht|http|both",
            help="Who is asked. auto: this node's DHT store where it is complete, else the "
            "transport discovery service. both: both, with what only one of them knows marked.",
        ),
    ] = "auto",
    edge: Annotated[str, typer.Option(metavar="PK", help="Only the transports of this key.")] = "",
    id_: Annotated[str, typer.Option("--id", metavar="ID", help="Only this transport.")] = "",
    partial: Annotated[
        bool, typer.Option("--partial", help="Show what the store has, though it is not all.")
    ] = False,
    url: Annotated[
        str,
        typer.Option(metavar="URL", help="Ask this service, and not the one of the settings."),
    ] = "",
) -> None:
    """List the transports of the network: each once, and who says so.

    A transport counts when both of its edges list it; what one edge alone lists is marked. Works
    without a running node, over HTTP. --json prints what the service's /all-transports has, both
    kinds; where it comes from and how old it is stands on stderr.
    """
    if source not in SOURCES:
        raise ConfigError(f"there is no source {source!r}", hint=f"one of: {', '.join(SOURCES)}")
    wanted = {"source": source, "edge": edge, "id": id_, "partial": partial}
    answer = _ask(console, wanted, url)
    if console.context.as_json:
        console.note(_source(answer))
        rows = answer["transports"]
        plain = [{k: v for k, v in row.items() if k not in NOT_THE_SERVICES} for row in rows]
        console.show(plain)
        return
    console.show(answer, lambda told: _page(console, told))


def _ask(console: Console, wanted: dict[str, Any], url: str) -> Any:
    """Ask the node; where none runs, or --url names a service, ask over HTTP from here."""
    if url:
        if wanted["source"] in ("dht", "both"):
            raise ConfigError("--url asks a service, not the DHT", hint="leave --source out")
        return _ask_alone(console, wanted, url)
    is_http = wanted["source"] in ("auto", "http")
    alone = partial(_ask_alone, console, wanted, "") if is_http else None
    return console.call_or(
        alone, "discovery_transport", "tp.all", "collecting transports", **wanted
    )


def _ask_alone(console: Console, wanted: dict[str, Any], url: str) -> Any:
    async def use(service: RpcService) -> Any:
        from discovery_transport.client.listing import AllParams

        (method,) = (method for method in service.methods if method.name == "tp.all")
        params = msgspec.convert({**wanted, "source": "http"}, AllParams)
        from skycore.contracts.rpc import Caller, RpcContext

        return msgspec.to_builtins(await method.call(params, RpcContext(Caller())))

    settings = {"discovery_transport": {"url": url}} if url else {}
    return console.alone(RpcService, PLUGINS, use, settings)


def _page(console: Console, answer: Any) -> object:
    rows, shows_source = answer["transports"], answer["source"] == "both"
    columns = ["ID", "TYPE", "LABEL", "SIDES", "EDGES"]
    cells = [
        [row["t_id"], row["type"], row.get("label", ""), _sides(row), " ".join(row["edges"])]
        for row in rows
    ]
    if shows_source:
        columns.append("ONLY IN")
        for cell, row in zip(cells, rows, strict=True):
            cell.append(row.get("source", ""))
    parts: list[object] = [console.table(columns, cells)] if rows else []
    return console.stack(*parts, _source(answer))


def _sides(row: Any) -> str:
    if not row.get("one_sided"):
        return "both"
    return f"one ({row['listed_by'][:8]})" if row.get("listed_by") else "one"


def _source(answer: Any) -> str:
    names = {"dht": "the DHT store of this node", "http": "the transport discovery service"}
    where = names.get(answer["source"], "the DHT store of this node and the service")
    counted = f"{answer['total']} transport{'' if answer['total'] == 1 else 's'}"
    if answer["one_sided"]:
        counted += f", and {answer['one_sided']} that one edge alone lists"
    line = f"{counted}. Source: {where}, {answer['age_s']:g} s old."
    if not answer["complete"]:
        line = f"PARTIAL: {line}"
    return f"{line} Note: {answer['note']}." if answer["note"] else line
