"""A node of a few plugins, in the process of a command: for what can be asked while none runs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from skycore.console import Context
from skycore.errors import SkycoreError

__all__ = ["open_alone"]


@asynccontextmanager
async def open_alone(
    context: Context, plugins: Sequence[str], contract: type[Any], settings: Mapping[str, Any]
) -> AsyncIterator[Any]:
    """Yield the part of a contract of a node that has these plugins and nothing else.

    File, environment and --set count as ever, but for which plugins there are; `settings` win over
    all. It listens nowhere unless one of the plugins does, and its key is new each time.
    """
    from skycore.node import Node
    from skycore.settings import merge

    only = {"node": {"plugins": list(plugins), "enable": [], "disable": []}}
    own_key = {"identity": {"secret_key_file": "secret.key"}}
    assigned = merge(merge(context.assigned, settings), merge(only, own_key))
    missing: SkycoreError | None = None
    async with Node.open(
        context.profile, assigned, config=context.config_file, environment=os.environ
    ) as node:
        try:
            part = node.get(contract)
        except SkycoreError as bad:  # the node ends in peace: no group around the error
            missing = bad
        else:
            yield part
    if missing is not None:
        raise missing
