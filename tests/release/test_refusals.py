"""What is not promoted, and what is said of it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from flows import working_copy
from tasks.core.base.errors import DarkroomError, DataError
from tasks.core.base.paths import EXPORT
from tasks.core.release import comparison, git, probe, promotion
from tasks.core.release.evidence import Evidence
from tasks.core.release.revision import Revision
from tests.release.promotions import by_hand, cached, commit, flipped, promoted, tags
from tests.structure import ROOT

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.mark.usefixtures("here")
def test_what_is_not_as_it_was_gated_is_refused(variants: Path) -> None:
    commit(variants, "good")
    for file, words in (
        ("params.yaml", "params.yaml is not committed"),
        ("variant", "variant is not commit"),
    ):
        before = Path(file).read_text()
        Path(file).write_text(before + "\n# a thought\n")
        assert promoted() == (2, promoted()[1])
        assert words in promoted()[1]
        Path(file).write_text(before)
    export = Path("export/model.onnx")
    before_bytes = export.read_bytes()
    export.write_bytes(before_bytes + b"x")
    assert "what is here is not what dvc.lock says of make; `dvc pull`" in promoted()[1]
    export.write_bytes(before_bytes)
    subprocess.run(["git", "tag", "classifier@v1.0.0"], check=True)
    assert "classifier@v1.0.0 is no version but a lightweight tag" in promoted()[1]
    subprocess.run(["git", "tag", "--delete", "classifier@v1.0.0"], check=True)
    lock = Path("dvc.lock").read_text("utf-8")
    Path("dvc.lock").write_text(f"<<<<<<< HEAD\n{lock}=======\n{lock}>>>>>>> other\n")
    subprocess.run(["git", "commit", "-qam", "Merge"], check=True)
    assert "dvc.lock was committed with the marks of a merge that conflicted; remove it" in promoted()[1]
    subprocess.run(["git", "rm", "-q", "--cached", "dvc.lock"], check=True)
    subprocess.run(["git", "commit", "-q", "-m", "Forget"], check=True)
    assert "dvc.lock is not committed" in promoted()[1]
    assert not tags()


@pytest.mark.usefixtures("here")
def test_what_stages_read_and_git_does_not_know_of_is_refused() -> None:
    """A clone of the commit would have another model, or none."""
    deps = "deps: [variant, code, pictures, data.csv]"
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text("utf-8").replace("deps: [variant]", deps))
    params = re.sub("images: .*", "images: pictures", Path("params.yaml").read_text("utf-8"))
    Path("params.yaml").write_text(params)
    Path(".dvcignore").write_text("*~\n")
    Path("code").mkdir()
    for words in (["add", "-A"], ["commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", *words], check=True)
    Path("pictures").mkdir()
    for file in ("notes", "code/mine.py~", "pictures/1.png"):
        Path(file).write_text("of no stage, or no concern of git's")
    promotion.check_committed()
    for file in ("code/mine.py", "data.csv"):
        Path(file).write_text("X = 1")
        with pytest.raises(DarkroomError, match=f"^{file} is not committed; commit it"):
            promotion.check_committed()
        Path(file).unlink()
    Path(".git/info/exclude").write_text("mine.*\n")
    for file in ("code/mine.txt", "pictures/mine.py"):
        Path(file).touch()
    promotion.check_committed()
    Path("code/mine.py").touch()
    with pytest.raises(DarkroomError, match=r"^code/mine\.py, which git is to ignore, is code"):
        promotion.check_committed()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("option", ["skip-worktree", "assume-unchanged"])
def test_what_git_was_told_not_to_look_at_is_refused_if_it_is_another(option: str) -> None:
    Path("absent").write_text("as in a sparse checkout")
    for words in (["add", "-A"], ["commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", *words], check=True)
    subprocess.run(["git", "update-index", f"--{option}", "params.yaml", "absent"], check=True)
    Path("absent").unlink()
    promotion.check_committed()
    with Path("params.yaml").open("a") as file:
        file.write("# a thought\n")
    with pytest.raises(DarkroomError, match=r"git was told not to look: git update-index --no-") as told:
        promotion.check_committed()
    subprocess.run(str(told.value).split(": ")[1].split(";")[0], shell=True, check=True)
    with pytest.raises(DarkroomError, match=r"^params\.yaml is not committed"):
        promotion.check_committed()


@pytest.mark.usefixtures("here")
def test_an_artifact_that_was_altered_in_the_cache_is_refused(variants: Path) -> None:
    """Where there is no remote it is the cache that others get it from."""
    commit(variants, "good")
    subprocess.run(["dvc", "remote", "remove", "store"], check=True)
    subprocess.run(["git", "commit", "-qam", "No remote"], check=True)
    file = cached(Path("export/model.onnx"))
    flipped(file)
    code, said = promoted()
    assert (code, tags()) == (2, [])
    assert "export/model.onnx of HEAD is not what dvc.lock says" in said
    assert f"remove {file.resolve()}" in said


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_model_whose_gates_said_no_is_refused(variants: Path) -> None:
    commit(variants, "rejected")
    code, said = promoted()
    assert (code, tags()) == (1, [])
    assert "HEAD was rejected: accuracy is low" in said


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_two_runs_in_one_folder_are_one(variants: Path) -> None:
    commit(variants, "good")
    with working_copy.exclusive_run(print, wait=True):
        assert "another run is at work in this folder" in promoted()[1]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_nobody_tags_without_a_name(variants: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(variants, "good")
    for name in ("name", "email"):
        subprocess.run(["git", "config", "--unset", f"user.{name}"], check=True)
    subprocess.run(["git", "config", "user.useConfigOnly", "true"], check=True)
    for place in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(place, "/dev/null")
    for name in list(os.environ):
        if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER", "EMAIL")):
            monkeypatch.delenv(name)
    code, said = promoted()
    assert (code, tags()) == (2, [])
    assert 'git config user.name "Your Name"' in said


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_champion_without_a_known_format_is_named_and_can_be_passed_over(variants: Path) -> None:
    commit(variants, "strange")
    assert promoted()[0] == 0
    commit(variants, "good")
    code, said = promoted()
    assert code == 2
    assert said == (
        "classifier@v1.0.0 can't be asked: it has coreml, no format that is known; --no-champion does without"
    )
    assert promoted(champion=False)[0] == 0
    evidence = Evidence.read("classifier@v1.1.0")
    assert evidence.champion is None
    assert "compared with no champion" in evidence.verdict


@pytest.mark.usefixtures("here")
def test_a_test_set_that_has_changed_is_told_and_is_the_new_one_for_both(variants: Path) -> None:
    commit(variants, "fewer")
    assert promoted()[0] == 0
    commit(variants, "equal")
    assert promoted()[0] == 1
    text = Path("params.yaml").read_text("utf-8").replace("min: 0.0}", "min: -0.1}")
    Path("params.yaml").write_text(text)
    commit(variants, "equal", "again")
    assert promoted()[0] == 0
    evidence = Evidence.read("classifier@v1.1.0")
    assert evidence.compared
    assert "from 150 to 300, with 150 in both: both models are judged on those of now" in evidence.notes[1]
    assert evidence.compared["challenger"]["n"] == evidence.compared["champion"]["n"] == 150
    assert "150 of them are left out, as classifier@v1.0.0 has learned from them" in evidence.notes[2]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_champion_that_has_learned_the_test_images_is_no_measure(variants: Path) -> None:
    commit(variants, "known")
    assert promoted()[0] == 0
    commit(variants, "equal")
    code, said = promoted()
    assert (code, len(tags())) == (2, 2)
    assert "15 test images are left that classifier@v1.0.0 hasn't learned from, too few" in said


def test_slices_are_as_large_as_they_still_are() -> None:
    cells = {"a": {"n": 90, "judged": True}, "b": {"n": 90, "judged": True}, "c": {"n": 5, "judged": False}}
    answers = pd.DataFrame({"slice_camera": ["a"] * 40 + ["b"] * 20})
    found = comparison.recount_slices({"slices": {"camera": cells}, "test": 1}, answers, min_slice=30)
    facts = {"a": {"n": 40, "judged": True}, "b": {"n": 20, "judged": False}, "c": {"n": 0, "judged": False}}
    assert found == {"slices": {"camera": facts}, "test": 1}


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_an_artifact_that_answers_otherwise_is_refused(variants: Path) -> None:
    commit(variants, "liar")
    code, said = promoted()
    assert (code, tags()) == (1, [])
    assert "answers otherwise than it did" in said


@pytest.mark.usefixtures("here")
def test_an_artifact_that_does_not_answer_in_time_is_refused(
    variants: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which a rollback could not wait for."""
    monkeypatch.setattr(probe, "PATIENCE", 0.05)  # which none is started within
    commit(variants, "good")
    code, said = promoted()
    assert (code, tags()) == (2, [])
    assert said.endswith("had not answered after 0.05 seconds")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_champion_that_can_not_be_asked_is_told_and_can_be_passed_over(
    variants: Path, tmp_path: Path
) -> None:
    commit(variants, "broken")
    by_hand("classifier@v1.0.0")
    by_hand("classifier#production#1")
    commit(variants, "good")
    code, said = promoted()
    assert (code, len(tags())) == (2, 2)
    assert said.startswith("classifier@v1.0.0 can't be asked: ")
    assert said.endswith("; --no-champion does without")
    broken = variants / "broken" / EXPORT / "model.onnx"
    for store in (Path(".dvc/cache"), tmp_path / "store"):
        cached(broken, store).unlink()
    code, said = promoted()
    assert (code, len(tags())) == (2, 2)
    assert "export/model.onnx of classifier@v1.0.0 can't be had" in said
    assert said.endswith("; --no-champion does without")
    assert promoted(champion=False)[0] == 0


@pytest.mark.usefixtures("here")
def test_what_is_in_the_stage_already_is_only_what_was_gated(variants: Path) -> None:
    commit(variants, "good")
    assert promoted()[0] == 0
    Path("variant").write_text(f"{variants / 'poor'}\n")
    subprocess.run(["dvc", "repro", "-q"], check=True)
    code, said = promoted()
    assert (code, said.endswith("is not committed; commit it, so that a version is a commit")) == (2, True), (
        said
    )


@pytest.mark.usefixtures("here")
def test_the_same_artifacts_need_no_comparison(variants: Path) -> None:
    commit(variants, "good")
    assert promoted()[0] == 0
    commit(variants, "again")
    assert promoted()[0] == 0, "which of an equal model's others is inconclusive"
    evidence = Evidence.read("classifier@v1.1.0")
    assert (evidence.champion, evidence.compared) == ("classifier@v1.0.0", None)
    assert evidence.notes == ["its artifacts are those of classifier@v1.0.0, byte by byte"]


def test_an_interrupt_among_the_imports_is_one_too(tmp_path: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "flows.promote", "--verify", "v1.0.0"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    heard = 1 << signal.SIGTERM - 1
    while (
        not int(re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{command.pid}/status").read_text())[0], 16)
        & heard
    ):
        time.sleep(0.01)
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate()
    assert (command.returncode, errors) == (130, "interrupted before it began\n")


@pytest.mark.usefixtures("here")
def test_a_slip_in_the_configuration_of_dvc_is_the_users(variants: Path) -> None:
    commit(variants, "good")
    Path(".dvc/config.local").write_text("[core\n")
    with pytest.raises(DataError, match="DVC: "):
        Revision("HEAD")


def test_a_machine_without_git_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DarkroomError, match="git is not found; install it"):
        git.run("tag")
