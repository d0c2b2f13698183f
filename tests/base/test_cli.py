"""However a stage ends, it ends with one line and the right exit code, and costs nobody a result."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tasks.core.base import process
from tasks.core.base.files import HOST
from tests.base.one_stage import (
    FIRST,
    HALF,
    Done,
    environment,
    finish,
    is_as_the_first_run_left_it,
    repro,
    script,
)
from tests.structure import ROOT

UNHEARD = """import weakref
class Thing:
    pass
thing = Thing()
watch = weakref.ref(thing, lambda _: [os.kill(os.getpid(), 2), *range(1000)])
del thing  # what is raised here goes nowhere
time.sleep(60)"""

ENDING = "import atexit; atexit.register(os.kill, os.getpid(), 2)"  # an interrupt when the work is done


def run(folder: Path, body: str, **more: str) -> Done:
    return finish([sys.executable, str(script(folder, body))], folder, env=environment(**more))


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("pass", 0, ""),
        ("raise Rejected('rejected: top-1 is low')", 1, "work: rejected: top-1 is low\n"),
        ("raise DataError('x.png is empty')", 2, "work: x.png is empty\n"),
        ("open('nowhere/x')", 2, "work: No such file or directory: nowhere/x\n"),
        ("raise KeyboardInterrupt", 130, "work: interrupted\n"),
        ("os.kill(os.getpid(), 15)", 130, "work: interrupted\n"),
        (UNHEARD, 130, "work: interrupted\n"),
        (ENDING, -2, ""),
        (f"{ENDING}; raise Rejected('no')", -2, "work: no\n"),
        (f"{ENDING}; raise DataError('bad')", -2, "work: bad\n"),
        (
            "{}['a']",
            70,
            "work: a fault of ours, KeyError: 'a'; DARKROOM_DEBUG=1 shows where\n",
        ),
    ],
)
def test_an_end_is_an_exit_code_and_at_most_one_line(tmp_path: Path, body: str, code: int, line: str) -> None:
    done = run(tmp_path, body)
    assert (done.returncode, done.stderr) == (code, line)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tasks.check", "mine.yaml"], "unrecognized arguments: mine.yaml"),
        (["tasks.score", "", "."], "argument MODEL: it is empty"),
        (["tasks.ci_report", "--base", ""], "argument --base: it is empty"),
        (["flows.pipeline", ""], "argument STAGE: it is empty"),
        (["flows.promote", "--verify", ""], "argument --verify: it is empty"),
        (["flows.promote", "--card", ""], "argument --card: it is empty"),
        (["tasks.predict", "model", "image", "--batch", "9" * 20], "whole number of at most"),
        (
            ["tasks.predict", "model", "image", "--batch", "9" * 5000],
            "whole number of at most",
        ),
        (["tasks.backbones", "rank", "--sizes", "2000"], "whole number of at most 1024"),
    ],
)
def test_an_argument_that_no_command_can_take_is_told_before_any_work(words: list[str], said: str) -> None:
    done = finish([sys.executable, "-m", *words], ROOT)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


def test_a_command_that_is_interrupted_while_it_imports_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/__init__.py").write_text("import os; os.kill(os.getpid(), 2)")
    done = finish([sys.executable, "-m", "tasks.work"], tmp_path, process.die_with_parent)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_stage_that_is_interrupted_when_its_work_is_done_gives_its_outputs_back(repository: Path) -> None:
    done = repro(repository, f"{HALF}Path('result').write_text('second')\n{ENDING}")
    assert done.returncode and "work: interrupted\n" in done.stderr and "Traceback" not in done.stderr
    assert is_as_the_first_run_left_it(repository)


SQLITE_FULL = """import sqlite3
database = sqlite3.connect('small')
database.execute('PRAGMA max_page_count = 2')
database.execute('CREATE TABLE a (b)')
database.executemany('INSERT INTO a VALUES (?)', [('x' * 1000,)] * 100)"""
PARQUET = """import pyarrow as pa, pyarrow.parquet as pq
pq.write_table(pa.table({'a': range(10000)}), 'full')"""
HDF5 = """import h5py, numpy as np
with h5py.File('full', 'w') as file:
    file.create_dataset('a', data=np.ones(10000))"""
NO_DESCRIPTORS = """import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
files = [open('work.py') for _ in range(50)]"""


@pytest.mark.skipif(sys.platform != "linux", reason="a full device is Linux's")
@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("open('full', 'wb', 0).write(b'x')", "No space left on device: no file named; make room on"),
        ("import numpy as np; np.savetxt('full', np.ones(10000))", "No space left on device: .*; make room"),
        (PARQUET, ".*No space left on device.*; make room on the disk"),
        (HDF5, ".*; make room on the disk"),
        (SQLITE_FULL, "database or disk is full; make room on the disk"),
        (NO_DESCRIPTORS, "Too many open files: work.py; let it open more, as by `ulimit -n 4096`"),
        ("import numpy as np; np.ones(1 << 50)", "Unable to allocate .*; free some memory"),
        (
            'raise RuntimeError("can\'t start new thread")',
            "can't start new thread; let this user or container",
        ),
        ("raise MemoryError", "MemoryError; free some memory, or lower compute.workers"),
    ],
)
def test_what_the_machine_refuses_is_no_fault_of_ours(tmp_path: Path, body: str, line: str) -> None:
    (tmp_path / "full").symlink_to("/dev/full")  # by a link: pyarrow removes what it could not write
    done = run(tmp_path, body)
    assert done.returncode == 2, done.stderr
    (last,) = [text for text in done.stderr.splitlines() if text.startswith("work: ")]
    assert re.fullmatch(rf"work: {line}.*, and run it again", last), last


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "\\u65e5 \\xe9"), ("latin-1", "\\u65e5 \xe9"), ("utf-8", "\u65e5 \xe9")]
)
def test_a_terminal_that_can_not_show_a_name_is_told_it_in_another_way(
    tmp_path: Path, encoding: str, shown: str
) -> None:
    words = [
        sys.executable,
        str(script(tmp_path, "console.say('\u65e5 \xe9')\nraise DataError('\u65e5 \xe9')")),
    ]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment(PYTHONIOENCODING=encoding), check=False, capture_output=True
    )
    assert done.returncode == 2
    assert done.stdout.decode(encoding) == f"{shown}\n"
    assert done.stderr.decode(encoding) == f"work: {shown}\n"


def test_warnings_that_are_to_be_errors_are_those_of_other_packages(tmp_path: Path) -> None:
    body = "import warnings, subprocess, sys\nwarnings.warn('old', DeprecationWarning)\n"
    body += "subprocess.run([sys.executable, '-c', 'import warnings; warnings.warn(\"old\")'], check=True)"
    done = run(tmp_path, f"{body}\nwarnings.warn('odd')", PYTHONWARNINGS="error")
    assert done.returncode == 0 and "UserWarning: odd" in done.stderr and "Deprecation" not in done.stderr


def test_in_a_hook_of_another_repository_git_is_asked_about_this_one(tmp_path: Path) -> None:
    """As DVC is. Tags would be made over there."""
    for name in ("here", "there"):
        subprocess.run(["git", "init", "-q", tmp_path / name], check=True)
    hook = {"GIT_DIR": str(tmp_path / "there/.git"), "GIT_INDEX_FILE": str(tmp_path / "there/.git/index")}
    body = (
        "import tasks; from tasks.core.release import git; print(git.run('rev-parse', '--absolute-git-dir'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", body],
        cwd=tmp_path / "here",
        env=os.environ | hook | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{tmp_path / 'here/.git'}\n"


def test_what_can_not_work_without_docstrings_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, "pass", PYTHONOPTIMIZE="2")
    assert (done.returncode, done.stderr) == (
        2,
        "work: Python is to leave docstrings out (-OO), which other packages need; unset PYTHONOPTIMIZE\n",
    )
    assert run(tmp_path, "pass", PYTHONOPTIMIZE="1").returncode == 0


def test_a_fault_of_ours_shows_where_when_asked(tmp_path: Path) -> None:
    done = run(tmp_path, "{}['a']", DARKROOM_DEBUG="1")
    assert done.returncode == 70
    assert "Traceback" in done.stderr and "work.py" in done.stderr


def test_a_reader_that_goes_away_does_not_end_the_work(tmp_path: Path) -> None:
    body = "for number in range(100000):\n    console.say(str(number))\nPath('written').touch()"
    words = [sys.executable, str(script(tmp_path, body))]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment(), stdout=pipe, stderr=pipe, text=True
    ) as stage:
        assert stage.stdout and stage.stderr
        assert stage.stdout.readline() == "0\n"
        stage.stdout.close()
        assert stage.stderr.read() == ""
    assert stage.returncode == 0
    assert (tmp_path / "written").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the stage in /proc")
@pytest.mark.parametrize("shell", ["exec {}", "{}; true"], ids=["replaced shell", "shell that stays"])
@pytest.mark.parametrize("importing", [True, False])
def test_a_stage_ends_with_the_process_that_started_it(tmp_path: Path, importing: bool, shell: str) -> None:
    wait = "Path('started').touch()\ntime.sleep(60)\nPath('written').touch()"
    (tmp_path / "dvc.yaml").write_text("stages: {work: {deps: []}}")
    file = script(tmp_path, wait)
    if importing:
        file.write_text("import tasks, time\nfrom pathlib import Path\n" + wait)
    words = ["sh", "-c", shell.format(shlex.join([sys.executable, str(file)]))]
    start = f"import os, subprocess; subprocess.run({words!r}, env=os.environ | {{'DVC_STAGE': 'work'}})"
    parent = subprocess.Popen([sys.executable, "-c", start], cwd=tmp_path, env=environment())
    _wait_for((tmp_path / "started").exists)
    started = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _wait_for(lambda: not any(map(_runs, started)))
    assert not (tmp_path / "written").exists()


def _wait_for(come: Callable[[], bool], seconds: int = 30) -> None:
    end = time.monotonic() + seconds
    while not come():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_stage_that_can_not_work_gives_back_what_dvc_removed(repository: Path) -> None:
    done = repro(repository, HALF + "raise DataError('source is bad')")
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith("work: ")] == ["work: source is bad"]
    assert is_as_the_first_run_left_it(repository)


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        ("import nothing_such", "ModuleNotFoundError: No module named 'nothing_such'; `make ready` installs"),
        ("x = = 1", r"SyntaxError \(.*/slip.py, line 1\); mend it"),
        ("1 / 0", "ZeroDivisionError: division by zero; mend it"),
    ],
)
def test_a_stage_that_can_not_start_gives_back_too(repository: Path, slip: str, said: str) -> None:
    (repository / "slip.py").write_text(slip)
    (repository / "work.py").write_text("import tasks\nimport slip\n")
    done = finish(["dvc", "repro"], repository)
    assert done.returncode and "exited with 70" in done.stderr
    assert re.search(f"^work: can't start, {said}", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
    assert is_as_the_first_run_left_it(repository)


def test_another_python_is_told_where_the_right_one_is() -> None:
    words = [sys.executable, "-S", "-m", "tasks.check"]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("No module named 'psutil'; ")
    assert "put .venv/bin first in PATH" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_stage_that_never_ran_has_nothing_to_give_back(repository: Path) -> None:
    (repository / "dvc.lock").unlink()
    done = repro(repository, "raise DataError('source is bad')")
    assert [line for line in done.stderr.splitlines() if line.startswith("work: ")] == ["work: source is bad"]


@pytest.mark.parametrize(
    ("importing", "number"), [(True, signal.SIGINT), (False, signal.SIGINT), (False, signal.SIGHUP)]
)
def test_interrupted_twice_a_stage_still_gives_back(repository: Path, importing: bool, number: int) -> None:
    """Or where its terminal is closed."""
    wait = "Path('started').touch()\ntime.sleep(60)\n"
    file = script(repository, HALF + wait)
    if importing:
        file.write_text(f"import tasks, time\nfrom pathlib import Path\n{HALF}{wait}")
    pipe = subprocess.PIPE
    words = ["dvc", "repro"]
    run = subprocess.Popen(
        words,
        cwd=repository,
        env=environment(),
        stderr=pipe,
        stdout=pipe,
        text=True,
        start_new_session=True,
        # `nohup make test` would have it ignored.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509
    )
    _wait_for((repository / "started").exists)
    for _ in range(2):
        os.killpg(run.pid, number)
        time.sleep(0.3)
    _, errors = run.communicate()
    assert "work: interrupted\n" in errors and "Traceback" not in errors
    assert is_as_the_first_run_left_it(repository)


def test_a_stage_that_outlives_its_dvc_is_waited_for(repository: Path) -> None:
    """It would put its earlier outputs back over those that the next run has made."""
    wait = "Path('started').touch(); time.sleep(60)"
    script(repository, f"try:\n    {wait}\nexcept KeyboardInterrupt:\n    time.sleep(3); raise")
    run = subprocess.Popen(["dvc", "repro"], cwd=repository, env=environment(), start_new_session=True)
    _wait_for((repository / "started").exists)
    run.kill()
    run.wait()
    done = repro(repository, FIRST.replace("'first'", "'second'"))
    assert done.returncode == 0, done.stderr
    assert "work: waiting for this stage of an earlier run to end" in done.stdout
    assert (repository / "result").read_text() == "second"


def test_what_killed_runs_left_is_swept(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    wait = "import tempfile\ntempfile.NamedTemporaryFile(delete=False).close()\nPath('started').touch()"
    script(repository, f"{wait}\ntime.sleep(60)")
    words = ["dvc", "repro"]
    more = environment(TMPDIR=str(temporary))
    run = subprocess.Popen(words, cwd=repository, env=more, start_new_session=True)
    _wait_for((repository / "started").exists)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert len(list(temporary.rglob("tmp*"))) == 1, "there is something to sweep"
    mine, alive = f".result.{HOST}.{run.pid}.new.tmp", f".result.{HOST}.{os.getpid()}.new.tmp"
    cached = next((repository / ".dvc/cache/files/md5").iterdir())
    left = [
        repository / mine,
        repository / ".0123456789-_abcdefghij.tmp",
        cached / ".0123456789-_abcdefghij.tmp",
    ]
    others = [repository / alive, repository / ".mine.tmp", cached / "0123456789"]
    for file in left + others:
        file.touch()
        os.utime(file, (0, 0))
    (young := repository / ".abcdefghij-_0123456789.tmp").touch()
    script(repository, FIRST)
    subprocess.run(words, cwd=repository, env=more, check=True)
    assert not list(temporary.rglob("*"))
    assert not any(file.exists() for file in left) and all(file.exists() for file in [*others, young])


def test_a_verdict_keeps_what_it_was_given_on(repository: Path) -> None:
    done = repro(repository, "Path('result').write_text('why')\nraise Rejected('no')")
    assert done.returncode != 0
    assert (repository / "result").read_text() == "why"


def test_a_stage_that_is_started_from_elsewhere_works_and_gives_back(repository: Path) -> None:
    (repository / "deep/er").mkdir(parents=True)
    script(repository, HALF + "raise DataError('source is bad')")
    for folder, words in (("deep/er", ["-P"]), ("deep", ["../dvc.yaml:work"])):
        done = finish(["dvc", "repro", *words], repository / folder)
        assert done.returncode and "work: source is bad" in done.stderr
        assert is_as_the_first_run_left_it(repository)
    script(repository, FIRST)
    subprocess.run(["dvc", "repro", "-P"], cwd=repository / "deep", env=environment(), check=True)
