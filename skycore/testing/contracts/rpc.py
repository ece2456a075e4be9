"""What every set of RPC methods must be. Inherit `RpcServiceContract` and give it `service`.

```
class TestMine(RpcServiceContract):
    @pytest.fixture
    async def service(self):
        async with open_mine(MySettings()) as service:
            yield service
```
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from skycore.contracts.access import Level
from skycore.contracts.rpc import RpcMethod, RpcService

__all__ = ["RpcServiceContract"]


class RpcServiceContract:
    """The suite. What a method does is its plugin's own test."""

    @pytest.fixture
    async def service(self) -> RpcService:
        """Return the service under test."""
        raise NotImplementedError("give this suite a `service` fixture")

    async def test_names_are_unique_and_plain(self, service: RpcService) -> None:
        """A name is a key in a dict; it must also be one in a shell and in a log line."""
        names = [method.name for method in service.methods]
        assert names, "a service without methods"
        assert len(names) == len(set(names))
        for name in names:
            assert name.isascii() and name.replace(".", "").replace("_", "").isalnum(), name
            assert not name.startswith(("rpc.", "_", ".")), name
            assert len(name) <= 64

    async def test_each_method_says_what_it_does_and_who_may(self, service: RpcService) -> None:
        """A level and a line for people."""
        for method in service.methods:
            assert isinstance(method.level, Level), method.name
            assert method.summary.strip() and "\n" not in method.summary, method.name

    async def test_params_are_named_and_refuse_what_they_do_not_know(
        self, service: RpcService
    ) -> None:
        """A typo in a parameter's name must not be ignored."""
        for method in service.methods:
            assert issubclass(method.params, msgspec.Struct), method.name
            config = method.params.__struct_config__
            assert config.forbid_unknown_fields and not config.array_like, method.name

    async def test_calls_are_coroutines(self, service: RpcService) -> None:
        """The registry awaits them."""
        for method in service.methods:
            assert inspect.iscoroutinefunction(method.call), method.name

    async def test_c52_no_number_in_an_answer_outgrows_json(self, service: RpcService) -> None:
        """A seq is text in JSON: readers that keep numbers as floats lose digits over 2^53."""
        for method in service.methods:
            for place, name, kind in _fields(method):
                if name == "seq" or name.endswith(("_seq", "_ns")):
                    assert not isinstance(kind, msgspec.inspect.IntType), (
                        f"{method.name}: {place}.{name} must be text"
                    )


def _fields(method: RpcMethod) -> Iterator[tuple[str, str, Any]]:
    """Yield every field of a method's models: (model, field name, type)."""
    wanted = [_known(method.params), _known(method.result)]
    seen: set[int] = set()
    while wanted:
        kind = wanted.pop()
        if kind is None or id(kind) in seen:
            continue
        seen.add(id(kind))
        for field in getattr(kind, "fields", ()):
            place = getattr(getattr(kind, "cls", None), "__name__", "?")
            inner = getattr(field, "type", None)
            yield place, getattr(field, "name", "?"), inner
            wanted.append(inner)
        wanted += [getattr(kind, part, None) for part in ("item_type", "value_type", "key_type")]
        for part in ("types", "item_types"):
            wanted += getattr(kind, part, ())


def _known(kind: Any) -> Any:
    return None if kind in (object, None) else msgspec.inspect.type_info(kind)
