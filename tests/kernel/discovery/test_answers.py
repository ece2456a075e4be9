"""Routes, replies and errors of discovery servers, as an ASGI application."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.contracts.http import HttpProblem
from skycore.discovery.answers import (
    Asked,
    Desk,
    ErrorShape,
    Reply,
    error_body,
    holds,
    json_reply,
    problem_in,
    read_body,
    read_json,
)
from skycore.errors import RequestRefusedError, StoreFullError, StoreUnreachableError


def scope(method, path, query=b"", root="/tpd", headers=()):
    return {
        "type": "http",
        "method": method,
        "path": root + path,
        "root_path": root,
        "query_string": query,
        "headers": list(headers),
    }


async def ask(desk, method, path, body=b"", **more):
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    await desk(scope(method, path, **more), receive, send)
    start, end = sent
    return start["status"], dict(start["headers"]), end["body"]


async def echo(asked):
    return json_reply({"path": dict(asked.path), "body": asked.body.decode()})


def raising(error):
    async def handler(asked):
        raise error

    return handler


def desk(shape=ErrorShape.TEXT):
    return Desk(
        shape,
        [
            ("POST", "/transports/", echo),
            ("GET", "/transports/id:{id}", echo),
            ("DELETE", "/transports/id:{id}", echo),
            ("GET", "/", echo),
            ("GET", "/401", raising(RequestRefusedError("no", code=401))),
            ("GET", "/404", raising(RequestRefusedError("none", code=404))),
            ("GET", "/429", raising(RequestRefusedError("Rate limit exceeded", code=429))),
            ("GET", "/503", raising(StoreUnreachableError("gone"))),
            ("GET", "/507", raising(StoreFullError("full"))),
        ],
    )


async def test_a_request_finds_its_route():
    status, headers, body = await ask(desk(), "GET", "/transports/id:12-3")
    assert (status, headers[b"content-type"]) == (200, b"application/json")
    assert json.loads(body) == {"path": {"id": "12-3"}, "body": ""}
    for path in ("/transports/", "/transports"):
        assert (await ask(desk(), "POST", path, b"x"))[2] == b'{"path":{},"body":"x"}'
    assert (await ask(desk(), "HEAD", "/transports/id:1"))[0] == 200
    assert (await ask(desk(), "GET", ""))[0] == 200
    assert (await ask(desk(), "GET", "/", root=""))[0] == 200


async def test_what_is_not_there_is_told_in_the_shape_of_the_service():
    assert (await ask(desk(), "GET", "/x"))[::2] == (404, b'{"error":"not found"}')
    assert (await ask(desk(), "GET", "/transports/id:"))[0] == 404
    assert (await ask(desk(), "GET", "/transports/id:1/2"))[0] == 404
    assert (await ask(desk(), "PUT", "/transports/id:1"))[0] == 405


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        (ErrorShape.TEXT, b'{"error":"none"}'),
        (ErrorShape.NESTED, b'{"error":{"message":"none","code":404}}'),
        (ErrorShape.MESSAGE, b'{"message":"none","code":404}'),
        (ErrorShape.CODE, b'{"code":404,"error":"none"}'),
    ],
)
async def test_errors_have_upstreams_shapes(shape, body):
    assert error_body(shape, 404, "none") == body
    assert (await ask(desk(shape), "GET", "/404"))[::2] == (404, body)
    refused = await ask(desk(shape), "GET", "/401")
    assert refused[::2] == (401, b'{"error":{"message":"no","code":401}}')
    assert (await ask(desk(shape), "GET", "/429"))[::2] == (429, b"Rate limit exceeded\n")
    assert (await ask(desk(shape), "GET", "/503"))[0] == 503
    assert (await ask(desk(shape), "GET", "/507"))[0] == 507
    told = problem_in(shape, {413: "none"})(HttpProblem(413, "too much"))
    assert told == error_body(shape, 413, "none")
    assert b"slow" in problem_in(shape)(HttpProblem(408, "slow"))


def test_a_query_is_bounded():
    assert Asked(scope("GET", "/", b"a=1&a=2&b="), b"", {}).query == {"a": "2", "b": ""}
    with pytest.raises(RequestRefusedError):
        Asked(scope("GET", "/", b"&".join([b"a=1"] * 40)), b"", {}).query  # noqa: B018


@pytest.mark.parametrize(
    ("held", "is_held"),
    [(b'"a"', True), (b'W/"a"', True), (b'"b", "a"', True), (b"*", True), (b'"b"', False)],
)
def test_what_a_client_holds(held, is_held):
    asked = Asked(scope("GET", "/", headers=[(b"if-none-match", held)]), b"", {})
    assert holds(asked, b'"a"') is is_held
    assert not holds(Asked(scope("GET", "/"), b"", {}), b'"a"')


async def test_304_carries_no_type():
    async def same(asked):
        return Reply(b"", 304, headers=((b"etag", b'"a"'),))

    status, headers, body = await ask(Desk(ErrorShape.TEXT, [("GET", "/", same)]), "GET", "/")
    assert (status, headers, body) == (304, {b"etag": b'"a"'}, b"")


async def test_a_body_in_pieces_and_a_client_that_goes():
    pieces = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b"},
    ]

    async def receive():
        return pieces.pop(0)

    assert await read_body(receive) == b"ab"
    pieces += [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.disconnect"},
    ]
    with pytest.raises(RequestRefusedError):
        await read_body(receive)


@given(st.binary(max_size=60))
def test_any_body_is_read_or_refused(body):
    decoder = msgspec.json.Decoder(list[str])
    try:
        assert isinstance(read_json(decoder, body), list)
    except RequestRefusedError as refused:
        assert refused.code == 400


def test_a_deep_body_is_refused():
    with pytest.raises(RequestRefusedError):
        read_json(msgspec.json.Decoder(), b"[" * 100_000)
