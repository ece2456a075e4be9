"""Logs: one event a line, whatever a peer puts into it, and the node whose event it is."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import copy_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.logs import _JsonFormatter, _TextFormatter, node_name, set_up_logs


def record(message, *args, name="skycore.guards.gate", error=None):
    info = (type(error), error, error.__traceback__) if error is not None else None
    return logging.LogRecord(name, logging.INFO, "gate.py", 1, message, args, info)


def raised(message):
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


def test_a_line_says_when_how_bad_who_and_where():
    def line():
        node_name.set("0a1b2c3d")
        return _TextFormatter().format(record("stored items=%d", 3))

    text = copy_context().run(line)
    assert text[8:] == " INFO    0a1b2c3d skycore.guards.gate: stored items=3"
    assert _TextFormatter().format(record("x"))[8:] == " INFO    skycore.guards.gate: x"


@pytest.mark.parametrize(
    ("logger", "channel"),
    [
        ("skycore.node", "skycore.node"),
        ("dht_kademlia.core.engine", "skycore.plugin.dht_kademlia"),
        ("skycorelike.service", "skycore.plugin.skycorelike"),
    ],
)
def test_a_plugin_logs_under_its_name(logger, channel):
    assert f" {channel}: " in _TextFormatter().format(record("x", name=logger))
    assert json.loads(_JsonFormatter().format(record("x", name=logger)))["logger"] == channel


@given(st.text())
def test_a_message_is_one_line(text):
    line = _TextFormatter().format(record("peer said %s", text))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert "\x9b" not in line
    assert len(_JsonFormatter().format(record("peer said %s", text)).splitlines()) == 1


@given(st.text())
def test_a_traceback_cannot_forge_a_line(text):
    line = _TextFormatter().format(record("failed", error=raised(text)))
    first, *rest = line.splitlines()
    assert first.endswith("gate: failed")
    assert all(more.startswith("    ") for more in rest)
    assert "\x1b" not in line


def test_json_has_the_error_as_text():
    line = json.loads(_JsonFormatter().format(record("failed", error=raised("a\nb"))))
    assert line["level"] == "info"
    assert "ValueError: a\nb" in line["error"]


def test_set_up_replaces_what_was_there(capsys):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        set_up_logs("json", "debug")
        set_up_logs("json", "debug")
        root.handlers[0].setStream(sys.stderr)
        logging.getLogger("skycore").debug("once")
        assert len(root.handlers) == 1
        assert json.loads(capsys.readouterr().err)["message"] == "once"
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
