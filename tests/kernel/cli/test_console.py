"""What strangers wrote never moves the terminal of who reads it: neutralised in the console."""

from __future__ import annotations

import json
import re

import pytest

from skycore.console import Console, Context

NASTY = "v1\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202egpj\u2066\nvpn FORGED:44 official"
"""Title, clear screen, 8-bit CSI, delete, bidi override and isolate, and a forged row."""
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture
def console(tmp_path):
    return Console(Context(tmp_path))


def shown(capsys):
    out = capsys.readouterr().out
    assert not FORBIDDEN.search(out), repr(out)
    return out


def test_tables_keep_one_row_for_one_record(console, capsys):
    console.show(None, lambda _: console.table(("A", "B"), [("one", NASTY), (NASTY, None)]))
    out = shown(capsys)
    assert len(out.splitlines()) == 3
    assert "\\x1b[2J" in out and "\\x0avpn FORGED" in out


def test_lines_below_tables(console, capsys):
    console.show(None, lambda _: console.stack(console.table(("A",), [("x",)]), NASTY, "end"))
    assert len(shown(capsys).splitlines()) == 4


def test_pairs_and_text_keep_their_own_lines(console, capsys):
    console.show(None, lambda _: console.pairs([(NASTY, f"two\nlines {NASTY}")]))
    shown(capsys)
    console.show(None, lambda _: f"a\tb\n{NASTY}")
    assert shown(capsys).startswith("a\tb\nv1\\x1b]0;owned\\x07")


def test_json_says_the_same_in_characters_that_move_nothing(tmp_path, capsys):
    console = Console(Context(tmp_path, as_json=True))
    console.show({"version": NASTY, "snow": "\u2603"})
    out = shown(capsys)
    assert json.loads(out) == {"version": NASTY, "snow": "\u2603"}
    assert "\u2603" in out
    console.line("for a person", {"version": NASTY})
    assert json.loads(shown(capsys)) == {"version": NASTY}


def test_one_of_many_and_notes(console, capsys):
    console.line(NASTY, None)
    assert len(shown(capsys).splitlines()) == 1
    console.note(NASTY)
    assert not FORBIDDEN.search(capsys.readouterr().err)
