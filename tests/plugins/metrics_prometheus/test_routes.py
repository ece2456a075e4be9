"""The routes under the public suite, and without a server."""

from __future__ import annotations

import anyio
import pytest

from metrics_prometheus.service import open_metrics
from metrics_prometheus.settings import MetricsSettings
from skycore import Live
from skycore.contracts.dht import PutEnded, RecordServed
from skycore.contracts.runtime import NodeInfo
from skycore.contracts.status import Health, Status
from skycore.errors import AccessDeniedError, StoreUnreachableError
from skycore.events import EVENTS_HELD_MAX, Events
from skycore.testing.contracts.http import HttpRoutesContract, call_app
from skycore.testing.fakes import FakeClock

INFO = NodeInfo("visor", (), "1", "test")


class LostStore:
    """Items whose store is away."""

    counters = {"stored": 3}  # noqa: RUF012

    async def usage(self):
        raise StoreUnreachableError("no Redis")


class Silent:
    name = "silent"

    async def status(self):
        await anyio.sleep_forever()


class Fine:
    name = "fine"

    async def status(self):
        return Status(Health.OK, "fine", {"things": 7})


def opened(events=None, items=None, sources=(), **settings):
    settings = {"fresh_s": 0, "process": False, **settings}
    return open_metrics(
        MetricsSettings(**settings),
        INFO,
        FakeClock(),
        Live(list(sources)),
        Live([]),
        items,
        None,
        events or Events(),
    )


class TestMetricsRoutes(HttpRoutesContract):
    @pytest.fixture
    async def routes(self):
        async with opened() as routes:
            yield routes


async def read(routes, **how):
    return await call_app(routes.app, "/metrics", root="/metrics", **how)


async def test_c45_events_become_histograms_and_lost_ones_are_told():
    events = Events()
    async with opened(events) as routes:
        await anyio.wait_all_tasks_blocked()
        for _ in range(EVENTS_HELD_MAX + 6):
            events.publish(PutEnded(20))
        events.publish(RecordServed(70.0))
        await anyio.wait_all_tasks_blocked()
        text = (await read(routes)).body.decode()
    assert f"skycore_dht_put_replicas_count {EVENTS_HELD_MAX}.0" in text
    assert 'skycore_dht_put_replicas_bucket{le="19.0"} 0.0' in text
    assert 'skycore_dht_served_age_seconds_bucket{le="60.0"} 0.0' in text
    assert 'skycore_dht_served_age_seconds_bucket{le="120.0"} 1.0' in text
    assert "skycore_metrics_events_lost_total 6.0" in text


async def test_a_part_that_is_silent_and_a_store_that_is_away_hide_nothing():
    async with opened(items=LostStore(), sources=[Silent(), Fine()], part_s_max=0.01) as routes:
        text = (await read(routes)).body.decode()
    assert 'skycore_part_number{field="things",part="fine"} 7.0' in text
    assert 'skycore_part_health{health="degraded",part="silent"} 1.0' in text
    assert 'skycore_admitted_total{outcome="stored"} 3.0' in text


async def test_only_reading_and_only_here():
    async with opened() as routes:
        assert (await read(routes, method="POST")).status == 405
        assert (await read(routes, method="HEAD")).status == 200
        assert (await call_app(routes.app, "/metrics/x", root="/metrics")).status == 404
        with pytest.raises(AccessDeniedError):
            await read(routes, client="203.0.113.5")
        with pytest.raises(AccessDeniedError):
            await read(routes, client="no address")


async def test_the_process_is_among_them():
    async with opened(process=True) as routes:
        text = (await read(routes)).body.decode()
    assert "process_resident_memory_bytes" in text


def test_networks_are_checked_when_settings_are_read():
    with pytest.raises(ValueError, match="does not appear"):
        MetricsSettings(allow=("nonsense",))
