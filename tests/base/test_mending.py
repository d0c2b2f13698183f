"""What DVC has left half written is seen as such; tests/soak kills it to make some."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from tasks.core.base import mending
from tasks.core.base.files import read_json, write_json
from tests.live import until

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


@pytest.mark.parametrize("other", ["another program", "other arguments", "this process", "nobody's child"])
def test_a_process_whose_number_is_anothers_by_now_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """As each container's first process: DVC said "is busy" until somebody removed its record."""
    monkeypatch.chdir(tmp_path)
    mending.RECORD.parent.mkdir(parents=True)
    script = [sys.executable, "-c", "import time; time.sleep(60)"]
    words = {"another program": ["sleep", "60"], "nobody's child": ["true"]}.get(other, [*script, "repro"])
    with subprocess.Popen([*script, "repro"]) as dvc, subprocess.Popen(words) as taken:
        if other == "nobody's child":
            until(lambda: psutil.Process(taken.pid).status() == psutil.STATUS_ZOMBIE)
        alive = {"pid": dvc.pid, "cmd": "/here/.venv/bin/dvc repro"}
        number = os.getpid() if other == "this process" else taken.pid
        gone = {"pid": number, "cmd": "/here/.venv/bin/dvc repro train"}
        record = {"read": {"a": [gone, alive], "b": [alive]}, "write": {"c": gone, "d": alive}}
        write_json(mending.RECORD, record)
        os.utime(mending.RECORD, (1, 1))  # by a server whose clock is slow
        (line,) = mending.mend()
        assert "named a process that is gone" in line
        left = {"read": {"a": [alive], "b": [alive]}, "write": {"d": alive}}
        assert read_json(mending.RECORD) == left
        assert mending.mend() == [], "and those that are at work stay"
        write_json(mending.RECORD, {"write": {"d": alive}})
        assert mending.mend() == [], "DVC leaves out what is empty"
        for process in (dvc, taken):
            process.kill()
