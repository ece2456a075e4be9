"""A part of a node of a few plugins, used by a command while no node runs."""

from __future__ import annotations

import pytest

from skycore.cli.alone import open_alone
from skycore.console import Console, Context
from skycore.contracts.http import HttpClient
from skycore.contracts.runtime import NodeInfo
from skycore.contracts.store import Items
from skycore.errors import ConfigError, HttpError, LocalProtocolError, SkycoreError


def console(folder, **context):
    return Console(Context(data=folder, **context), open_alone)


async def nothing(part):
    return part


def test_a_part_is_there_while_it_is_used_and_the_folder_stays_as_it_is(tmp_path):
    async def use(http):
        with pytest.raises(HttpError):
            await http.get("http://127.0.0.1:1/")
        return "used"

    assert console(tmp_path).alone(HttpClient, ["http_client"], use) == "used"
    assert list(tmp_path.iterdir()) == []


def test_the_users_configuration_counts_but_for_which_plugins_there_are(tmp_path):
    (tmp_path / "node.toml").write_text(
        '[node]\nprofile = "fullnode"\nenable = ["metrics_prometheus", "http_server"]\n'
        'disable = ["http_client"]\n[http_client]\ntimeout_s = 3.5\n'
        '[identity]\nsecret_key_file = "elsewhere.key"\n'
    )

    async def use(http):
        return http._settings.timeout_s

    assert console(tmp_path).alone(HttpClient, ["http_client"], use) == 3.5
    over = {"http_client": {"timeout_s": 1.5}}
    assert console(tmp_path).alone(HttpClient, ["http_client"], use, over) == 1.5
    assert [path.name for path in tmp_path.iterdir()] == ["node.toml"]


def test_an_error_of_the_question_comes_out_as_it_is(tmp_path):
    async def fail(http):
        raise SkycoreError("no such thing", hint="look again")

    with pytest.raises(SkycoreError, match="no such thing") as bad:
        console(tmp_path).alone(HttpClient, ["http_client"], fail)
    assert bad.value.hint == "look again"


def test_a_wrong_setting_is_told_before_anything_starts(tmp_path):
    over = {"http_client": {"timeout_s": "soon"}}
    with pytest.raises(ConfigError, match="timeout_s"):
        console(tmp_path).alone(HttpClient, ["http_client"], nothing, over)


def test_what_these_plugins_do_not_provide_is_named(tmp_path):
    with pytest.raises(SkycoreError, match="no Items"):
        console(tmp_path).alone(Items, ["http_client"], nothing)


def test_a_console_without_the_way_to_a_node_says_so(tmp_path):
    with pytest.raises(LocalProtocolError):
        Console(Context(data=tmp_path)).alone(NodeInfo, [], nothing)
