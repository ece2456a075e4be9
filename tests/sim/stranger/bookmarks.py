"""Bookmarks: links that a key recommends. A stranger's plugin, as a user would install it.

All that it brings is one namespace (whose entries, by what key, for how long) and two methods. The
record itself is kept, replicated, leased and read by what every node has.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
from msgspec import Meta

from skycore import hookimpl
from skycore.contracts.access import Level
from skycore.contracts.dht import Dht
from skycore.contracts.namespace import Form, Namespace
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService
from skycore.contracts.runtime import Identity
from skycore.errors import CasMismatchError, NamespaceError, RpcError
from skycore.model.items import ItemClass


class Bookmark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    url: Annotated[str, Meta(min_length=8, max_length=300, pattern="^https?://")]
    title: Annotated[str, Meta(max_length=100)] = ""
    by: str = ""
    """Who recommends it: nobody speaks for another."""


class Links(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    links: list[Bookmark]


class Whose(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


def by_subject(subject: bytes, entries: Sequence[Bookmark]) -> None:
    if any(entry.by not in ("", subject.hex()) for entry in entries):
        raise NamespaceError("a bookmark in another's name")


BOOKMARKS = Namespace(
    salt=b"bookmarks",
    version=1,
    schema=Bookmark,
    form=Form.SET,
    lifetimes_s={ItemClass.OWNER: 7_200},  # what nodes without this plugin allow
    summary="Links that a key recommends.",
    key=lambda entry: entry.url.encode(),
    check=by_subject,
)


@asynccontextmanager
async def open_bookmarks(dht: Dht, publisher: Publisher, me: Identity) -> AsyncIterator[RpcService]:
    async def read(key: bytes) -> tuple[int, list[Bookmark]]:
        found = await dht.get(key, BOOKMARKS.salt, age_max_s=0)
        if found is None or found.value is None:
            return 0, []
        return found.item.seq, BOOKMARKS.decode(found.value)

    async def add(given: Links, context: RpcContext) -> Links:
        """Merge by key, and start again where another of our devices was quicker."""
        while True:
            seq, links = await read(me.public)
            fact = Fact(BOOKMARKS.salt, BOOKMARKS.encode([*links, *given.links]))
            done = await publisher.publish(fact, cas=seq)
            if any(report.stored for report in done.reports):
                return Links((await read(me.public))[1])
            for report in done.reports:
                if report.outcome.code != CasMismatchError.code:
                    raise RpcError(f"nobody stored it: {report.outcome.text}")

    async def of(whose: Whose, context: RpcContext) -> Links:
        return Links((await read(bytes.fromhex(whose.key)))[1])

    class Methods:
        methods: Sequence[RpcMethod] = (
            RpcMethod("bookmarks.add", Level.OPERATE, Links, Links, add, "Recommend links."),
            RpcMethod("bookmarks.of", Level.READ, Whose, Links, of, "What a key recommends."),
        )

    yield Methods()


@hookimpl
def skycore_namespaces() -> Iterable[Namespace]:
    return [BOOKMARKS]


@hookimpl
def skycore_rpc_methods() -> Iterable[object]:
    return [open_bookmarks]
