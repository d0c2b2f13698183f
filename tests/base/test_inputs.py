"""What DVC records beside a stage's outputs is what the stage was given, whatever is edited and when."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.base import inputs, process
from tests.base.one_stage import FIRST, Done, environment, finish, is_as_the_first_run_left_it, repro, script
from tests.live import unprivileged
from tests.structure import ROOT


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("Path('params.yaml').write_text('train: [2')", "params.yaml can't be read any more"),
        ("Path('params.yaml').write_text('train: 2\\nimages: pictures')", "params.yaml: train was changed"),
        ("Path('tasks/code.py').write_text('x = 1')", "tasks/code.py was changed"),
        ("Path('tasks/core/room/code.py').write_text('x = 1')", "tasks/core/room/code.py was changed"),
        ("Path('tasks/core/room/new.py').write_text('x = 1')", "tasks/core/room/new.py was changed"),
    ],
)
def test_an_edit_meanwhile_is_not_recorded_as_this_runs(repository: Path, edit: str, words: str) -> None:
    done = repro(repository, f"{FIRST}\n{edit}")
    assert done.returncode != 0
    assert f"work: {words}" in done.stderr
    assert "first" in (repository / "result").read_text()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("Path('source').write_text('better')", "source was changed"),
        ("Path('source').unlink()", "source was changed"),
        ("Path('pictures/cat/new.png').touch()", "pictures was changed"),
        ("Path('pictures/cat/1.png').write_text('other')", "pictures was changed"),
        ("Path('pictures/cat/1.png').unlink()", "pictures was changed"),
        ("Path('pictures/cat/1.png').rename('pictures/cat/2.png')", "pictures was changed"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_an_input_that_changes_meanwhile_is_not_recorded_as_read(
    repository: Path, edit: str, words: str, first: bool
) -> None:
    lock = (repository / "dvc.lock").read_text()
    done = repro(
        repository, f"import shutil\n{edit}\n{FIRST}" if first else f"import shutil\n{FIRST}\n{edit}"
    )
    assert done.returncode != 0
    assert f"work: {words} while this stage ran; run it again" in done.stderr
    assert (repository / "dvc.lock").read_text() == lock
    assert is_as_the_first_run_left_it(repository)


def test_what_dvc_does_not_see_in_a_folder_is_no_change(repository: Path) -> None:
    """`latency` writes such a file into export/, which it depends on."""
    (repository / ".dvcignore").write_text("/pictures/times.json\n")
    write = "Path('pictures/times.json').write_text('1')"
    assert repro(repository, f"{FIRST}\n{write}").returncode == 0
    (repository / "source").write_text("other")
    (repository / "pictures/times.json").unlink()
    (repository / ".dvcignore").write_text("/pictures/more.json\n")
    assert "pictures was changed" in repro(repository, f"{FIRST}\n{write}").stderr, "its failing twin"


def test_what_a_system_leaves_in_a_folder_is_no_change(repository: Path) -> None:
    assert repro(repository, f"{FIRST}\nPath('pictures/.DS_Store').touch()").returncode == 0


def test_an_edit_of_what_the_stage_does_not_read_costs_nothing(repository: Path) -> None:
    text = "# new\\ntrain: {epochs: 1}\\nreport: {mistakes: 2}\\nimages: pictures\\n"
    assert repro(repository, f"{FIRST}\nPath('params.yaml').write_text('{text}')").returncode == 0


def test_what_an_import_or_an_editor_leaves_in_a_room_is_no_edit(repository: Path) -> None:
    """The bytecode of a module that is imported while a stage runs, and a swap file."""
    shutil.copy(ROOT / ".dvcignore", repository)
    left = ("__pycache__/code.cpython-311.pyc", ".code.py.swp", "code.py~", ".#code.py")
    bodies = [f"{FIRST}"] + [
        f"file = Path('tasks/core/room/{name}'); file.parent.mkdir(exist_ok=True); file.touch()"
        for name in left
    ]
    done = repro(repository, "\n".join(bodies))
    assert done.returncode == 0, done.stderr
    again = subprocess.run(
        ["dvc", "status"], cwd=repository, env=environment(), check=True, capture_output=True, text=True
    )
    assert "up to date" in again.stdout


TWO_STAGES = """
stages:
  work:
    cmd: python work.py && sh work.sh
    deps: [source, "${images}", tasks/code.py, tasks/core/room]
    params: [train]
    outs: [result]
  after:
    cmd: sh after.sh && python after.py
    deps: [result]
    outs: [end]
"""
COPY = """text = ''.join(Path(name).read_text() for name in ('source', 'params.yaml', 'tasks/code.py'))
names = [str(path) for folder in ('pictures', 'tasks/core') for path in sorted(Path(folder).rglob('*.p*'))]
Path('result').write_text(text + ' '.join(names))"""
EDITS = {
    "source": "printf better > source",
    "pictures": "touch pictures/cat/new.png",
    "tasks/code.py": "echo x = 1 > tasks/code.py",
    "tasks/core/room": "touch tasks/core/room/new.py",
    "params.yaml: train": "echo 'train: 2\nimages: pictures' > params.yaml",
}


@pytest.fixture
def two_stages(repository: Path) -> Path:
    """Stages whose command goes on, or begins, with a script that edits what the first has read."""
    (repository / "dvc.yaml").write_text(TWO_STAGES)
    shutil.copy(script(repository, "Path('end').touch()"), repository / "after.py")
    script(repository, COPY)
    for name in ("work.sh", "after.sh"):
        (repository / name).touch()
    assert dvc(repository, "repro").returncode == 0
    (repository / "source").write_text("worse")  # so that there is something to do
    return repository


def dvc(folder: Path, *words: str) -> Done:
    return finish(["dvc", *words], folder)


@pytest.mark.parametrize("damage", ["printf x >> result", "printf x >> folder/deep/er.txt", "rm folder/one"])
def test_an_output_that_is_changed_before_dvc_has_read_it_is_made_again(
    two_stages: Path, damage: str
) -> None:
    """DVC recorded the damaged one; the soak found it."""
    pipeline = (two_stages / "dvc.yaml").read_text()
    (two_stages / "dvc.yaml").write_text(pipeline.replace("outs: [result]", "outs: [result, folder]"))
    folder = "Path('folder/deep').mkdir(parents=True); Path('folder/deep/er.txt').write_text('sound')"
    script(two_stages, f"{COPY}\n{folder}; Path('folder/one').touch()")
    (two_stages / "work.sh").write_text(damage)
    done = dvc(two_stages, "repro")
    (two_stages / "work.sh").write_text("")
    path = damage.rsplit(maxsplit=1)[-1].partition("/")[0]
    assert done.returncode and f"{path} was changed while work ran; run it again" in done.stderr
    done = dvc(two_stages, "repro")
    assert done.returncode == 0 and "Running stage 'work'" in done.stdout, done.stderr
    assert (two_stages / "folder/deep/er.txt").read_text() == "sound" and (two_stages / "folder/one").exists()
    assert not (two_stages / "result").read_text().endswith("x")
    assert "up to date" in dvc(two_stages, "status").stdout
    (two_stages / "source").write_text("more")
    (two_stages / "work.sh").write_text("touch folder/.hidden")
    assert dvc(two_stages, "repro").returncode == 0, "nothing that it has written is another"


def test_a_lock_that_may_not_be_read_is_told_by_dvc_alone(two_stages: Path) -> None:
    (two_stages / "work.sh").write_text("chmod 0 dvc.lock")
    done = finish([*unprivileged(), "dvc", "repro", "work"], two_stages)
    (two_stages / "dvc.lock").chmod(0o644)
    assert done.returncode and "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def is_of_what_is_there(folder: Path) -> bool:
    """Whether DVC finds nothing to do, and the result is of the inputs as they are."""
    recorded = (folder / "result").read_text()
    subprocess.run([sys.executable, "work.py"], cwd=folder, env=environment(), check=True)
    return "up to date" in dvc(folder, "status").stdout and (folder / "result").read_text() == recorded


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_before_dvc_has_read_it_is_found_by_the_next_stage(two_stages: Path, name: str) -> None:
    lock = (two_stages / "dvc.lock").read_text()
    (two_stages / "work.sh").write_text(EDITS[name])
    done = dvc(two_stages, "repro")
    assert done.returncode
    assert f"after: {name} was changed while work ran; run it again" in done.stderr
    assert (two_stages / "dvc.lock").read_text() == lock
    (two_stages / "work.sh").write_text("")
    again = dvc(two_stages, "repro")
    assert again.returncode == 0 and "Running stage 'work'" in again.stdout, "not from the run cache"
    assert is_of_what_is_there(two_stages)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_after_dvc_has_read_it_ends_nothing(two_stages: Path, name: str) -> None:
    (two_stages / "after.sh").write_text(EDITS[name])
    assert dvc(two_stages, "repro").returncode == 0
    (two_stages / "after.sh").write_text("")
    assert "changed" in dvc(two_stages, "status").stdout
    assert dvc(two_stages, "repro").returncode == 0
    assert is_of_what_is_there(two_stages)


def dvc_alone(folder: Path, *words: str) -> Done:
    """A DVC that ends without a look at what it has recorded, as those that aren't of .venv do."""
    code = f"import sys; from dvc.cli import main; sys.exit(main({list(words)!r}))"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def here(two_stages: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(two_stages)
    return two_stages


def test_what_one_run_recorded_wrongly_another_takes_back(here: Path) -> None:
    """The last stage of a run, or the only one, has none that comes next."""
    (here / "work.sh").write_text(EDITS["source"])
    assert dvc_alone(here, "repro", "work").returncode == 0
    assert "up to date" in dvc_alone(here, "status", "work").stdout, "DVC knows of nothing"
    assert inputs.withdraw_false_records() == ["source was changed while work ran; run it again"]
    assert "changed" in dvc_alone(here, "status", "work").stdout
    assert not inputs.withdraw_false_records(), "it is told once"


def test_a_dvc_looks_at_its_last_stage_itself(here: Path) -> None:
    lock = (here / "dvc.lock").read_text()
    (here / "work.sh").write_text(EDITS["pictures"])
    ours = "import sys; from tasks.core.base import mending; mending.begin_dvc(); from dvc.cli import main; "
    words = [sys.executable, "-c", f"{ours}sys.exit(main(['repro', 'work']))"]
    done = subprocess.run(words, env=environment(), check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "pictures was changed while work ran; run it again"
    assert (here / "dvc.lock").read_text() == lock


@pytest.mark.parametrize("folder", ["pictures", "{here}/pictures", "./pictures"])
def test_a_folder_is_known_however_it_is_written(here: Path, folder: str) -> None:
    text = (
        (here / "params.yaml").read_text().replace("images: pictures", f"images: {folder.format(here=here)}")
    )
    (here / "params.yaml").write_text(text)
    (here / "work.sh").write_text(EDITS["pictures"])
    assert dvc_alone(here, "repro", "work").returncode == 0
    assert len(inputs.withdraw_false_records()) == 1


def test_a_right_record_stays_whatever_comes_later(here: Path) -> None:
    assert dvc_alone(here, "repro", "work").returncode == 0
    lock = (here / "dvc.lock").read_text()
    for edit in EDITS.values():
        subprocess.run(["sh", "-c", edit], check=True)
    assert not inputs.withdraw_false_records()
    assert (here / "dvc.lock").read_text() == lock


def test_an_input_within_a_folder_that_is_one_too_is_no_change(here: Path) -> None:
    """A labels file among the images; every run ended with "changed while this stage ran"."""
    (here / "pictures/labels.csv").write_text("path,label")
    file = here / "dvc.yaml"
    file.write_text(file.read_text().replace('"${images}"', '"${images}", pictures/labels.csv'))
    assert dvc_alone(here, "repro", "work").returncode == 0
    assert list(process.RECORDS.glob("*.json"))
    assert not inputs.withdraw_false_records()
    assert dvc_alone(here, "repro", "work").returncode == 0
    (here / "pictures/labels.csv").write_text("path,label,split")
    assert not inputs.withdraw_false_records(), "edited later, so that the stage runs again"


def test_the_lock_of_another_commit_is_not_held_against_a_note(here: Path) -> None:
    (here / "work.sh").write_text(EDITS["source"])
    assert dvc_alone(here, "repro", "work").returncode == 0
    lock = (here / "dvc.lock").read_text()
    for words in (["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], check=True)
    assert not inputs.withdraw_false_records()
    assert (here / "dvc.lock").read_text() == lock


def test_what_else_the_run_cache_has_of_the_stage_stays(here: Path) -> None:
    runs = here / ".dvc/cache/runs"
    for epochs in (1, 2, 3):
        (here / "params.yaml").write_text(f"train: {{epochs: {epochs}}}\nimages: pictures\n")
        assert dvc_alone(here, "repro", "work").returncode == 0
    known = {path for path in runs.rglob("*") if path.is_file()}
    (here / "work.sh").write_text(EDITS["params.yaml: train"])
    (here / "source").write_text("another")
    assert dvc_alone(here, "repro", "work").returncode == 0
    assert {path for path in runs.rglob("*") if path.is_file()} > known
    assert inputs.withdraw_false_records()
    assert {path for path in runs.rglob("*") if path.is_file()} == known


def test_code_that_was_edited_before_anybody_looked_is_not_recorded(here: Path) -> None:
    """A stage imports for seconds; what it has imported is older than the file."""
    body = "Path('result').write_text('x')"
    slow = "time.sleep(0.1)\nPath('tasks/code.py').write_text('edited = 1')\n"
    script(here, body)
    (here / "work.py").write_text((here / "work.py").read_text().replace("def main", f"{slow}def main"))
    done = dvc(here, "repro", "work")
    assert done.returncode and "work: tasks/code.py was changed while this stage ran" in done.stderr


def test_dvcs_own_errors_are_left_to_it(here: Path) -> None:
    assert dvc_alone(here, "repro", "work").returncode == 0
    whole = (here / "dvc.lock").read_text()
    (here / "dvc.yaml").write_text(TWO_STAGES.replace("  work:", "  renamed:"))
    (here / "source").write_text("more")
    (here / "pictures/cat/1.png").write_text("more")
    assert not inputs.withdraw_false_records() and not list(process.RECORDS.glob("*.json"))
    assert (here / "dvc.lock").read_text() == whole


def test_a_stage_that_was_never_recorded_has_nothing_to_take_back(
    two_stages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What DVC could not write; and a note that a full disk has left empty."""
    monkeypatch.chdir(two_stages)
    (two_stages / "work.sh").write_text("exit 1")
    lock = (two_stages / "dvc.lock").read_text()
    assert dvc(two_stages, "repro", "work").returncode
    (two_stages / process.RECORDS / "after.json").write_text("")
    assert not inputs.withdraw_false_records() and not list(process.RECORDS.glob("*.json"))
    assert (two_stages / "dvc.lock").read_text() == lock


def test_an_input_that_was_damaged_is_blamed_and_not_the_code(two_stages: Path) -> None:
    """While the stage runs, and in the moment between what has made it and the stage."""
    read = "import json\njson.loads(Path('result').read_text())"
    for body in (read, "Path('result').write_text('{')\n" + read, "1 / 0"):
        shutil.copy(script(two_stages, body), two_stages / "after.py")
        script(two_stages, "Path('result').write_text('[1]')")
        (two_stages / "after.sh").write_text("printf '[' > result" if body == read else "")
        done = dvc(two_stages, "repro", "--force")
        assert done.returncode
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("after: ")]
        if body == "1 / 0":
            assert "a fault of ours, ZeroDivisionError" in line, "its failing twin"
        else:
            assert line == "after: result isn't as it was made, or was changed; run it again"


def test_outputs_have_options_or_none(here: Path) -> None:
    (here / "dvc.yaml").write_text(TWO_STAGES.replace("outs: [result]", "outs: [{result: {cache: false}}]"))
    assert inputs.outputs() == {"result", "end"} and inputs.outputs("work") == {"result"}
