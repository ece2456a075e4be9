"""Signed requests against a server that checks them as a discovery does."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from skycore.contracts.http import HttpResponse
from skycore.discovery.signed import SignedClient, accepted, said
from skycore.errors import ConfigError, HttpReplyError, HttpTimeoutError, RequestRefusedError
from skycore.model.keys import ED25519
from skycore.model.requests import signed
from skycore.testing.fakes import TEST_NETWORK, identity

ALICE = identity("alice")
BASE = "http://tpd.example:80/tpd"


class Server:
    """Checks nonce and signature of each request; counts what it did."""

    def __init__(self):
        self.nonce = 7
        self.status, self.trouble = 200, None
        self.asked, self.done = [], []
        self.busy = 0

    async def get(self, url, **options):
        return await self.request("GET", url, **options)

    async def request(self, method, url, *, body=b"", headers=None, timeout_s=None, **_):
        self.asked.append((method, url))
        if "/security/nonces/" in url:
            assert url == f"{BASE}/security/nonces/{ALICE.public.hex()}"
            return self.answer(200, {"edge": ALICE.public.hex(), "next_nonce": self.nonce}, url)
        if headers is None:
            return self.answer(200, [], url)
        assert self.busy == 0, "one signed request at a time"
        self.busy += 1
        await anyio.lowlevel.checkpoint()
        self.busy -= 1
        nonce = int(headers["sw-nonce"])
        if nonce != self.nonce:
            return self.error(401, "SW-Nonce does not match", url)
        target = url.removeprefix("http://tpd.example:80").encode()
        message = signed(TEST_NETWORK.id, method, "tpd.example:80", target, nonce, body)
        assert bytes.fromhex(headers["sw-public"]) == ALICE.public
        assert ED25519.verify(ALICE.public, message, bytes.fromhex(headers["sw-sig"]))
        self.nonce += 1
        self.done.append((method, url.removeprefix(BASE), body))
        if self.trouble is not None:
            raise self.trouble
        return self.answer(self.status, {"error": "no"} if self.status >= 400 else None, url)

    def error(self, status, message, url):
        return self.answer(status, {"error": {"message": message, "code": status}}, url)

    def answer(self, status, told, url):
        return HttpResponse(status, {}, msgspec.json.encode(told), url)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def client(server):
    return SignedClient(server, ALICE, BASE + "/")


async def test_the_nonce_is_asked_for_once(server, client):
    for i in range(3):
        (await client.request("POST", "/v3/transports/?a=b%20c", b"[%d]" % i)).expect(200)
    assert len(server.asked) == 4 and len(server.done) == 3
    assert client.counters == {"nonces": 1, "signed": 3}


async def test_a_nonce_used_by_somebody_else_costs_one_more_try(server, client):
    await client.request("POST", "/x")
    server.nonce += 5
    (await client.request("POST", "/x", b"again")).expect(200)
    assert [body for *_, body in server.done] == [b"", b"again"]
    assert client.counters == {"nonces": 2, "signed": 3, "mismatches": 1}


async def test_a_server_that_never_takes_its_own_nonce_is_given_up(server, client):
    real = server.answer

    def lying(status, told, url):
        server.nonce += 1
        return real(status, told, url)

    server.answer = lying
    with pytest.raises(RequestRefusedError, match="just given") as error:
        await client.request("POST", "/x")
    assert error.value.code == 401 and error.value.hint
    assert client.counters["signed"] == 2


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_a_refusal_is_returned_and_the_next_request_asks_for_the_nonce(
    server, client, status
):
    server.status = status
    response = await client.request("POST", "/x")
    assert response.status == status and len(server.done) == 1
    server.status = 200
    (await client.request("POST", "/y")).expect(200)
    assert client.counters == {"nonces": 2, "signed": 2}


async def test_after_silence_nothing_is_assumed_and_nothing_sent_twice(server, client):
    await client.request("POST", "/x")
    server.trouble = HttpTimeoutError("silence")
    with pytest.raises(HttpTimeoutError):
        await client.request("POST", "/once")
    server.trouble = None
    await client.request("POST", "/y")
    assert [path for _, path, _ in server.done] == ["/x", "/once", "/y"]
    assert client.counters == {"nonces": 2, "signed": 3, "failed": 1}


async def test_many_tasks_take_turns(server, client):
    async with anyio.create_task_group() as tasks:
        for i in range(20):
            tasks.start_soon(client.request, "POST", f"/{i}")
    assert len(server.done) == 20 and client.counters["mismatches"] == 0


async def test_unsigned_reads_carry_no_key(server, client):
    (await client.get("/all-transports")).expect(200)
    assert server.asked == [("GET", BASE + "/all-transports")]
    assert client.counters == {"unsigned": 1}


@pytest.mark.parametrize(
    "told", [b"[]", b"{}", b'{"next_nonce":-1}', b'{"next_nonce":9007199254740993}', b"\xff"]
)
async def test_a_nonce_that_is_none_is_refused(server, client, told):
    server.answer = lambda status, _, url: HttpResponse(200, {}, told, url)
    with pytest.raises(HttpReplyError):
        await client.request("POST", "/x")


@pytest.mark.parametrize("url", ["", "tpd.example", "ftp://x", "http://", "http://x/?a=b"])
def test_an_address_that_is_none_is_refused_at_once(server, url):
    with pytest.raises(ConfigError) as error:
        SignedClient(server, ALICE, url)
    assert error.value.hint


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":"text"}', "text"),
        (b'{"error":{"message":"text","code":401}}', "text"),
        (b'{"message":"text","code":404}', "text"),
        (b'{"code":400,"error":"text"}', "text"),
        (b"Rate limit exceeded\n", "Rate limit exceeded"),
        (b"[" * 5_000, "[" * 300),
        (b"\xff\xfe", "��"),
        (b"null", "None"),
    ],
)
def test_every_shape_of_refusal_is_understood(body, words):
    response = HttpResponse(404, {}, body, "http://x/y")
    assert said(response) == words
    with pytest.raises(RequestRefusedError) as error:
        accepted(response)
    assert error.value.code == 404 and words in str(error.value)
    assert accepted(response, 404) is response
