"""Everything that takes time, on virtual time: slow heads, bodies, handlers, readers; HTTP between
simulated nodes, and what becomes of it when the network breaks."""

from __future__ import annotations

import anyio
import pytest
from starlette.responses import Response

from skycore.contracts.http import HttpClient, HttpServer, RouteOptions
from skycore.errors import HttpReplyError, HttpTimeoutError, HttpUnreachableError
from skycore.testing import World, sim_backend, simulate
from skycore.testing.contracts.http import HttpClientContract
from skycore.testing.network import SimNetwork
from skycore.testing.seams import SimClock

GET = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
ON = {"node": {"enable": ["http_server", "http_client"]}, "http_server": {"listen": ":9080"}}


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=3_600)


@pytest.fixture
async def sim(kit):
    """Put the kit on a simulated host."""
    kit.clock, kit.network = SimClock(), SimNetwork(7).host("10.0.0.1")
    return kit


class TestClientInSimulation(HttpClientContract):
    """The same suite, on the simulated network."""

    @pytest.fixture
    async def client(self, sim):
        async with sim.client() as client:
            yield client

    @pytest.fixture
    async def url(self, sim):
        async with sim.server(listen="10.0.0.1:80") as server:
            yield server.url

    @pytest.fixture
    async def dead_url(self):
        return "http://10.0.0.1:81/"


async def test_a_head_that_trickles_and_a_connection_that_idles(sim, refusal):
    async with sim.server(listen=":80", head_s_max=10) as server:
        async with sim.raw(server) as raw:
            began = anyio.current_time()
            assert await raw.ended() == b"", "idling is ended without a word"
            assert anyio.current_time() - began == pytest.approx(10, abs=0.1)
        async with sim.raw(server) as raw, anyio.create_task_group() as tasks:

            async def trickle():
                for letter in "GET /" + "x" * 100:
                    await raw.stream.send(letter.encode())
                    await anyio.sleep(1)

            tasks.start_soon(trickle)
            status, headers, body = await raw.answer()
            assert (status, headers["connection"]) == (408, "close")
            assert refusal(body)[1] == "the request's head did not come within 10 s"
            tasks.cancel_scope.cancel()
        await anyio.sleep(2)
        assert not server.connections


async def test_a_body_that_trickles(sim, refusal):
    async with sim.server(listen=":80", body_s_max=20) as server, sim.raw(server) as raw:
        head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234"
        began = anyio.current_time()
        status, _, body = await raw.ask(head)
        assert (status, refusal(body)[0]) == (408, 408)
        assert anyio.current_time() - began == pytest.approx(20, abs=0.1)
        assert server.counters["slow_request"] == 1


async def test_a_handler_without_an_answer(sim, refusal):
    patient = sim.Routes(sim.lab.app, "/patient", "patient", RouteOptions(time_max_s=100))
    async with sim.server(sim.Routes(sim.lab.app), patient, listen=":80") as server:
        async with sim.raw(server) as raw:
            for path, limit_s in (("/slow", 30), ("/patient/slow", 100)):
                began = anyio.current_time()
                status, _, body = await raw.ask(GET.replace("/echo", path))
                assert (status, refusal(body)[1]) == (504, f"there is no answer within {limit_s} s")
                assert anyio.current_time() - began == pytest.approx(limit_s, abs=0.1)
            assert (await raw.ask(GET))[0] == 200, "the connection goes on"
        assert server.counters["slow_answer"] == 2


async def test_an_answer_that_has_begun_may_take_its_time(sim):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(3):
            await send({"type": "http.response.body", "body": b"%d" % n, "more_body": True})
            await anyio.sleep(25)
        await send({"type": "http.response.body", "body": b"."})

    async with sim.server(sim.Routes(app), listen=":80") as server, sim.client() as client:
        response = await client.get(server.url + "/", timeout_s=100)
        assert response.body == b"012."


async def test_whoever_does_not_read_is_let_go(sim):
    async def app(scope, receive, send):
        await Response(b"x" * 8 * 1024 * 1024)(scope, receive, send)

    async with sim.server(sim.Routes(app), listen=":80") as server, sim.raw(server) as raw:
        await raw.stream.send(GET.encode())
        await anyio.sleep(29)
        assert server.connections == 1
        await anyio.sleep(2)
        assert server.connections == 0


async def test_stopping_ends_what_takes_too_long(sim):
    async with anyio.create_task_group() as tasks:
        async with sim.server(listen=":80", stop_s_max=5) as server:
            raw = await tasks.start(_asking, sim, server, "/slow")
            await anyio.sleep(1)
            began = anyio.current_time()
        assert anyio.current_time() - began == pytest.approx(5, abs=0.1)
        assert await raw.ended() == b""
        tasks.cancel_scope.cancel()


async def _asking(sim, server, path, *, task_status):
    async with sim.raw(server) as raw:
        await raw.stream.send(GET.replace("/echo", path).encode())
        task_status.started(raw)
        await anyio.sleep_forever()


async def test_a_kept_connection_is_used_again_and_not_for_too_long(sim):
    dialled = []
    connect = sim.network.connect_tcp

    async def counted(host, port):
        dialled.append(host)
        return await connect(host, port)

    sim.network.connect_tcp = counted
    async with sim.server(listen=":80") as server, sim.client(idle_s_max=4) as client:
        for pause_s in (0, 3, 3, 5, 3):
            await anyio.sleep(pause_s)
            assert (await client.get(server.url + "/echo")).status == 200
        assert len(dialled) == 2


async def test_a_connection_that_the_server_closed_meanwhile_is_no_error_when_reading(sim):
    """Its server keeps connections for a shorter time than ours are kept."""
    async with sim.server(listen=":80", head_s_max=1) as server, sim.client() as client:
        assert (await client.get(server.url + "/echo")).status == 200
        await anyio.sleep(2)
        assert (await client.get(server.url + "/echo")).status == 200
        await anyio.sleep(2)
        with pytest.raises(HttpReplyError, match="broke off"):
            await client.post(server.url + "/echo", b"never sent twice")


async def test_more_requests_than_connections_wait_for_their_turn(sim):
    async with (
        sim.server(listen=":80", client_connections_max=2) as server,
        sim.client(connections_max=2) as client,
        anyio.create_task_group() as tasks,
    ):
        found = []

        async def ask():
            found.append((await client.get(server.url + "/echo")).status)

        for _ in range(20):
            tasks.start_soon(ask)
    assert found == [200] * 20


async def test_a_cancelled_request_costs_nobody_a_connection(sim):
    async with sim.server(listen=":80") as server, sim.client(connections_max=1) as client:
        for _ in range(3):
            with pytest.raises(HttpTimeoutError, match=r"/slow does not answer within 1 s"):
                await client.get(server.url + "/slow?secret=1", timeout_s=1)
        assert (await client.get(server.url + "/echo")).status == 200


async def test_nodes_of_a_world_serve_and_call_each_other():
    async with World(seed=1) as world:
        alice, bob = await world.spawn("visor", n=2, settings=ON)
        url = f"http://{bob.address}:9080/health"
        told = (await alice.get(HttpClient).get(url)).expect(200).json()
        assert told["public_key"] == bob.public.hex()
        assert bob.get(HttpServer).counters == {"200 health": 1}

        world.partition([alice], [bob])
        with pytest.raises(HttpTimeoutError):
            await alice.get(HttpClient).get(url, timeout_s=20)
        world.heal()
        assert (await alice.get(HttpClient).get(url, timeout_s=60)).status == 200

        await world.kill(bob)
        with pytest.raises(HttpUnreachableError):
            await alice.get(HttpClient).get(url)
        await world.start(bob)
        assert (await alice.get(HttpClient).get(url)).status == 200
        await world.stop(bob)


def test_a_world_with_http_repeats_from_its_seed():
    async def scenario():
        async with World(seed=5) as world:
            alice, bob = await world.spawn("visor", n=2, settings=ON)
            for _ in range(5):
                await alice.get(HttpClient).get(f"http://{bob.address}:9080/health")
                await anyio.sleep(7)
            return world.trace.digest

    assert simulate(scenario, seed=5) == simulate(scenario, seed=5)
