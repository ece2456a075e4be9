"""What every import of a recording shares: reading it, paging it, saying what became of it."""

from __future__ import annotations

import json

import anyio
import pytest
import typer

from skycore import importing
from skycore.console import Console, Context
from skycore.errors import ConfigError, RecordingError
from skycore.importing import pages, publish_recorded, recorded, row_of
from skycore.model.entries import DmsgEntry
from skycore.model.recording import RecordedFact

KEYS = [bytes((i,)) * 33 for i in range(1, 8)]


def fact(key: bytes) -> RecordedFact:
    return RecordedFact(b"dmsg", key, DmsgEntry(static=key.hex()))


class Talking(Console):
    """A console whose node is a function."""

    def __init__(self, node) -> None:
        super().__init__(Context(as_json=True))
        self.calls: list[tuple[str, dict]] = []
        self._node = node

    def talk(self, talk, what=""):
        class Client:
            async def call(client, method, params):
                self.calls.append((method, params))
                return self._node(method, params)

        return anyio.run(talk, Client(), None)


def node(method: str, params: dict) -> dict:
    if method == "publish.mirrored":
        at = int(params["after"] or "0", 16)
        return {"subjects": [KEYS[at].hex()], "next": f"{at + 1:064x}" if at < 6 else ""}
    count = sum("json" in row for row in params["facts"])
    gone = len(params["facts"]) - count
    return {"published": count, "unchanged": 0, "deleted": gone, "refused": 0,
            "replicas": 2 * count, "queued": count, "reasons": []}  # fmt: skip


def test_l6_replace_deletes_whom_this_node_mirrors_and_the_recording_does_not_list(capsys):
    console, before = Talking(node), []

    async def note(client, salt):
        before.append(salt)

    listed = [fact(key) for key in KEYS[:4]]
    publish_recorded(console, listed, replace=True, delegations=["token"], before=note)
    asked = [params["after"] for method, params in console.calls if method == "publish.mirrored"]
    assert len(asked) == 7 and before == ["dmsg"]
    [sent] = [params for method, params in console.calls if method == "publish.facts"]
    assert sent["delegations"] == ["token"]
    deleted = [row["subject"] for row in sent["facts"] if row.get("delete")]
    assert deleted == [key.hex() for key in KEYS[4:]]
    told = json.loads(capsys.readouterr().out)
    assert (told["published"], told["deleted"], told["queued"], told["records"]) == (4, 3, 4, 4)


def test_what_is_refused_is_said_and_ends_with_an_error(capsys):
    def refusing(method, params):
        return dict.fromkeys(("published", "unchanged", "deleted", "replicas", "queued"), 0) | {
            "refused": len(params["facts"]),
            "reasons": ["no delegation"],
        }

    with pytest.raises(typer.Exit):
        publish_recorded(Talking(refusing), [fact(KEYS[0])], replace=False, delegations=())
    assert "no delegation" in capsys.readouterr().out


def test_pages_are_bounded_by_count_and_by_size(monkeypatch):
    rows = [row_of(fact(KEYS[0]))] * 1_200
    assert [len(page) for page in pages(rows)] == [500, 500, 200]
    monkeypatch.setattr(importing, "IMPORT_BYTES_MAX", 1_000)
    sizes = [len(json.dumps(page)) for page in pages(rows[:50])]
    assert len(sizes) > 5 and max(sizes) <= 1_100
    assert list(pages([])) == []


def test_what_cannot_be_imported_is_named(tmp_path, monkeypatch):
    file = tmp_path / "network.json"
    with pytest.raises(ConfigError, match="cannot read"):
        recorded(file, None, None)
    file.write_text("{}")
    with pytest.raises(RecordingError, match="no recording"):
        recorded(file, None, None)
    file.write_text(json.dumps({"snapshots": [{"dmsg_clients": [KEYS[0].hex()]}]}))
    assert [one.subject for one in recorded(file, 0, "dmsg")] == [KEYS[0]]
    with pytest.raises(ConfigError, match="records nothing under 'tp'"):
        recorded(file, None, "tp")
    monkeypatch.setattr(importing, "FILE_BYTES_MAX", 10)
    with pytest.raises(ConfigError, match="is larger than"):
        recorded(file, None, None)
