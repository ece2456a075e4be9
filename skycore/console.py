"""What a command is handed: the way to the node, and the way to the person.

Why in the kernel: every plugin's commands must talk to the running node alike, print tables to
people and JSON to programs alike, and show progress only where somebody looks. And because what is
shown was written by strangers (names of services, versions, reasons): here, and nowhere else, it
loses what would move a terminal's cursor, change its title or forge a line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from skycore.errors import (
    DiscoveryError,
    LocalProtocolError,
    NoNodeError,
    RpcError,
    SkycoreError,
)
from skycore.logs import printable, printable_json, printable_text

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from skycore.contracts.rpc import Progress
    from skycore.jsonrpc import Client

__all__ = ["Console", "Context", "OpenAlone", "default_data"]

P = TypeVar("P")
R = TypeVar("R")


def default_data() -> Path:
    """Return the platform's folder for a user's data."""
    import platformdirs

    return Path(platformdirs.user_data_dir("skynode", appauthor=False))


@dataclass(frozen=True)
class Context:
    """The options that stand before a command, for whoever runs below."""

    data: Path = field(default_factory=default_data)
    profile: str | None = None
    config: Path | None = None
    assigned: Mapping[str, Any] = field(default_factory=dict)
    as_json: bool = False

    @property
    def config_file(self) -> Path | None:
        """The config file: as given, else node.toml of the data folder where there is one."""
        own = self.data / "node.toml"
        return self.config or (own if own.exists() else None)

    def with_flags(self, data: Path | None, as_json: bool) -> Context:
        """Return the same with a command's own --data and --json."""
        return replace(self, data=data or self.data, as_json=as_json or self.as_json)

    @staticmethod
    def current() -> Context:
        """Return the context of this command line."""
        return _current.get()

    def make_current(self) -> None:
        """Let commands find it."""
        _current.set(self)


_current: ContextVar[Context] = ContextVar("skynode_context")


METHOD_UNKNOWN = -32601
OpenAlone = Callable[
    [Context, Sequence[str], type[Any], Mapping[str, Any]], AbstractAsyncContextManager[Any]
]
"""Open a node of a few plugins in this process and yield its part of a contract."""


class Console:
    """Calls the node, and prints."""

    def __init__(self, context: Context, open_alone: OpenAlone | None = None) -> None:
        self.context = context
        self._open_alone = open_alone

    def call(self, method: str, what: str = "", /, **params: Any) -> Any:
        """Call a method of the node of --data; `what` names it on the progress bar.

        Parameters that are None are left out. Raises what the node answers.
        """
        given = {name: value for name, value in params.items() if value is not None}

        async def once(client: Client, progress: Progress | None) -> Any:
            return await client.call(method, given, progress=progress)

        return self.talk(once, what)

    def call_or(
        self,
        alone: Callable[[], R] | None,
        plugin: str,
        method: str,
        what: str = "",
        /,
        **params: Any,
    ) -> Any | R:
        """Call a method of `plugin`; where no node offers it, do without one.

        `alone` asks over HTTP; None: only a node can tell. Raises as `call`, and with both reasons
        where neither way leads anywhere.
        """
        try:
            return self.call(method, what, **params)
        except NoNodeError as none:
            reason, hint = str(none), none.hint
        except RpcError as bad:
            if bad.code != METHOD_UNKNOWN:
                raise
            reason = f"the running node does not have the plugin {plugin}"
            hint = f'[node] enable = ["http_client", "{plugin}"]'
        if alone is None:
            raise NoNodeError(f"{reason}: only a node can be asked for its DHT store", hint=hint)
        try:
            return alone()
        except DiscoveryError as bad:
            raise DiscoveryError(f"{reason}, and over HTTP: {bad}", hint=bad.hint) from bad

    def talk(
        self, talk: Callable[[Client, Progress | None], Awaitable[Any]], what: str = ""
    ) -> Any:
        """Connect to the node of --data and let `talk` make its calls; return what it returns.

        It is handed the client, and a progress callback where a person looks and `what` says what
        takes long.
        """
        import anyio

        from skycore.jsonrpc import connect_control

        async def go(progress: Progress | None) -> Any:
            async with connect_control(self.context.data) as client:
                return await talk(client, progress)

        if not (what and self.is_terminal):
            return anyio.run(go, None)
        with _Bar(what) as bar:
            return anyio.run(go, bar.update)

    def alone(
        self,
        contract: type[P],
        plugins: Sequence[str],
        use: Callable[[P], Awaitable[R]],
        settings: Mapping[str, Any] | None = None,
    ) -> R:
        """Use a part without the node of --data: for what can be asked while none runs.

        A node of these plugins alone is made in this process, with the user's configuration and
        `settings` (sections, as in a file) over it, with a key of its own that is forgotten, and
        without touching the data folder. `use` is handed its part of the contract.
        """
        import anyio

        if self._open_alone is None:
            raise LocalProtocolError("this console cannot make a node")
        opened = self._open_alone(self.context, plugins, contract, settings or {})

        async def go() -> R:
            trouble: SkycoreError | None = None
            async with opened as part:
                try:
                    return await use(part)
                except SkycoreError as bad:  # the node ends in peace: no group around the error
                    trouble = bad
            raise trouble or AssertionError

        return anyio.run(go)

    def note(self, line: str) -> None:
        """Tell a person something beside the result: on stderr, so programs read the result."""
        sys.stderr.write(printable_text(line) + "\n")

    def line(self, text: str, data: Any) -> None:
        """Print one of many results at once: `text` for a person, `data` as a line of JSON."""
        line = _json(data) if self.context.as_json else printable(text)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at stderr, where progress goes."""
        return sys.stderr.isatty() and not self.context.as_json

    @property
    def rich(self) -> RichConsole:
        """The person's screen: as wide as it is, never wrapped when piped."""
        from rich.console import Console as RichConsole

        width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "200"))
        return RichConsole(width=width, highlight=False, soft_wrap=not sys.stdout.isatty())

    def show(self, result: Any, render: Callable[[Any], object] | None = None) -> None:
        """Print a result: JSON where asked for, else `render(result)` (text or rich object)."""
        if self.context.as_json:
            sys.stdout.write(_json(result, indent=2) + "\n")
            return
        shown = render(result) if render else _json(result, indent=2)
        if isinstance(shown, str):
            sys.stdout.write(printable_text(shown) + "\n")
        else:
            self.rich.print(shown)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> object:
        """Return a plain table for `show`."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in columns:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
        return table

    def pairs(self, rows: Sequence[tuple[str, object]]) -> object:
        """Return names and values in two columns, for `show`."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(Text(printable(name), style="bold"), Text(printable_text(str(value))))
        return table

    def stack(self, *parts: object) -> object:
        """Return tables and lines one below the other, for `show`; a newline makes no new line."""
        from rich.console import Group
        from rich.text import Text

        shown = (Text(printable(p)) if isinstance(p, str) else p for p in parts)
        return Group(*shown)  # type: ignore[arg-type]


def _json(value: Any, indent: int | None = None) -> str:
    return printable_json(json.dumps(value, indent=indent, ensure_ascii=False))


class _Bar:
    """A progress bar on stderr, with a count where the total is unknown."""

    def __init__(self, what: str) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=RichConsole(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(what, total=None)

    def update(self, done: int, total: int, text: str) -> None:
        """Move the bar."""
        from rich.markup import escape

        self._progress.update(
            self._task,
            completed=done,
            total=total or None,
            description=escape(printable(text)) or None,
        )

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()
