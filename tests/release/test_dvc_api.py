"""What is asked of DVC beyond its documented API is there in the installed DVC, and means the same."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dvc.lock import make_lock

from tasks.core.base import mending
from tasks.core.base.errors import DarkroomError
from tasks.core.base.files import remove, write_json
from tasks.core.base.mending import LOCK_HELD, RECORD, RECORD_HELD
from tasks.core.base.paths import METRICS
from tasks.core.data import last_run
from tasks.core.release import dvc_api
from tests.project import ME
from tests.structure import ROOT, imports

PIPELINE = """
stages:
  last:
    cmd: cp first last
    deps: [first]
    outs: [last]
  first:
    cmd: cp source first
    deps: [source]
    params: [params.yaml: [epochs]]
    outs: [first]
  bad:
    cmd: 'echo "bad: no good" >&2; exit 3'
    deps: [last]
    outs: [never]
"""


@contextmanager
def contract() -> Iterator[None]:
    """Says which DVC it was, if something it was asked for is not there any more."""
    try:
        yield
    except (AttributeError, ImportError, KeyError, TypeError) as error:
        version = importlib.metadata.version("dvc")
        pytest.fail(f"DVC {version} is not what tasks/core/release/dvc_api.py is written for: {error!r}")


def dvc(*words: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout.splitlines()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a run that its last stage has ended, and what that run has said, in `said`."""
    folder = tmp_path_factory.mktemp("contract") / "here"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("dvc.yaml").write_text(PIPELINE + f"metrics: [{METRICS}]\n")
        Path("params.yaml").write_text("epochs: 1\n")
        Path("source").write_text("one")
        Path("mine").write_text("data")
        METRICS.parent.mkdir()
        write_json(METRICS, {"test": {"accuracy": 0.5}})
        subprocess.run(["git", "init", "-q"], check=True)
        for words in (
            ["init", "-q"],
            ["remote", "add", "-q", "-d", "store", "../store"],
            ["add", "-q", "mine"],
        ):
            assert dvc(*words)[0] == 0
        well, badly = dvc("repro", "last"), dvc("repro")
        assert (well[0], bool(badly[0])) == (0, True)
        Path("../said").write_text("\n".join(well[1] + badly[1]))
        for words in (["add", "-A"], ["commit", "-q", "-m", "Run"], ["tag", "mark"]):
            subprocess.run(["git", *ME, *words], check=True)
    return folder


@pytest.fixture
def here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(repository)
    return repository


@pytest.mark.usefixtures("here")
def test_stages_and_their_state() -> None:
    with contract():
        assert dvc_api.survey() == (["first", "last", "bad"], {"bad"})
        assert dvc_api.survey(["last"]) == (["first", "last"], set())
        with pytest.raises(DarkroomError, match=r"nothing is no stage of .*, which has first, last, bad"):
            dvc_api.survey(["nothing"])
        assert dvc_api.changed_stages() == {"bad"}
        assert dvc_api.changed_stages("first") == set()
        before = dvc_api.inputs()
        Path("source").write_text("two")
        assert (dvc_api.changed_stages("first"), dvc_api.inputs() == before) == ({"first"}, False)
        Path("source").write_text("one")
        assert dvc_api.inputs() == before
        files = ["source", "first", "mine", "elsewhere"]
        assert dvc_api.inputs_among(files) == [Path("source")], "not what a stage makes, or `dvc add` keeps"
        assert dvc_api.missing() == []
        Path("mine").rename("away")
        assert dvc_api.missing() == ["mine"]
        Path("away").rename("mine")


def dvc_alone(*words: str) -> int:
    """The exit code of a DVC that doesn't begin as those of .venv do."""
    code = f"import sys; from dvc.cli import main; sys.exit(main({list(words)!r}))"
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode


@pytest.fixture
def starting(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that is a `dvc` begins as .ci/install has it, which a test's Python need not."""
    (here / "start").mkdir(exist_ok=True)
    begin = "import os, sys\nif 'dvc' in map(os.path.basename, sys.orig_argv[:3]):\n"
    begin += "    from tasks.core.base import mending\n    mending.begin_dvc()\n"
    (here / "start/sitecustomize.py").write_text(begin)
    monkeypatch.setenv("PYTHONPATH", f"{here / 'start'}{os.pathsep}{ROOT}")


@pytest.mark.parametrize("left", ["", "{", "\0\0\0\0"])
@pytest.mark.usefixtures("starting")
def test_dvc_starts_again_after_a_disk_that_was_full(left: str) -> None:
    with contract():
        assert RECORD.is_file(), "where this DVC keeps it"
        RECORD.write_text(left)
        assert dvc_alone("repro", "last"), "its failing twin"
        assert dvc("repro", "last")[0] == 0


@pytest.mark.usefixtures("here")
def test_what_dvc_is_writing_is_not_taken_from_it() -> None:
    assert not mending.mend() and RECORD.is_file(), "which is sound"
    RECORD.write_text("{")
    with make_lock(str(RECORD_HELD), tmp_dir=str(RECORD.parent)):
        assert not mending.mend() and RECORD.is_file()
    assert mending.mend() and not RECORD.exists()


@pytest.mark.parametrize("left", [None, "cmd: cp first last\n"])
@pytest.mark.usefixtures("starting")
def test_dvc_goes_on_after_it_was_killed_while_it_noted_a_run(left: str | None) -> None:
    """It looks for the latest note in a folder that has none, or takes one for whole that is none."""
    Path("params.yaml").write_text("epochs: 2\n")  # so that it looks for a run
    assert dvc("repro", "first")[0] == 0
    with contract():
        (note,) = [file for file in mending.RUNS.glob("*/*/*") if "epochs: 2" in file.read_text()]
    note.unlink()
    if left is not None:
        note.with_name(".2RTdcWJTfDsaHZZwkAPzSu.tmp").write_text(left)
    Path("first").unlink()
    Path("dvc.lock").unlink()
    assert dvc_alone("repro", "first"), "its failing twin"
    assert dvc("repro", "first")[0] == 0
    assert {file.suffix for file in mending.RUNS.glob("*/*/*")} == {""}
    Path("params.yaml").write_text("epochs: 1\n")
    assert dvc("repro", "last")[0] == 0


@pytest.mark.parametrize(
    "end", ["", "sch", "stages:\n", "  first:\n", "    - pa", "    cmd:", "    - path:", "hash:"]
)
@pytest.mark.usefixtures("starting")
def test_a_lock_that_is_half_written_is_as_it_was_before(end: str) -> None:
    assert dvc("repro", "last")[0] == 0
    whole = mending.LOCK.read_text()
    mending.COPY.parent.mkdir(exist_ok=True)
    mending.copy_lock()
    assert not mending.mend()
    mending.LOCK.write_text(whole[: whole.index(end) + len(end)])
    mending.copy_lock()
    assert dvc_alone("status"), "its failing twin"
    code, lines = dvc("status")
    assert code == 0 and any("dvc: dvc.lock was half written" in line for line in lines)
    assert mending.LOCK.read_text() == whole


@pytest.mark.usefixtures("here")
def test_a_lock_that_is_at_work_or_in_conflict_is_left_alone() -> None:
    whole = mending.LOCK.read_text()
    with make_lock(str(LOCK_HELD), tmp_dir=str(LOCK_HELD.parent)):
        mending.LOCK.write_text("schema")
        mending.COPY.parent.mkdir(exist_ok=True)
        assert not mending.mend(), "DVC is about to write"
    conflict = f"<<<<<<< HEAD\n{whole}"
    mending.LOCK.write_text(conflict)
    assert not mending.mend() and mending.LOCK.read_text() == conflict, "a person's to resolve"
    mending.LOCK.write_text("")
    mending.COPY.unlink(missing_ok=True)
    assert mending.mend() and not mending.LOCK.exists(), "there is no other"
    mending.LOCK.write_text(whole)


@pytest.mark.usefixtures("here")
def test_settings() -> None:
    with contract():
        assert dvc_api.settings(["a.b=1", "c=[x,2]"]) == [(["a", "b"], 1), (["c"], ["x", 2])]
        for words, complaint in (("a=1,2", "is a sweep"), ("a", "can't be read")):
            with pytest.raises(DarkroomError, match=complaint):
                dvc_api.settings([words])


@pytest.mark.usefixtures("here")
def test_commits_and_what_has_changed_since() -> None:
    with contract():
        found = dvc_api.commit("mark", published=True)
        assert (len(found.digest), found.stays, found.has_remote) == (40, True, True)
        assert not dvc_api.commit("HEAD", published=False).stays
        with found.files.open("first", "rb") as file:
            assert file.read() == b"one"
        assert len(found.files.info("first")["md5"]) == 32
        assert found.cache.is_dir()
        assert found.remote.fs.protocol == "local"
        assert dvc_api.committed_metrics() == {"test.accuracy": 0.5}
        write_json(METRICS, {"test": {"accuracy": 0.75}})
        facts, is_known = dvc_api.difference("metrics", "HEAD")
        write_json(METRICS, {"test": {"accuracy": 0.5}})
        assert is_known
        assert facts[METRICS.as_posix()]["test.accuracy"]["new"] == 0.75
        assert dvc_api.difference("params", "HEAD") == ({}, True)


@pytest.mark.usefixtures("here")
def test_remotes() -> None:
    with contract():
        assert dvc_api.has_remote()
        assert dvc("remote", "default", "--unset")[0] == 0
        assert not dvc_api.has_remote(), "to which anything would be pushed"
        assert dvc("remote", "default", "store")[0] == 0
        assert "is not there: mount it" in (dvc_api.absent_remote() or "")
        assert dvc("push", "-q")[0] == 0
        assert dvc_api.absent_remote() is None
        assert dvc_api.unpushed() is None
        remote = dvc_api.commit("HEAD", published=True).remote
        for file in Path("../store/files").rglob("*"):
            if file.is_file():
                file.chmod(0o644)
                file.unlink()
        assert dvc_api.unpushed() is not None, "though DVC had seen it there"
        dvc_api.forget(remote)
        remove(Path("../store"))


@pytest.mark.usefixtures("here")
def test_what_the_last_run_left() -> None:
    """The part of `tasks.core.data`."""
    with contract():
        kept = last_run.last_output(Path("first"))
        assert kept and kept.read_text() == "one"
        assert not last_run.is_another(Path("first"))
        files, values = last_run.last_inputs("first", [Path("source")])
        assert values == {"epochs": 1}
        assert list(files) == [Path("source")], "whose content is in the cache as that of its copy"


def test_the_words_of_a_run(here: Path) -> None:
    lines = (here.parent / "said").read_text().splitlines()
    with contract():
        assert dvc_api.has_run(lines)
        assert dvc_api.stage_exit(lines) == 3
        assert dvc_api.complaint("bad", lines) == "bad: no good"
        assert not dvc_api.was_busy(lines)
        chatter = [line for line in lines if dvc_api.CHATTER.match(line)]
        assert any("lock file" in line for line in chatter)


@pytest.mark.usefixtures("here")
def test_the_words_of_dvc_when_it_is_busy() -> None:
    code, lines = dvc("repro", "--dry", "first")
    assert code == 0 and not dvc_api.was_busy(lines)
    Path("dvc.yaml").write_text(PIPELINE + "  slow:\n    cmd: touch started; sleep 60\n    deps: [last]\n")
    words = [sys.executable, "-m", "dvc", "repro", "-q", "slow"]
    with subprocess.Popen(words, start_new_session=True) as slow:
        try:
            while not Path("started").exists():
                assert slow.poll() is None
            code, lines = dvc("repro", "slow")
            assert code
            assert dvc_api.was_busy(lines), lines
        finally:
            subprocess.run(["kill", "--", f"-{slow.pid}"], check=False)
            Path("dvc.yaml").write_text(PIPELINE + f"metrics: [{METRICS}]\n")


def test_nobody_else_imports_dvc() -> None:
    files = [file for folder in ("tasks", "flows") for file in (ROOT / folder).rglob("*.py")]
    inner = {"dvc", "dvc_data", "dvc_objects", "dvc_render"}  # and not DVCLive, which trains
    found = {file.stem for file in files if {name.split(".")[0] for name in imports(file)} & inner}
    assert found == {"dvc_api", "inputs", "last_run", "mending"}
