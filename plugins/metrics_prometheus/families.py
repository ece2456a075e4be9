"""From what parts say to metric families. Pure: facts in, families out; every label is bounded.

Why collectors and no counters of our own: each part counts once, in its status, for people and
machines alike; a number told twice is two numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from skycore.contracts.runtime import NodeInfo
from skycore.contracts.status import Health, Status
from skycore.contracts.store import Outcome, Usage

__all__ = ["OTHER", "Facts", "families", "salt_label"]

OTHER: Final = "other"
LABEL_CHARS_MAX: Final = 64
TYPES_MAX: Final = 16
OUTCOMES: Final = frozenset(outcome.name.lower() for outcome in Outcome)
GATE_DROPS: Final = frozenset({"expired", "dropped", "tampered", "unproven"})
"""Counters of the gate that are neither outcome nor refusal: what left the store."""
DROPS: Final = ("waiting_dropped", "hints_dropped", "contacts_left")
"""Numbers of the DHT's status: what was given up for want of room, or of an answer."""
TOLD_ELSEWHERE: Final = frozenset({"peers", "full_nodes", "live", *DROPS})


@dataclass(frozen=True)
class Facts:
    """One look at the node."""

    info: NodeInfo
    told: Sequence[tuple[str, Status]] = ()
    usage: Mapping[bytes, Usage] = field(default_factory=dict)
    gate: Mapping[str, int] = field(default_factory=dict)
    links: Mapping[str, int] = field(default_factory=dict)
    """Live transports by type."""
    link_events: Mapping[str, int] = field(default_factory=dict)
    requests: Mapping[str, int] = field(default_factory=dict)
    """The HTTP server's counters."""
    events_lost: int = 0


def salt_label(salt: bytes) -> str:
    """Return a salt as a label: its text where it is plain, else hex: and digits; bounded."""
    try:
        text = salt.decode()
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or text.startswith("hex:") or (not text and salt):
        text = "hex:" + salt.hex()
    return text if len(text) <= LABEL_CHARS_MAX else text[: LABEL_CHARS_MAX - 1] + "…"


def families(facts: Facts, *, salts_max: int, peers_max: int, fields_max: int) -> Iterator[Metric]:
    """Yield everything that is known now."""
    told = dict(facts.told)
    dht = told["dht"].fields if "dht" in told else {}
    yield from _node(facts)
    yield from _store(facts, salts_max)
    yield from _drops(facts, dht)
    yield from _links(facts)
    if dht:
        yield from _dht(dht)
        yield from _live(dht, peers_max)
    yield from _http(facts.requests)
    yield _numbers(facts.told, fields_max)


def _gauge(name: str, text: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"skycore_{name}", text, labels=labels)


def _counter(name: str, text: str, labels: Sequence[str] = ()) -> CounterMetricFamily:
    return CounterMetricFamily(f"skycore_{name}", text, labels=labels)


def _node(facts: Facts) -> Iterator[Metric]:
    build = _gauge("build_info", "What runs here.", ("version", "profile", "network"))
    build.add_metric((facts.info.version, facts.info.profile, facts.info.network), 1)
    yield build
    health = _gauge("part_health", "1 for how a part is now.", ("part", "health"))
    for name, status in dict(facts.told).items():
        for word in Health:
            health.add_metric((name, word.value), float(status.health is word))
    yield health
    lost = _counter("metrics_events_lost", "Events that came faster than they were counted.")
    lost.add_metric((), facts.events_lost)
    yield lost


def _store(facts: Facts, salts_max: int) -> Iterator[Metric]:
    items = _gauge("items", "Items held.", ("salt",))
    size = _gauge("item_bytes", "Bytes of values held, and of their blocks.", ("salt",))
    for label, used in _by_salt(facts.usage, salts_max).items():
        items.add_metric((label,), used.items)
        size.add_metric((label,), used.bytes)
    yield items
    yield size
    admitted = _counter("admitted", "Puts and leases that the gate took, by outcome.", ("outcome",))
    rejects = _counter("rejects", "Puts and leases that the gate refused, by reason.", ("reason",))
    for name, count in sorted(facts.gate.items()):
        if name in OUTCOMES:
            admitted.add_metric((name,), count)
        elif name not in GATE_DROPS and name != "proven":
            rejects.add_metric((name,), count)
    yield admitted
    yield rejects


def _by_salt(usage: Mapping[bytes, Usage], salts_max: int) -> dict[str, Usage]:
    """Return usage by label; a stranger may put items under any salt, so only the most used."""
    ranked = sorted(usage.items(), key=lambda entry: (-entry[1].items, entry[0]))
    found: dict[str, Usage] = {}
    for number, (salt, used) in enumerate(ranked):
        label = salt_label(salt) if number < salts_max else OTHER
        before = found.get(label, Usage(0, 0))
        found[label] = Usage(before.items + used.items, before.bytes + used.bytes)
    return found


def _drops(facts: Facts, dht: Mapping[str, Any]) -> Iterator[Metric]:
    drops = _counter("drops", "What was held and is not any more, by reason.", ("reason",))
    for reason in sorted(GATE_DROPS):
        drops.add_metric((reason,), facts.gate.get(reason, 0))
    for reason in DROPS:
        if reason in dht:
            drops.add_metric((reason,), dht[reason])
    yield drops


def _links(facts: Facts) -> Iterator[Metric]:
    live = _gauge("transports", "Live transports, by type.", ("type",))
    for name, count in sorted(facts.links.items())[:TYPES_MAX]:
        live.add_metric((name,), count)
    yield live
    events = _counter(
        "transport_events",
        "What the transport manager counts; refusals by their error.",
        ("event",),
    )
    for name, count in sorted(facts.link_events.items()):
        events.add_metric((name,), count)
    yield events


def _dht(dht: Mapping[str, Any]) -> Iterator[Metric]:
    for name, key, text in (
        ("dht_peers", "peers", "Contacts in the routing table."),
        ("dht_full_nodes", "full_nodes", "Full nodes known."),
        ("dht_waiting", "waiting", "Puts that wait for a node that takes them."),
        ("dht_hints", "hints", "Copies owed to nodes that did not answer."),
    ):
        gauge = _gauge(name, text)
        gauge.add_metric((), dht.get(key, 0))
        yield gauge
    lookups = _counter("dht_lookups", "Reads, by who answered and how.", ("source", "outcome"))
    for name, count in sorted(dht.get("answers", {}).items()):
        source, _, outcome = name.partition(".")
        lookups.add_metric((source, outcome), count)
    yield lookups
    moved = _counter("dht_sync_bytes", "Bytes both ways of what keeps stores in step.", ("by",))
    for name, count in sorted(dht.get("sync_bytes", {}).items()):
        moved.add_metric((name,), count)
    yield moved
    refused = _counter("dht_refused", "Puts of peers that were refused, by code.", ("code",))
    for name, count in sorted(dht.get("refused", {}).items()):
        refused.add_metric((name,), count)
    yield refused


def _live(dht: Mapping[str, Any], peers_max: int) -> Iterator[Metric]:
    labels = ("peer", "salt")
    lag = _gauge("dht_watch_lag_seconds", "How long ago a watched peer was heard.", labels)
    up = _gauge("dht_watch_up", "1 while a peer is watched, 0 while it is tried.", labels)
    watched: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in sorted(dht.get("watching", ()), key=lambda r: (not r["live"], r["peer"])):
        watched[row["peer"][:8], row["salt"] or ""] = row  # of keys that begin alike the worst
    for names, row in sorted(watched.items())[:peers_max]:
        up.add_metric(names, float(row["live"]))
        if row["lag_s"] is not None:
            lag.add_metric(names, row["lag_s"])
    yield up
    yield lag
    last = dht.get("last_reconcile")
    different = _gauge("dht_reconcile_differences", "Slots that differed at the last comparison.")
    age = _gauge("dht_reconcile_age_seconds", "How long ago that was.")
    if last:
        different.add_metric((), last["different"])
        age.add_metric((), last["seconds_ago"])
    yield different
    yield age


def _http(counters: Mapping[str, int]) -> Iterator[Metric]:
    requests = _counter("http_requests", "Requests, by routes and status.", ("routes", "status"))
    refused = _counter("http_refused", "What the HTTP server refused by itself.", ("reason",))
    for name, count in sorted(counters.items()):
        status, space, routes = name.partition(" ")
        if space:
            requests.add_metric((routes, status), count)
        else:
            refused.add_metric((name,), count)
    yield requests
    yield refused


def _numbers(told: Iterable[tuple[str, Status]], fields_max: int) -> Metric:
    """Return the numbers of every part's status, also of parts that are unknown here."""
    numbers = _gauge("part_number", "A number of a part's status.", ("part", "field"))
    for part, status in dict(told).items():
        found = [
            (name, value)
            for name, value in sorted(status.fields.items())
            if isinstance(value, bool | int | float)
            and name not in TOLD_ELSEWHERE
            and len(name) <= LABEL_CHARS_MAX
        ]
        for name, value in found[:fields_max]:
            numbers.add_metric((part, name), float(value))
    return numbers
