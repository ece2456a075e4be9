"""A plugin with one method that does nothing, so that a call's own cost is what is seen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from skycore import hookimpl
from skycore.contracts.access import Level
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService

__all__ = ["skycore_rpc_methods"]


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sixty-four bytes there and back."""

    text: str


async def _echo(params: Text, context: RpcContext) -> Text:
    return params


class _Echo:
    methods: Sequence[RpcMethod] = (
        RpcMethod("bench.echo", Level.READ, Text, Text, _echo, "Return what came."),
    )


@asynccontextmanager
async def _open_echo() -> AsyncIterator[RpcService]:
    yield _Echo()


@hookimpl
def skycore_rpc_methods() -> Sequence[Callable[..., Any]]:
    """Offer the method."""
    return (_open_echo,)
