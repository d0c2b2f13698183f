"""What DVC has left half written is seen as such; tests/soak kills it to make some."""

import os
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.core.base import mending
from tasks.core.base.files import read_json, write_json

LOCK = """\
schema: '2.0'
stages:
  build:
    cmd: python -m tasks.build
    deps:
    - path: data/manifest.parquet
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 12345
    params:
      params.yaml:
        build:
          seed: 10
    outs:
    - path: data/dataset
      hash: md5
      md5: fedcba9876543210fedcba9876543210.dir
      size: 6789
      nfiles: 12
  gate:
    cmd: python -m tasks.gate
    outs:
    - path: reports/gates.json
      hash: md5
      md5: 00112233445566778899aabbccddeeff
"""


def facts(text: str) -> set[tuple[str, str, str, Any]]:
    """Each value of a dependency or output, with its stage and path."""
    stages = YAML(typ="safe").load(text)["stages"].items()
    return {
        (stage, part["path"], key, value)
        for (stage, entry), kind in product(stages, ("deps", "outs"))
        for part in entry.get(kind, ())
        for key, value in part.items()
    }


def test_a_lock_that_was_cut_is_sound_only_if_nothing_in_it_is_half_written(tmp_path: Path) -> None:
    """At any byte. A stage that lacks a line runs again; one with half a digest must not count."""
    file = tmp_path / "dvc.lock"
    sound = 0
    for cut in range(len(LOCK) + 1):
        file.write_text(LOCK[:cut])
        if mending._is_sound(file):
            sound += 1
            assert facts(LOCK[:cut]) <= facts(LOCK)
    assert sound > 3, "whole lines are, and all of it is"
    file.write_text(LOCK)
    assert mending._is_sound(file)
    file.write_text(LOCK.replace("schema", "schemes"))
    assert not mending._is_sound(file)


def test_latencies_of_other_artifacts_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a checkout or a pull: DVC doesn't know of the file, and leaves it beside another model."""
    monkeypatch.chdir(tmp_path)
    facts = {"artifacts": {"onnx": {"sha256": "a" * 64}, "h5": {"error": "model.h5 can't be written"}}}
    for file in (mending.ARTIFACTS, mending.TIMED):
        write_json(file, facts)
    assert mending.mend() == [] and mending.TIMED.exists() and mending.is_timed()
    write_json(mending.ARTIFACTS, {"artifacts": {"onnx": {"sha256": "b" * 64}}})
    mending.mend()
    assert not mending.TIMED.exists() and not mending.is_timed()


@pytest.mark.parametrize("other", ["another program", "one that began later"])
def test_a_process_whose_number_is_anothers_by_now_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """As each container's first process: DVC said "is busy" until somebody removed its record."""
    monkeypatch.chdir(tmp_path)
    mending.RECORD.parent.mkdir(parents=True)
    is_later, nobody = other == "one that began later", 2**22  # of whom DVC itself finds out
    alive = {"pid": nobody if is_later else os.getpid(), "cmd": "dvc repro"}
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        gone = {"pid": os.getpid() if is_later else sleeper.pid, "cmd": "dvc repro train"}
        write_json(
            mending.RECORD, {"read": {"a": [gone, alive], "b": [alive]}, "write": {"c": gone, "d": alive}}
        )
        if is_later:
            os.utime(mending.RECORD, (1, 1))
        (line,) = mending.mend()
        sleeper.kill()
    assert "named a process that is gone" in line
    left = {"read": {"a": [alive], "b": [alive]}, "write": {"d": alive}}
    assert read_json(mending.RECORD) == left
    assert mending.mend() == [], "and those that are at work stay"
