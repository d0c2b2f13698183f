"""What was accepted last comes from DVC's cache, and it is told where that lacks it."""

import subprocess
from pathlib import Path

import pytest

from tasks.core.base.files import remove
from tasks.core.data.last_run import is_another, last_inputs, last_output, last_output_files

STAGE = """
stages:
  make:
    cmd: mkdir -p folder && cp source.txt folder/a.txt && cp source.txt file.txt
    deps: [source.txt]
    params: [section]
    outs: [file.txt, folder]
"""
FILE, FOLDER = Path("file.txt"), Path("folder")


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["dvc", "init", "--quiet", "--no-scm"], check=True)
    Path("dvc.yaml").write_text(STAGE)
    Path("source.txt").write_text("good")
    Path("params.yaml").write_text("section: {depth: 3}")


def test_nothing_is_accepted_before_the_first_run() -> None:
    assert last_output(FILE) is None and last_output_files(FOLDER) == {}
    FILE.write_text("rejected")
    assert not is_another(FILE)


def test_what_was_accepted_is_found_whatever_lies_there_now() -> None:
    subprocess.run(["dvc", "repro", "--quiet"], check=True)
    FILE.unlink()
    FILE.write_text("rejected")
    remove(FOLDER)
    found = last_output(FILE)
    assert found and found.read_text() == "good"
    assert {name: file.read_text() for name, file in last_output_files(FOLDER).items()} == {"a.txt": "good"}


def test_where_the_cache_lacks_it_another_is_told_from_the_same() -> None:
    subprocess.run(["dvc", "repro", "--quiet"], check=True)
    remove(Path(".dvc/cache"))
    assert last_output(FILE) is None and last_output_files(FOLDER) == {}
    assert not is_another(FILE)
    FILE.unlink()
    FILE.write_text("made again")
    assert is_another(FILE)


def test_what_a_stage_was_given_when_it_last_ended_well_is_found() -> None:
    source = Path("source.txt")
    assert last_inputs("make", [source]) == ({}, {})
    subprocess.run(["dvc", "add", "--quiet", "source.txt"], check=True)  # into the cache
    subprocess.run(["dvc", "repro", "--quiet"], check=True)
    source.unlink()
    source.write_text("another")
    Path("params.yaml").write_text("section: {depth: 4}")
    files, values = last_inputs("make", [source, Path("no dependency")])
    assert {path: file.read_text() for path, file in files.items()} == {source: "good"}
    assert values == {"section": {"depth": 3}}
    assert last_inputs("no stage", [source]) == ({}, {})
