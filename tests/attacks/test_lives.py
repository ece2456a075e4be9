"""Processes that die and come back, in any order, and lose nothing that was acknowledged."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attackers import LISTEN, NETWORK, WAIT_S, ask, control, frame, read_frame

from skycore.testing.processes import NodeProcess, node_processes

pytestmark = pytest.mark.processes


def bootstrap(*contacts: str) -> str:
    return f"dht_kademlia.bootstrap={json.dumps(contacts)}"


def wait_for(done, what: str = "") -> None:
    """Poll other processes; the limit only bounds how long a failure takes."""
    until = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def items(node: NodeProcess) -> int:
    held = ask(node.data, "dht.status")["items"]
    return sum(count for salt, count in held.items() if salt != "fullnode")


def test_c24_a_peer_killed_in_mid_sync_is_read_on_from_the_cursor(tmp_path: Path) -> None:
    with node_processes(tmp_path, "full", "reader") as (full, reader):
        alone = (
            "dht_kademlia.repair_interval_s=0",
            "dht_kademlia.full_nodes_max=0",
            'node.disable=["discovery_address","dmsg_server"]',  # whose records would come between
        )
        full.start(LISTEN, NETWORK, *alone, profile="fullnode")  # it brings the reader nothing
        for number in range(240):
            ask(full.data, "dht.put", salt=f"s{number}", text=f"{number:03d}" * 1_000)
        port = full.port
        small = "dht_kademlia.sync_page_bytes=4096"
        reader.start(LISTEN, NETWORK, bootstrap(full.contact), small, *alone, profile="fullnode")
        received, reports = 0, []
        again = f"transport_stcpr.listen=127.0.0.1:{port}"
        held = items(reader)
        broken = threading.Thread(target=lambda: reports.append(sync(reader, full)))
        broken.start()
        wait_for(lambda: items(reader) > held)
        full.kill()
        broken.join(WAIT_S)
        full.start(again, NETWORK, *alone, profile="fullnode")
        reports.append(sync(reader, full))
        assert reports[-1]["complete"], reports
        received = sum(report["received"] for report in reports)
        assert items(reader) == 240
        stored = sum(report["stored"] for report in reports)
        assert 240 <= stored <= 242, reports  # the adverts of the full node, before and after
        pages = sum(not report["complete"] for report in reports)
        assert received <= 242 + 2 * pages, "a page that was not admitted is asked for again"
        print([(r["received"], r["stored"], r["complete"]) for r in reports])


def sync(reader: NodeProcess, full: NodeProcess) -> dict:
    return ask(reader.data, "dht.sync", peer=full.key())


def test_q1_kill_9_in_the_middle_of_many_writes_loses_none_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    acknowledged: dict[str, str] = {}
    with NodeProcess(tmp_path / "full") as full:
        for life in range(2):
            full.start(LISTEN, NETWORK, profile="fullnode")
            enough = threading.Event()

            def write(lane: int, life: int = life, enough: threading.Event = enough) -> None:
                for number in itertools.count():
                    salt = f"{life}.{lane}.{number % 20}"
                    try:
                        put = ask(full.data, "dht.put", salt=salt, text=f"v{number}")
                    except (OSError, EOFError):
                        return
                    acknowledged[salt] = max(put["seq"], acknowledged.get(salt, "0"), key=int)
                    if number == 60:
                        enough.set()

            with ThreadPoolExecutor(4) as lanes:
                for lane in range(4):
                    lanes.submit(write, lane)
                assert enough.wait(WAIT_S)
                full.kill()
        full.start(LISTEN, NETWORK, profile="fullnode")
        held: dict[str, str] = {}
        after = ""
        while True:
            page = ask(full.data, "dht.list", limit=1_000, after=after)
            held |= {row["salt"]: row["seq"] for row in page["items"]}
            if not (after := page["next"]):
                break
        missing = {s: q for s, q in acknowledged.items() if int(held.get(s, "0")) < int(q)}
        assert not missing
        assert ask(full.data, "Health")["health"] == "ok"
        print(f"{len(acknowledged)} records over two lives")


def test_f24_cross_dials_of_two_processes_end_in_one_transport(tmp_path: Path) -> None:
    with node_processes(tmp_path, "one", "other") as (one, other):
        one.start(LISTEN, NETWORK)
        other.start(LISTEN, NETWORK)
        ends = [(one, other.key(), other.port), (other, one.key(), one.port)]

        def rows(node: NodeProcess) -> list[str]:
            return [t["id"] for t in ask(node.data, "tp.ls")]

        with ThreadPoolExecutor(2) as both:
            for _ in range(25):
                dials = [
                    both.submit(ask, node.data, "tp.add", remote=key, address=f"127.0.0.1:{port}")
                    for node, key, port in ends
                ]
                made = {dial.result()["id"] for dial in dials}
                assert len(made) == 1
                assert rows(one) == rows(other) == list(made)
                ask(one.data, "tp.rm", transport=made.pop())
                wait_for(lambda: not rows(other) or ask(other.data, "tp.rm", transport=one.key()))
                wait_for(lambda: rows(one) == rows(other) == [])


ORDERS = list(itertools.permutations(("full", "near", "far")))


@pytest.mark.parametrize(
    "order",
    [ORDERS[5], *(pytest.param(order, marks=pytest.mark.soak) for order in ORDERS[:5])],
    ids="-".join,
)
def test_c55_three_processes_in_any_order(tmp_path: Path, order: tuple[str, ...]) -> None:
    """Everybody finds everybody, and a call to a node that nobody linked to makes a transport."""
    with node_processes(tmp_path, "full", "near", "far") as (full, near, far):
        nodes = {"full": full, "near": near, "far": far}
        port = free_port()
        where = bootstrap(f"{full.key()}@127.0.0.1:{port}")
        listed = f"access_whitelist.whitelist={json.dumps([near.key()])}"
        for name in order:
            quick = "dht_kademlia.bootstrap_retry_s=0.5"
            if name == "full":
                listen = f"transport_stcpr.listen=127.0.0.1:{port}"
                full.start(listen, NETWORK, listed, profile="fullnode")
            else:
                nodes[name].start(LISTEN, NETWORK, where, quick, listed)
        for node in (near, far):
            wait_for(lambda n=node: ask(n.data, "dht.peers")["peers"], f"{node.name} knows nobody")
        ask(far.data, "dht.put", salt="hello", text="from afar")
        got = ask(near.data, "dht.get", salt="hello", subject=far.key())
        assert got["item"]["value"] == "from afar"
        key = full.key()

        answers = many_calls(near, "visor.tp_rpc", 100, remote=key, method="Overview", params={})
        assert {a["public_key"] for a in answers} == {key}
        links = [t for t in ask(near.data, "tp.ls") if t["remote"] == key]
        assert len(links) == 1
        key = far.key()
        if linked(near, key):  # it may have been asked by the lookup
            ask(near.data, "tp.rm", transport=key)
        told = ask(near.data, "visor.tp_rpc", remote=key, method="Overview", params={})
        assert told["public_key"] == key
        assert linked(near, key)


def linked(node: NodeProcess, key: str) -> bool:
    return any(t["remote"] == key for t in ask(node.data, "tp.ls"))


def many_calls(node: NodeProcess, method: str, count: int, /, **params) -> list[dict]:
    """Make calls at once over one connection; return their results."""
    with control(node.data) as line:
        for number in range(count):
            call = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            line.sendall(frame(json.dumps(call).encode()))
        results: dict[int, dict] = {}
        while len(results) < count:
            answer = json.loads(read_frame(line))
            assert "error" not in answer, answer
            if "result" in answer:
                results[answer["id"]] = answer["result"]
    return list(results.values())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
