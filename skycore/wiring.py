"""Wiring: how parts meet without importing each other.

Why needs in signatures: a factory's annotated parameters are what it needs, so a start order in
which something is missing cannot be written down. Four forms: `X` (exactly one), `X | None` (one
if there is one), `tuple[X, ...]` (all of them), `Live[X]` (whichever are up when asked; no order,
so it breaks cycles). Providers are sorted by name before they are sorted by need: the order in
which plugins are listed changes nothing.
"""

from __future__ import annotations

import graphlib
import inspect
import types
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_args, get_origin

from skycore.errors import (
    AmbiguousProviderError,
    DependencyCycleError,
    MissingProviderError,
    WiringError,
)

__all__ = ["Live", "Need", "Plan", "Provider", "make_plan", "running"]

T = TypeVar("T")


class Live(Generic[T]):
    """Whichever providers of a contract are up at the moment you look."""

    def __init__(self, up: Sequence[T]) -> None:
        self._up = up

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._up))

    def __len__(self) -> int:
        return len(self._up)


@dataclass(frozen=True, eq=False)
class Provider:
    """A factory and the contract that it provides; `plugin` is set by whoever collects it."""

    contract: type
    factory: Callable[..., AbstractAsyncContextManager[Any]]
    plugin: str = ""
    on_demand: bool = False
    """Planned only if somebody needs the contract: the guards, and stores."""

    @property
    def name(self) -> str:
        """How messages name it: plugin.factory."""
        return f"{self.plugin}.{inspect.unwrap(self.factory).__name__}"


@dataclass(frozen=True)
class Need:
    """One parameter of a factory: how many of what."""

    form: str
    """"one", "maybe", "all", "live" or "given"."""
    contract: type


@dataclass(frozen=True)
class Plan:
    """The parts in start order, and what each is given."""

    order: Sequence[Provider]
    needs: Mapping[Provider, Mapping[str, Need]]


def _need(annotation: Any) -> Need:
    origin = get_origin(annotation)
    if origin is Live:
        return Need("live", get_args(annotation)[0])
    if origin is tuple:
        return Need("all", get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return Need("maybe", next(a for a in get_args(annotation) if a is not type(None)))
    return Need("one", annotation)


def _needs(provider: Provider) -> dict[str, Need]:
    factory = inspect.unwrap(provider.factory)
    try:
        hints = typing.get_type_hints(factory)
    except NameError as bad:
        raise WiringError(
            f"{provider.name}: an annotation cannot be read: {bad}",
            hint="import contracts at run time in the module of a factory",
        ) from bad
    hints.pop("return", None)
    untyped = [name for name in inspect.signature(factory).parameters if name not in hints]
    if untyped:
        raise WiringError(f"{provider.name}: parameter {untyped[0]!r} has no annotation")
    return {name: _need(annotation) for name, annotation in hints.items()}


def _named(contract: Any) -> str:
    return getattr(contract, "__name__", str(contract))


def make_plan(
    providers: Sequence[Provider],
    given: Mapping[type, Any],
    *,
    private: Mapping[type, str] | None = None,
    hint_for: Callable[[type], str] = lambda contract: "",
) -> Plan:
    """Sort providers by need. `given` holds ready values by type.

    `private` names, by contract, the only plugin that may need it. Raises `WiringError`s by name;
    `hint_for` says which installed plugins would provide a missing contract.
    """
    providers = sorted(providers, key=lambda p: p.name)
    offered: dict[type, list[Provider]] = {}
    for provider in providers:
        offered.setdefault(provider.contract, []).append(provider)
    needs = {p: _settle(p, given, private or {}) for p in providers}

    for provider in providers:
        for need in needs[provider].values():
            if need.form in ("one", "maybe"):
                _check_count(provider, need, offered.get(need.contract, []))
    planned = _planned(providers, needs, offered, hint_for)
    graph = {
        provider: [
            before
            for need in needs[provider].values()
            if need.form in ("one", "maybe", "all")
            for before in offered.get(need.contract, [])
            if before in planned
        ]
        for provider in planned
    }
    return Plan(_sorted(graph), {p: needs[p] for p in graph})


def _settle(
    provider: Provider, given: Mapping[type, Any], private: Mapping[type, str]
) -> dict[str, Need]:
    settled = {}
    for name, need in _needs(provider).items():
        owner = private.get(need.contract)
        if owner is not None and provider.plugin != owner:
            raise WiringError(
                f"{provider.name} asks for {_named(need.contract)}, which only {owner} may have",
                hint="ask for Items: everything that reads or stores items goes through the gate",
            )
        one = need.form in ("one", "maybe")
        settled[name] = Need("given", need.contract) if one and need.contract in given else need
    return settled


def _planned(
    providers: Sequence[Provider],
    needs: Mapping[Provider, Mapping[str, Need]],
    offered: Mapping[type, Sequence[Provider]],
    hint_for: Callable[[type], str],
) -> Sequence[Provider]:
    """Return what runs: all that is not on demand, and whatever that needs in earnest.

    `X | None` pulls nothing in: it is there if somebody else needs it.
    """
    planned: dict[Provider, None] = {}
    wanted = [p for p in providers if not p.on_demand]
    while wanted:
        provider = wanted.pop()
        if provider in planned:
            continue
        planned[provider] = None
        for need in needs[provider].values():
            found = offered.get(need.contract, [])
            if need.form == "one" and not found:
                raise MissingProviderError(
                    f"{provider.name} needs {_named(need.contract)},"
                    " and no active plugin provides one",
                    hint=hint_for(need.contract),
                )
            if need.form in ("one", "all", "live"):
                wanted += found
    return list(planned)


def _check_count(provider: Provider, need: Need, found: Sequence[Provider]) -> None:
    if len(found) > 1:
        names = ", ".join(p.plugin for p in found)
        raise AmbiguousProviderError(
            f"{provider.name} needs one {_named(need.contract)}; {names} all provide it",
            hint=f'disable all but one: [node] disable = ["{found[-1].plugin}"]',
        )


def _sorted(graph: Mapping[Provider, Sequence[Provider]]) -> list[Provider]:
    ordered = {p: graph[p] for p in sorted(graph, key=lambda p: p.name)}
    try:
        return list(graphlib.TopologicalSorter(ordered).static_order())
    except graphlib.CycleError as cycle:
        names = " -> ".join(p.name for p in cycle.args[1])
        raise DependencyCycleError(
            f"cycle: {names}", hint="let one of them take Live[...] instead"
        ) from None


@asynccontextmanager
async def running(
    plan: Plan, given: Mapping[type, Any]
) -> AsyncIterator[Mapping[type, Sequence[Any]]]:
    """Enter the parts in order; leave them in reverse. An escaping error is told its plugin."""
    up: dict[type, list[Any]] = {}
    async with AsyncExitStack() as stack:
        for provider in plan.order:
            arguments = {
                name: _argument(need, up.setdefault(need.contract, []), given)
                for name, need in plan.needs[provider].items()
            }
            part = await stack.enter_async_context(_named_part(provider, arguments))
            here = up.setdefault(provider.contract, [])
            here.append(part)
            stack.callback(here.pop)  # a part that stops leaves Live; last in, first out
        yield up


def _argument(need: Need, up: list[Any], given: Mapping[type, Any]) -> Any:
    match need.form:
        case "given":
            return given[need.contract]
        case "one":
            return up[0]
        case "maybe":
            return up[0] if up else None
        case "all":
            return tuple(up)
        case _:
            return Live(up)


@asynccontextmanager
async def _named_part(provider: Provider, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
    passing: BaseException | None = None
    try:
        async with provider.factory(**arguments) as part:
            try:
                yield part
            except BaseException as error:
                passing = error
                raise
    except Exception as error:
        if not _holds(error, passing):  # else it came from elsewhere and only passes through
            error.add_note(f"in plugin {provider.plugin}")
        raise


def _holds(error: BaseException, other: BaseException | None) -> bool:
    """Tell whether an error is another one, or a group around it."""
    if isinstance(error, BaseExceptionGroup):
        return error is other or any(_holds(e, other) for e in error.exceptions)
    return error is other
