"""The lists: exact keys, levels, changes at run time, restarts."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import msgspec
import pytest

from access_whitelist.methods import open_methods
from access_whitelist.service import STATE, Whitelist, open_policy, open_whitelist
from access_whitelist.settings import WhitelistSettings
from skycore.contracts.access import Decision, Level
from skycore.contracts.rpc import Caller, RpcContext
from skycore.errors import ConfigError, InvalidKeyError, RpcError, StoreError
from skycore.testing.contracts.access import AccessPolicyContract, Judged
from skycore.testing.contracts.rpc import RpcServiceContract
from skycore.testing.fakes import MemoryFiles, identity

NODE = identity("node")
ALICE, BOB, CAROL = (identity(name).public for name in ("alice", "bob", "carol"))
CONTEXT = RpcContext(Caller())


@asynccontextmanager
async def running(files=None, **settings):
    files = files or MemoryFiles()
    async with (
        open_whitelist(WhitelistSettings(**settings), NODE, files) as whitelist,
        open_policy(whitelist) as policy,
        open_methods(whitelist, NODE) as service,
    ):
        methods = {m.name: m for m in service.methods}

        async def call(name, **params):
            method = methods[f"whitelist.{name}"]
            return await method.call(msgspec.convert(params, method.params), CONTEXT)

        yield whitelist, policy, call


class TestPolicy(AccessPolicyContract):
    @pytest.fixture
    async def judged(self):
        async with running(whitelist=[f"{BOB.hex()}:operate"]) as (whitelist, policy, _):

            async def change():
                whitelist.remove(BOB)

            yield Judged(policy, BOB, change)


class TestMethods(RpcServiceContract):
    @pytest.fixture
    async def service(self):
        async with (
            open_whitelist(WhitelistSettings(), NODE, MemoryFiles()) as whitelist,
            open_methods(whitelist, NODE) as service,
        ):
            yield service


def held(policy, key):
    return {lv.name.lower() for lv in Level if policy.decide(key, lv) is Decision.ALLOW}


async def test_levels_are_as_the_configuration_says():
    listed = {
        "hypervisors": [ALICE.hex()],
        "whitelist": [BOB.hex(), f"{CAROL.hex()}:operate"],
    }
    async with running(**listed) as (_, policy, _call):
        assert held(policy, ALICE) == {"read", "operate", "admin"}
        assert held(policy, BOB) == {"read"}
        assert held(policy, CAROL) == {"read", "operate"}
        assert held(policy, NODE.public) == set()


async def test_r2_empty_lists_let_nobody_in():
    async with running() as (_, policy, _call):
        assert held(policy, ALICE) == set()


async def test_of_two_entries_for_one_key_the_higher_counts():
    twice = [f"{BOB.hex()}:operate", BOB.hex(), f"{BOB.hex()}:read"]
    async with running(whitelist=twice) as (_, policy, _call):
        assert held(policy, BOB) == {"read", "operate"}


def spellings(key):
    text = key.hex()
    return [
        text.upper(),
        f"0x{text}",
        f" {text}",
        f"{text}\n",
        text[:-1],
        text[:-2],
        f"{text}00",
        " ".join(text[i : i + 2] for i in range(0, 64, 2)),
        text.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")),
        "",
        "00" * 32,  # of small order: anybody's signature fits it
        "ff" * 32,  # not canonical
    ]


@pytest.mark.parametrize("bad", spellings(BOB))
@pytest.mark.parametrize("field", ["hypervisors", "whitelist"])
async def test_r4_a_bad_key_stops_the_start_and_names_the_field(field, bad):
    with pytest.raises(ConfigError, match=rf"access_whitelist\.{field}\[1\]") as refused:
        async with running(**{field: [ALICE.hex(), bad]}):
            pass
    assert refused.value.hint


@pytest.mark.parametrize("level", ["", "root", "ADMIN", "read:admin", " read"])
async def test_r4_so_does_a_level_that_is_none(level):
    with pytest.raises(ConfigError, match=r"access_whitelist\.whitelist\[0\]"):
        async with running(whitelist=[f"{BOB.hex()}:{level}"]):
            pass


@pytest.mark.parametrize("bad", spellings(BOB))
async def test_r4_at_run_time_too(bad):
    async with running() as (_, _policy, call):
        for name in ("add", "remove"):
            with pytest.raises(InvalidKeyError):
                await call(name, key=bad)


async def test_keys_are_added_changed_and_removed_at_run_time():
    async with running() as (_, policy, call):
        assert (await call("add", key=BOB.hex())).changed
        assert held(policy, BOB) == {"read"}
        assert not (await call("add", key=BOB.hex())).changed
        assert (await call("add", key=BOB.hex(), level="admin")).changed
        assert held(policy, BOB) == {"read", "operate", "admin"}
        (row,) = await call("list")
        assert (row.key, row.level, row.configured) == (BOB.hex(), "admin", False)
        gone = await call("remove", key=BOB.hex())
        assert gone.changed and gone.level is None and not gone.note
        assert not (await call("remove", key=BOB.hex())).changed
        assert await call("list") == []


async def test_what_was_added_outlives_a_restart():
    files = MemoryFiles()
    async with running(files) as (_, _policy, call):
        await call("add", key=BOB.hex(), level="operate")
    async with running(files) as (_, policy, _call):
        assert held(policy, BOB) == {"read", "operate"}


async def test_a_removed_key_of_the_configuration_stays_removed(caplog):
    files, listed = MemoryFiles(), {"hypervisors": [ALICE.hex()]}
    async with running(files, **listed) as (_, policy, call):
        gone = await call("remove", key=ALICE.hex())
        assert gone.changed and "configuration still lists" in gone.note
        assert held(policy, ALICE) == set()
    async with running(files, **listed) as (_, policy, call):
        assert held(policy, ALICE) == set()
        assert "removed at run time" in caplog.text
        await call("add", key=ALICE.hex(), level="admin")
        assert held(policy, ALICE) == {"read", "operate", "admin"}
    async with running(files, **listed) as (_, policy, call):
        assert held(policy, ALICE) == {"read", "operate", "admin"}


async def test_r5_each_change_is_told_once_and_no_change_is_not():
    async with running(whitelist=[BOB.hex()]) as (whitelist, _, call):
        told = []
        with whitelist.on_change(lambda: told.append(1)):
            await call("add", key=BOB.hex())
            await call("remove", key=CAROL.hex())
            assert not told
            await call("remove", key=BOB.hex())
            await call("add", key=CAROL.hex())
        assert len(told) == 2


async def test_the_list_is_bounded():
    async with running(keys_max=2) as (_, policy, call):
        for name in ("one", "two"):
            await call("add", key=identity(name).public.hex())
        with pytest.raises(RpcError, match="2 keys"):
            await call("add", key=BOB.hex())
        await call("add", key=identity("one").public.hex(), level="admin")
        assert held(policy, BOB) == set()


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"added":{"zz":"read"}}',
        b'{"removed":["zz"]}',
        b'{"other":1}',
        json.dumps({"added": {BOB.hex(): "root"}}).encode(),
    ],
)
async def test_a_damaged_file_stops_the_start(damaged):
    files = MemoryFiles()
    files.write(STATE, damaged)
    with pytest.raises(ConfigError, match=STATE) as refused:
        async with running(files):
            pass
    assert "delete it" in refused.value.hint


class FullDisk(MemoryFiles):
    def write(self, name, data):
        raise StoreError("the disk is full")


async def test_a_change_that_cannot_be_kept_is_not_made():
    async with running(FullDisk(), whitelist=[BOB.hex()]) as (_, policy, call):
        for name, key in (("remove", BOB), ("add", CAROL)):
            with pytest.raises(StoreError):
                await call(name, key=key.hex())
        assert held(policy, BOB) == {"read"} and held(policy, CAROL) == set()


def test_one_whitelist_serves_policy_and_methods():
    from access_whitelist import plugin

    (provider,) = plugin.skycore_services()
    assert provider.contract is Whitelist
