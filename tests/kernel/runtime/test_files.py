from __future__ import annotations

import os
import stat

import pytest

from skycore.errors import ConfigError, LocalProtocolError, StoreError
from skycore.runtime.files import FILE_BYTES_MAX, FolderFiles


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_makes_a_private_folder_and_private_files(tmp_path):
    files = FolderFiles(tmp_path / "deep" / "data")
    files.write("routes.json", b"x")
    assert mode(tmp_path / "deep" / "data") == 0o700
    assert mode(tmp_path / "deep" / "data" / "routes.json") == 0o600


def test_reads_what_it_wrote_and_none_where_nothing_is(tmp_path):
    files = FolderFiles(tmp_path / "data")
    assert files.read("a") is None
    files.write("a", b"one")
    files.write("a", b"two")
    assert files.read("a") == b"two"
    assert FolderFiles(tmp_path / "data").read("a") == b"two"
    assert os.listdir(tmp_path / "data") == ["a"]


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    files = FolderFiles(tmp_path / "data")
    files.write("a", b"old")

    def no_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_disk)
    with pytest.raises(StoreError, match="No space left"):
        files.write("a", b"new")
    assert files.read("a") == b"old"
    assert os.listdir(tmp_path / "data") == ["a"]


def test_content_is_flushed_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    files = FolderFiles(tmp_path / "data")
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        "os.fsync",
        lambda h: (
            steps.append("folder" if stat.S_ISDIR(os.fstat(h).st_mode) else "file"),
            fsync(h),
        ),
    )
    monkeypatch.setattr("os.replace", lambda a, b: (steps.append("rename"), replace(a, b)))
    files.write("a", b"x")
    assert steps == ["file", "rename", "folder"]


def test_what_a_crash_left_beside_is_written_over(tmp_path):
    files = FolderFiles(tmp_path / "data")
    (tmp_path / "data" / ".a.new").write_bytes(b"half of a file that never")
    files.write("a", b"x")
    assert files.read("a") == b"x"


@pytest.mark.parametrize(
    "name", ["", "..", "../a", "a/b", "/etc/passwd", ".a", "a\0b", "ä", "a" * 129]
)
def test_refuses_names_that_lead_elsewhere(tmp_path, name):
    files = FolderFiles(tmp_path / "data")
    for use in (files.path, files.read, lambda n: files.write(n, b"")):
        with pytest.raises(LocalProtocolError):
            use(name)


def test_bounds_a_file(tmp_path):
    files = FolderFiles(tmp_path / "data")
    files.write("a", bytes(FILE_BYTES_MAX))
    with pytest.raises(LocalProtocolError):
        files.write("a", bytes(FILE_BYTES_MAX + 1))
    with (tmp_path / "data" / "b").open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)
    with pytest.raises(StoreError, match="not a file of ours"):
        files.read("b")


def test_closes_an_empty_folder_to_others_and_leaves_a_used_one_alone(tmp_path):
    (tmp_path / "empty").mkdir(mode=0o755)
    FolderFiles(tmp_path / "empty")
    assert mode(tmp_path / "empty") == 0o700
    (tmp_path / "used").mkdir()
    (tmp_path / "used").chmod(0o775)
    (tmp_path / "used" / "thesis.tex").touch()
    with pytest.raises(ConfigError) as caught:
        FolderFiles(tmp_path / "used")
    assert "chmod 700" in caught.value.hint
    assert mode(tmp_path / "used") == 0o775


def test_a_folder_that_is_a_file_is_a_config_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError):
        FolderFiles(tmp_path / "file")


def test_gives_a_path_to_libraries(tmp_path):
    assert FolderFiles(tmp_path / "data").path("items.sqlite") == tmp_path / "data" / "items.sqlite"
