"""Files appear whole or not at all, and a folder's digest depends on names and contents alone."""

import os
import subprocess
from pathlib import Path

import pytest

from tasks.core.base.files import HOST, replacing, sha256, size, write_json


def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "file") as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_what_fails_half_way_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/old").write_text("old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["old"]


def test_a_folder_takes_the_place_of_one_that_holds_other_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/old").write_text("old")
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]


def test_what_a_killed_process_left_is_swept_up_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f".data.{HOST}.{dead.pid}.new.tmp").mkdir()
    living = tmp_path / f".data.{HOST}.{os.getppid()}.new.tmp"
    elsewhere = tmp_path / f".data.another-machine.{dead.pid}.new.tmp"
    living.touch()
    elsewhere.touch()
    write_json(tmp_path / "data", [])
    assert {path.name for path in tmp_path.iterdir()} == {living.name, elsewhere.name, "data"}


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folders_digest_knows_names_and_contents_but_no_times(tmp_path: Path) -> None:
    for name, files in (
        ("a", {"x": "1", "y": "2"}),
        ("b", {"y": "2", "x": "1"}),
        ("c", {"x": "2", "y": "1"}),
    ):
        (tmp_path / name / "inner").mkdir(parents=True)
        for file, text in files.items():
            (tmp_path / name / "inner" / file).write_text(text)
    os.utime(tmp_path / "b/inner/x", (1, 1))
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b") != sha256(tmp_path / "c")
    assert size(tmp_path / "a") == 2
