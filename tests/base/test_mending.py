"""What DVC has left half written is seen as such; tests/soak kills it to make some."""

import hashlib
import os
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from tasks.core.base import mending, process
from tasks.core.base.files import read_json, write_json
from tests.base.one_stage import environment
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


RESTORED = """
stages:
  copy:
    cmd: cat source.txt source.txt > result.txt
    deps: [source.txt]
    outs: [result.txt]
"""
EDITING = """
import sys
from pathlib import Path
from dvc.cli import main
from dvc.stage import PipelineStage
from tasks.core.base import mending, process

checkout = PipelineStage.checkout

def checking_out(*words, **options):
    found = checkout(*words, **options)
    Path("source.txt").write_text("three")
    return found

mending.guard_restores()
PipelineStage.checkout = checking_out
sys.exit(main(["repro"]))
"""


DAMAGING = """
import sys
from pathlib import Path
from dvc.cli import main
from dvc_data.hashfile.checkout import Link
from tasks.core.base import mending

link = Link.__call__

def linking(*words, **options):
    Link.__call__ = link  # once
    for file in Path(".dvc/cache/files").rglob("*"):
        if file.is_file() and b"oneone" in file.read_bytes():
            file.chmod(0o644)
            file.write_text("onEone")
    return link(*words, **options)

Link.__call__ = linking
mending.guard_restores()
sys.exit(main(["repro"]))
"""


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """A project that has run on `one`, then on `two`."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(RESTORED)
    for words in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(words, cwd=folder, check=True)
    for text in ("one", "two"):
        (folder / "source.txt").write_text(text)
        assert repeated(folder).returncode == 0
    return folder


def repeated(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Has DVC bring a project up to date, as its user does; or by a program of Python's."""
    found = [sys.executable, *(words or ("-m", "dvc", "repro"))]
    return subprocess.run(
        found, cwd=folder, env=environment(), check=False, text=True, capture_output=True, timeout=120
    )


def test_an_edit_while_dvc_restores_a_stage_is_not_recorded(twice: Path) -> None:
    """Its digest stood beside the result of what was there before, and nothing was to be done any more."""
    before = (twice / "dvc.lock").read_text()
    (twice / "source.txt").write_text("one")
    done = repeated(twice, "-c", EDITING)
    assert done.returncode != 0
    assert "source.txt was changed while DVC restored copy; run it again" in done.stderr
    assert (twice / "dvc.lock").read_text() == before
    assert repeated(twice).returncode == 0
    assert (twice / "result.txt").read_text() == "threethree"


def test_what_was_damaged_in_dvcs_cache_is_made_again_and_not_restored(twice: Path) -> None:
    (file,) = [
        file
        for file in (twice / ".dvc/cache/files").rglob("*")
        if file.is_file() and b"oneone" in file.read_bytes()
    ]
    mode = file.stat().st_mode
    file.chmod(0o644)
    file.write_text("onEone")
    file.chmod(mode)
    (twice / "source.txt").write_text("one")
    done = repeated(twice)
    assert done.returncode == 0 and "Running stage 'copy'" in done.stdout
    assert (twice / "result.txt").read_text() == "oneone"
    (twice / "source.txt").write_text("two")
    assert "is cached - skipping run" in repeated(twice).stdout, "what is sound is restored"


@pytest.mark.parametrize("damage", ["half is there", "another digest"])
def test_a_damaged_note_of_a_run_is_not_restored_from(twice: Path, damage: str) -> None:
    """Half of it may be YAML too, and stopped each run: "failed to reproduce 'copy': 'outs'"."""
    (file,) = [
        file
        for file in (twice / ".dvc/cache/runs").glob("*/*/*")
        if hashlib.md5(b"oneone").hexdigest() in file.read_text()
    ]
    text = file.read_text()
    two = hashlib.md5(b"twotwo").hexdigest()
    changed = text.replace(hashlib.md5(b"oneone").hexdigest(), two)
    file.write_text(text[: text.index("outs:")] if damage == "half is there" else changed)
    (twice / "source.txt").write_text("one")
    done = repeated(twice)
    assert done.returncode == 0 and "Running stage 'copy'" in done.stdout, done.stderr
    assert (twice / "result.txt").read_text() == "oneone"
    assert file.read_text() == text, "it is written anew"


def test_what_is_damaged_while_dvc_copies_it_is_made_again(twice: Path) -> None:
    """Between its check and its copy; what it has copied it takes for what it has checked."""
    (twice / "source.txt").write_text("one")
    done = repeated(twice, "-c", DAMAGING)
    assert done.returncode == 0 and "Running stage 'copy'" in done.stdout, done.stderr
    assert (twice / "result.txt").read_text() == "oneone"


def test_what_ctrl_c_leaves_half_made_is_no_traceback(tmp_path: Path) -> None:
    """DVC's progress bar then lacks what its end asks for."""
    half = "from dvc.progress import Tqdm\ndel Tqdm.__init__\nbar = Tqdm.__new__(Tqdm)\ndel bar"
    for begin, words in (("", "postfix"), ("from tasks.core.base import mending; mending.begin_dvc()", "")):
        done = repeated(tmp_path, "-c", f"{begin}\n{half}")
        assert done.returncode == 0 and (words in done.stderr if words else not done.stderr)


@pytest.mark.parametrize("words", [["repro"], ["experiments", "run"], ["stage", "add", "--run"]])
def test_each_command_that_restores_is_guarded(words: list[str], tmp_path: Path) -> None:
    """Also in a clone that no DVC has been at work in yet."""
    show = "from dvc.stage.cache import StageCache; print(StageCache.restore.__qualname__)"
    begin = "from tasks.core.base import mending; mending.begin_dvc()"
    start = f"import sys; sys.orig_argv = ['dvc', *{words}]; {begin}"
    done = subprocess.run(
        [sys.executable, "-c", f"{start}; {show}"],
        cwd=tmp_path,
        env=environment(),
        check=True,
        text=True,
        stdout=-1,
    )
    assert "guard_restores" in done.stdout


@pytest.mark.parametrize(("at_end", "code"), [(False, -signal.SIGINT), (True, mending.CHANGED)])
def test_an_interrupt_waits_until_records_are_judged(at_end: bool, code: int, tmp_path: Path) -> None:
    """It left them as they were, and two tracebacks; the soak found it."""
    (tmp_path / ".dvc/tmp/stages").mkdir(parents=True)
    (tmp_path / "tasks/core/base").mkdir(parents=True)
    interrupt = "import os, sys; os.kill(os.getpid(), 2); os.kill(os.getppid(), 2); open('judged', 'w')"
    (tmp_path / "tasks/core/base/inputs.py").write_text(f"{interrupt}; sys.exit({mending.CHANGED})")
    note = "open('.dvc/tmp/stages/work.json', 'w').close()"
    begin = f"import runpy; runpy.run_path({mending.__file__!r})['begin_dvc']()"
    # A thread that could be given the signal too, as an asynchronous remote has.
    thread = "import threading, time; threading.Thread(target=time.sleep, args=[60], daemon=True).start()"
    words = [sys.executable, "-c", f"{begin}; {thread}; {note}" if at_end else f"{note}; {begin}"]
    done = subprocess.run(
        words, cwd=tmp_path, check=False, capture_output=True, text=True, preexec_fn=process.die_with_parent
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert (tmp_path / "judged").exists()


@pytest.mark.parametrize(
    ("digest", "stays"), [("1", True), ("2", False), (None, True)], ids=["of these", "of others", "damaged"]
)
def test_facts_of_other_artifacts_do_not_stay_beside_these(
    digest: str | None, stays: bool, tmp_path: Path
) -> None:
    """DVC doesn't look at export.json: after a checkout it had times and digests of another model."""
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / "export").mkdir()
    write_json(tmp_path / mending.MADE, {"artifacts": {"onnx": {"sha256": "1"}}})
    write_json(tmp_path / mending.TIMED, {"artifacts": {"onnx": {"sha256": digest, "latency_ms": 2.0}}})
    if digest is None:
        (tmp_path / mending.TIMED).write_text("{")
    words = [sys.executable, "-c", f"import runpy; runpy.run_path({mending.__file__!r})['begin_dvc']()"]
    done = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert (tmp_path / mending.TIMED).exists() == stays
    assert ("export.json was of other artifacts, and is removed" in done.stderr) != stays
