"""The client against the server on real sockets, and against servers that lie."""

from __future__ import annotations

import gzip
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import anyio
import pytest
from anyio.streams.tls import TLSStream
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from skycore.errors import ConfigError, HttpError, HttpReplyError, HttpUnreachableError
from skycore.testing.contracts.http import HttpClientContract


class TestClient(HttpClientContract):
    @pytest.fixture
    async def client(self, kit):
        async with kit.client() as client:
            yield client

    @pytest.fixture
    async def url(self, kit):
        async with kit.server(stop_s_max=0.1) as server:
            yield server.url

    @pytest.fixture
    async def dead_url(self, kit):
        async with kit.network.listen_tcp("127.0.0.1", 0) as listener:
            port = listener.port
        return f"http://127.0.0.1:{port}/"


@asynccontextmanager
async def saying(kit, *answers, tls=None):
    """Serve canned answers, one a request; yield the address and the heads that came."""
    heads = []

    async def serve(listener):
        while True:
            stream = await listener.accept()
            tasks.start_soon(talk, stream)

    async def talk(stream):
        try:
            if tls is not None:
                stream = await TLSStream.wrap(
                    stream, server_side=True, ssl_context=tls, standard_compatible=False
                )
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += await stream.receive()
                heads.append(head.decode("latin-1").lower())
                await stream.send(answers[min(len(heads), len(answers)) - 1])
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            await anyio.aclose_forcefully(stream)

    async with (
        kit.network.listen_tcp("127.0.0.1", 0) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(serve, listener)
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.port}", heads
        tasks.cancel_scope.cancel()


def answer(body=b"", *lines, status="200 OK"):
    """Write an answer by hand."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


GZIP = "Content-Encoding: gzip"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (answer(gzip.compress(bytes(50 * 1024 * 1024), mtime=0), GZIP), "more than 1000 bytes"),
        (answer(b"no gzip at all", GZIP), "broken gzip"),
        (answer(gzip.compress(b"x" * 100, mtime=0)[:-12], GZIP), "cut off"),
        (answer(b"x", "Content-Encoding: br"), "'br'"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 300_000, "broke off"),
    ],
)
async def test_lies_are_named_and_cost_no_memory(kit, said, words):
    async with saying(kit, said) as (url, _), kit.client(body_bytes_max=1000) as client:
        with pytest.raises(HttpReplyError, match=words):
            await client.get(url)


async def test_an_answer_in_gzip_is_unpacked(kit):
    body = b'{"a": 1}' * 50
    async with saying(kit, answer(gzip.compress(body), GZIP)) as (url, heads), kit.client() as c:
        response = await c.get(url)
        assert response.body == body
        assert "content-encoding" not in response.headers
        assert "accept-encoding: gzip" in heads[0]
        assert heads[0].startswith("get / http/1.1")


async def test_what_was_meant_for_one_server_is_not_told_another(kit):
    async with saying(kit, answer(b"here")) as (other, told):
        onward = answer(b"", f"Location: {other}/b", status="302 Found")
        async with saying(kit, onward) as (url, first), kit.client() as client:
            headers = {"SW-Sig": "secret", "If-None-Match": '"a"'}
            response = await client.get(url + "/a", headers=headers)
            assert (response.body, response.url) == (b"here", f"{other}/b")
    assert "sw-sig: secret" in first[0]
    assert "sw-sig" not in told[0]
    assert 'if-none-match: "a"' in told[0]


@pytest.fixture
def authority(tmp_path):
    """A certificate for 127.0.0.1 that only its own file vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    whole = tmp_path / "whole.pem"
    no_password = serialization.NoEncryption()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    whole.write_bytes(pem + key.private_bytes(encoding, form, no_password))
    ca = tmp_path / "ca.pem"
    ca.write_bytes(pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(whole)
    return str(ca), context


async def test_https_is_checked_against_certificates(kit, authority):
    ca, context = authority
    async with saying(kit, answer(b"secure"), tls=context) as (url, _):
        async with kit.client(ca_file=ca) as client:
            for _ in range(2):
                assert (await client.get(url)).body == b"secure"
        async with kit.client() as client:
            with pytest.raises(HttpUnreachableError, match="certificate verify failed"):
                await client.get(url)


async def test_a_redirect_never_leads_out_of_tls(kit, authority):
    ca, context = authority
    onward = answer(b"", "Location: http://127.0.0.1:1/", status="302 Found")
    async with saying(kit, onward, tls=context) as (url, _), kit.client(ca_file=ca) as client:
        with pytest.raises(HttpReplyError, match="without TLS"):
            await client.get(url)


async def test_a_file_of_certificates_that_is_none_is_named(kit, tmp_path):
    async with kit.client(ca_file=str(tmp_path / "none.pem")) as client:
        with pytest.raises(ConfigError, match=r"http_client\.ca_file"):
            await client.get("https://127.0.0.1:1/")


async def test_messages_hold_no_query(kit):
    async with kit.client() as client:
        with pytest.raises(HttpUnreachableError) as said:
            await client.get("http://127.0.0.1:1/path?token=secret")
        assert "secret" not in str(said.value)
        assert "/path" in str(said.value)
        with pytest.raises(HttpError, match="must not hold"):
            await client.get("http://user:secret@127.0.0.1:1/")


async def test_headers_with_line_breaks_are_refused_before_they_are_sent(kit):
    async with saying(kit, answer(b"x")) as (url, heads), kit.client() as client:
        with pytest.raises(Exception, match="Illegal header value"):
            await client.get(url, headers={"x": "a\r\ny: b"})
        assert not heads


async def test_what_is_handed_in_to_a_server_that_was_restarted_goes_over_a_new_connection(kit):
    """Connections that the old server closed are known to be, so none of them is tried."""
    port = 0
    async with kit.client() as client:
        for _ in range(2):
            async with (
                kit.network.listen_tcp("127.0.0.1", port) as listener,
                anyio.create_task_group() as tasks,
            ):
                port = listener.port
                tasks.start_soon(one_answer_each, listener)
                url = f"http://127.0.0.1:{port}/"
                async with anyio.create_task_group() as posts:  # several connections are kept
                    for _ in range(4):
                        posts.start_soon(client.post, url, b"{}")
                tasks.cancel_scope.cancel()
            await anyio.wait_all_tasks_blocked()


async def one_answer_each(listener):
    async def talk(stream):
        try:
            while True:
                await stream.receive()
                await stream.send(answer(b"{}"))
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass
        finally:
            await anyio.aclose_forcefully(stream)

    async with anyio.create_task_group() as tasks:
        while True:
            tasks.start_soon(talk, await listener.accept())
