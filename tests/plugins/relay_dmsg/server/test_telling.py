"""What a relay says where nobody told it where it is."""

from __future__ import annotations

import anyio

from relay_dmsg.server import telling
from relay_dmsg.server.service import open_status
from relay_dmsg.settings import DmsgServerSettings


async def test_who_does_not_know_where_it_is_says_so_once(bench, caplog, monkeypatch):
    monkeypatch.setattr(telling, "told_address", lambda *_: "")
    caplog.set_level("WARNING")
    relay = await bench.server()
    await anyio.sleep(1_000)
    assert not relay.told and not bench.published.facts
    (said,) = (r.getMessage() for r in caplog.records if r.name == telling.__name__)
    assert "transport_stcpr.advertise" in said
    async with open_status(relay, DmsgServerSettings()) as source:
        assert "transport_stcpr.advertise" in (await source.status()).summary
