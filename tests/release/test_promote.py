"""Promotion's story: who may take whose place, by which evidence, and the way back."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gto.api
import numpy as np
import pandas as pd
import pytest

from flows import monitor, outcome, promote, repo
from tasks.core.artifacts import formats, golden
from tasks.core.artifacts.exporter import Exporter, lines
from tasks.core.artifacts.formats import Format
from tasks.core.base import process
from tasks.core.base.errors import DataError, Rejected
from tasks.core.base.files import read_json, remove, sha256, write_json, write_text
from tasks.core.base.paths import EXPORT, GATES, MANIFEST, METRICS, PREDICTIONS
from tasks.core.data import images
from tasks.core.data.manifest import SCHEMA
from tasks.core.data.parquet import read_parquet, write_parquet
from tasks.core.evaluation import estimates, predictions
from tasks.core.inference import drift
from tasks.core.inference.scoring import MONITORED
from tasks.core.release import comparison, model_card, registry
from tasks.core.release.comparison import ARTIFACTS
from tasks.core.release.evidence import FORMAT, Evidence
from tasks.core.release.registry import Registry
from tasks.core.release.revision import Revision
from tasks.core.training import classifier
from tests.conftest import Tiny
from tests.pictures import scanned, write_classes
from tests.structure import ROOT

pytestmark = pytest.mark.usefixtures("prefect_server")

COUNT = 100  # pictures of each class, all of them test pictures
FORMATS: tuple[Format, ...] = ("onnx", "tflite")
PIPELINE = f"""
artifacts:
  classifier:
    path: export
stages:
  make:
    cmd: rm -rf export data reports && cp -r $(cat variant)/. .
    deps: [variant]
    outs: [{EXPORT}, {MANIFEST}, {PREDICTIONS}, {METRICS}, {GATES}]
"""


@pytest.fixture(scope="module")
def variants(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a pipeline would make of a model that knows its colours, `good`, and of one that mixes up two."""
    folder = tmp_path_factory.mktemp("variants")
    write_classes(folder / "pictures", count=COUNT)
    (folder / "labels.csv").write_text("path,label\n")
    model, contract = classifier.load(tiny.models)
    manifest = scanned(folder / "pictures", folder / "labels.csv")
    head = model.get_layer("head")
    right = head.get_weights()
    sides = (("good", [0, 1, 2], 1.0), ("equal", [0, 1, 2], 1.01), ("poor", [1, 0, 2], 1.0))
    for name, order, scale in sides:
        head.set_weights([weights[..., order] * scale for weights in right])
        made(folder / name, folder / "pictures", manifest, model, contract)
    for name in ("again", "rejected", "strange", "fewer", "known", "liar", "broken"):
        shutil.copytree(folder / "good", folder / name)
    write_json(
        folder / "rejected" / GATES, {"passed": False, "gates": [{"passed": False, "why": "accuracy is low"}]}
    )
    write_json(folder / "again" / GATES, {"passed": True, "gates": [], "note": "of another rule"})
    facts = read_json(folder / "good" / ARTIFACTS)["artifacts"]
    write_json(folder / "strange" / ARTIFACTS, {"exported": True, "artifacts": {"coreml": facts["onnx"]}})
    for fact in facts.values():  # with the digests of what is broken
        (folder / "broken" / EXPORT / fact["file"]).write_bytes(b"\x08 no model")
    broken = {
        kind: fact | {"sha256": sha256(folder / "broken" / EXPORT / fact["file"])}
        for kind, fact in facts.items()
    }
    write_json(folder / "broken" / ARTIFACTS, {"exported": True, "artifacts": broken})
    tested = read_parquet(folder / "fewer" / PREDICTIONS)  # the rest it has learned from
    predictions.write(folder / "fewer" / PREDICTIONS, tested[::2])
    predictions.write(folder / "known" / PREDICTIONS, tested[::20])
    answers = read_json(folder / "liar" / EXPORT / "golden/golden.json")
    answers[0]["probabilities"] = answers[0]["probabilities"][::-1]
    write_json(folder / "liar" / EXPORT / "golden/golden.json", answers)
    return folder


def made(folder: Path, pictures: Path, manifest: pd.DataFrame, model: Any, contract: Any) -> None:
    predict = classifier.predictor(model)
    pixels = [
        images.pixels((pictures / path).read_bytes(), pictures / path, contract.image_size, contract.resize)
        for path in manifest["path"]
    ]
    labels = np.array([contract.class_names.index(label) for label in manifest["label"]])
    table = predictions.of(
        list(manifest["path"]), labels, predict(np.stack(pixels)), contract.class_names
    ).assign(sha256=list(manifest["sha256"]))
    for path in (MANIFEST, PREDICTIONS, EXPORT / "x"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    write_parquet(folder / MANIFEST, manifest, SCHEMA)
    predictions.write(folder / PREDICTIONS, table)
    tested = estimates.headline(predictions.answers(table), 15, 20, 0)
    after = {name: tested[name] for name in ("log_loss", "ece")}
    write_json(folder / METRICS, {"test": tested, "slices": {}, "calibration": {"after": after}})
    write_json(folder / GATES, {"passed": True, "gates": []})
    export = folder / EXPORT
    golden.write(export / "golden", pictures, list(manifest["path"][:4]), contract, predict)
    exporter = Exporter(model, contract, "elsewhere", np.zeros((1, 32, 32, 3), np.float32))
    facts = {}
    for kind in FORMATS:
        exporter.write(kind, export / formats.FORMATS[kind].file)
        digest = sha256(export / formats.FORMATS[kind].file)
        facts[kind] = {"file": formats.FORMATS[kind].file, "sha256": digest, "passed": True, "why": ""}
    write_text(export / "labels.txt", lines(contract.class_names))
    write_text(export / "classifier.json", contract.text() + "\n")
    write_json(export / "artifacts.json", {"exported": True, "artifacts": facts})


@pytest.fixture
def here(variants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with remotes of git and of DVC, in which nothing has been made yet."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    text = (ROOT / "params.yaml").read_text("utf-8")
    rules = text.index("  rules: "), text.index("\nexport:")
    text = (
        text[: rules[0]]
        + "  rules: [{metric: test.accuracy, against: champion, min: 0.0}]\n"
        + text[rules[1] :]
    )
    (folder / "params.yaml").write_text(
        text.replace("images: data/digits", f"images: {variants / 'pictures'}")
    )
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / ".gitignore").write_text(".dvc/tmp\n")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "origin")], check=True)
    for words in (
        ["git", "init", "-q"],
        ["git", "config", "user.name", "A Tester"],
        ["git", "config", "user.email", "tester@example.invalid"],
        ["git", "remote", "add", "origin", str(tmp_path / "origin")],
        ["dvc", "init", "-q"],
        ["dvc", "remote", "add", "-q", "-d", "store", str(tmp_path / "store")],
    ):
        subprocess.run(words, check=True)
    return folder


def commit(variants: Path, name: str, note: str = "") -> None:
    """Makes a variant by DVC, pushes it, and commits."""
    Path("variant").write_text(f"{variants / name}\n")
    Path("note").write_text(note or name)
    for words in (["dvc", "repro", "-q"], ["dvc", "push", "-q"], ["git", "add", "-A"]):
        subprocess.run(words, check=True)
    subprocess.run(["git", "commit", "-q", "-m", f"Make it {name}"], check=True)


def promoted(to: str = "production", **more: Any) -> tuple[int, str]:
    """Promotes; returns the exit code and what is said."""
    state = promote.promote(to, **more, return_state=True)
    return 0 if state.is_completed() else outcome.code_of(state) or 70, state.message or ""


def tags() -> list[str]:
    listed = subprocess.run(["git", "tag"], check=True, capture_output=True, text=True)
    return listed.stdout.split()


def champion() -> str:
    found = Registry.read().champion("production")
    assert found
    return found.name


def described() -> None:
    text = model_card.card("v1.1.0")
    assert text.startswith("# classifier v1.1.0\n")
    assert "| 3 classes | blue, green, red |" in text
    assert "| accuracy | 1 | " in text
    decision = text[text.index("### production, 20") :]
    assert "| metric | this one | classifier&#64;v1.0.0 |" in decision
    assert "| accuracy | 1 | 0.333333 |" in decision, "the champion's on the same pictures"
    assert "- pass: test.accuracy against champion: 0.333333 becomes 1" in decision
    text = model_card.changelog()
    assert text.index("## v1.1.0") < text.index("## v1.0.0")
    assert text.startswith("# Changelog of classifier\n\n- production: v1.1.0\n\n## v1.1.0")
    assert "- accuracy 1.0000 on 300 test pictures, after 0.3333 on 300\n- 20" in text
    assert ": promoted to production\n" in text


@pytest.mark.usefixtures("here")
def test_a_story(variants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(variants, "poor")
    assert "would be put into production" in promoted(dry_run=True)[1]
    assert tags() == []
    assert promoted(push=True)[0] == 0
    assert tags() == ["classifier#production#1", "classifier@v1.0.0"]
    assert promoted() == (0, "classifier@v1.0.0 is in production already")

    commit(variants, "good")
    assert (promoted()[0], champion()) == (0, "v1.1.0"), "a better one"
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    for more in (", and now others know", ""):
        assert promoted(push=True) == (0, f"classifier@v1.1.0 is in production already{more}")
    words = ["git", "ls-remote", "--tags", "--refs", "origin"]
    assert subprocess.run(words, check=True, capture_output=True).stdout.count(b"\n") == 4
    assert tags() == [
        "classifier#production#1",
        "classifier#production#2",
        "classifier@v1.0.0",
        "classifier@v1.1.0",
    ]

    commit(variants, "good", "other words")
    assert promoted() == (0, "classifier@v1.1.0 is in production already"), "it is the same model"

    commit(variants, "equal")
    code, said = promoted()
    assert code == 1
    doubt = r"\(gate\.rules\); more test pictures would tell, or see gate\.on_inconclusive"
    assert re.fullmatch(
        rf"classifier@v1\.1\.0 stays: inconclusive: test\.accuracy against.* {doubt}", said
    ), said

    commit(variants, "poor", "again")
    code, said = promoted()
    assert code == 1
    assert said.startswith("classifier@v1.1.0 stays: fail: test.accuracy against champion: 1 becomes 0.33")
    assert len(tags()) == 4

    described()
    code, said = promoted(rollback=True)
    assert (code, champion()) == (0, "v1.0.0")
    assert "classifier@v1.0.0 is back in production in place of classifier@v1.1.0" in said
    assert promoted(rollback=True, push=True) == (
        0,
        "classifier@v1.0.0 is in production, and now others know",
    )
    assert champion() == "v1.0.0"
    code, said = promoted(rollback=True)
    assert code == 2
    assert said == "before classifier@v1.0.0 nothing was in production: there is nothing to go back to"
    assert ": put back into production in place of classifier&#64;v1.1.0\n" in model_card.changelog()

    clone = tmp_path / "clone"
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    subprocess.run(["git", "clone", "-q", "-b", "main", str(tmp_path / "origin"), str(clone)], check=True)
    monkeypatch.chdir(clone)
    for version in ("v1.0.0", "classifier@v1.1.0", "production"):
        assert "is what it says: 9 digests" in promote.verified(version)
    consumer = tmp_path / "consumer"
    consumer.mkdir()
    monkeypatch.chdir(consumer)
    words = ["dvc", "artifacts", "get", str(tmp_path / "origin"), "classifier", "--stage", "production"]
    subprocess.run([*words, "-o", "got", "-q"], check=True)
    assert sha256(consumer / "got/model.onnx") == sha256(variants / "poor/export/model.onnx")
    picture = variants / "pictures/blue/000.png"
    words = [sys.executable, "-m", "tasks.predict", "got/model.onnx", str(picture), "--json"]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    assert b"green" in done.stdout, "which is what this model takes blue for"


def flipped(file: Path) -> None:
    """Changes a bit of a file as a bad disk does: with no trace of it."""
    data, before = bytearray(file.read_bytes()), file.stat()
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    file.chmod(before.st_mode)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cached(path: Path, store: Path = Path(".dvc/cache")) -> Path:
    """Where DVC keeps what a file of the working copy holds."""
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return store / "files/md5" / digest[:2] / digest[2:]


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
    subprocess.run(["git", "rm", "-q", "--cached", "dvc.lock"], check=True)
    subprocess.run(["git", "commit", "-q", "-m", "Forget"], check=True)
    assert "dvc.lock is not committed" in promoted()[1]
    assert not tags()


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


def follow(said: str) -> None:
    """Does what a message about DVC's remote says."""
    files = said[said.index("; remove ") + len("; remove ") : said.index(" there, and `dvc push`")]
    for file in files.split(" and "):
        Path(file).unlink()
    subprocess.run(["dvc", "push", "-q"], check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_what_nobody_else_could_fetch_is_refused(variants: Path, tmp_path: Path) -> None:
    commit(variants, "good")
    (tmp_path / "store").rename(tmp_path / "away")
    code, said = promoted()
    assert (code, tags()) == (2, [])
    assert said == f"DVC's remote, {tmp_path / 'store'}, is not there: mount it, or `dvc push` makes it"
    (tmp_path / "away").rename(tmp_path / "store")
    file = cached(Path("export/model.onnx"), tmp_path / "store")
    assert promoted(dry_run=True)[0] == 0
    file.rename(tmp_path / "kept")
    code, said = promoted()
    assert (code, tags()) == (2, [])
    assert f"in DVC's remote {file} is missing" in said
    follow(said)
    assert file.exists(), "though DVC had seen it there"
    flipped(file)
    code, said = promoted()
    assert (code, tags()) == (2, [])
    assert f"in DVC's remote {file} was altered; remove {file} and " in said
    follow(said)
    assert promoted()[0] == 0


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_remote_of_git_that_is_away_leaves_no_tag(variants: Path, tmp_path: Path) -> None:
    commit(variants, "good")
    (tmp_path / "origin").rename(tmp_path / "gone")
    code, said = promoted(push=True)
    assert (code, tags()) == (75, [])
    assert said.startswith("origin can't be asked for its tags") and said.endswith("; nothing is promoted")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_of_two_promotions_one_wins_and_the_other_is_told(variants: Path, tmp_path: Path) -> None:
    commit(variants, "good")
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    subprocess.run(["git", "clone", "-q", "-b", "main", str(tmp_path / "origin"), "../other"], check=True)
    tag = ["git", "-c", "user.name=B", "-c", "user.email=b@example.invalid", "tag", "-a", "-m", "theirs"]
    subprocess.run([*tag, "classifier#production#1"], cwd="../other", check=True)
    push = ["git", "push", "-q", "origin", "classifier#production#1"]
    subprocess.run(push, cwd="../other", check=True)
    code, said = promoted()
    assert (code, tags()) == (2, [])
    assert "origin has classifier#production#1, which is not here; `git fetch --tags` brings it" in said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "check_tags", lambda _: None)  # they were there a moment later
        code, said = promoted(push=True)
        assert (code, tags()) == (2, []), "neither of its two tags"
        assert "another promotion was there first" in said
        subprocess.run([*tag, "classifier#production#2"], cwd="../other", check=True)
        hook = Path(".git/hooks/pre-push")  # git has listed the tags by then
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\nunset GIT_DIR\ngit -C ../other push -q origin classifier#production#2\n")
        hook.chmod(0o755)
        subprocess.run(["git", "fetch", "-q", "--tags"], check=True)
        code, said = promoted(push=True)
    assert (code, tags()) == (2, ["classifier#production#1"])
    assert "another promotion was there first" in said


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_two_runs_in_one_folder_are_one(variants: Path) -> None:
    commit(variants, "good")
    with repo.alone(print, wait=True):
        assert "another run is at work in this folder" in promoted()[1]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_shallow_clone_is_told_what_it_lacks(
    variants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(variants, "good")
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    assert promoted(push=True)[0] == 0
    words = ["git", "clone", "-q", "--depth", "1", "--no-tags", f"file://{tmp_path / 'origin'}", "../shallow"]
    subprocess.run(words, check=True)
    monkeypatch.chdir(tmp_path / "shallow")
    code, said = promoted()
    assert code == 2
    assert "`git fetch --tags` brings it" in said
    with pytest.raises(DataError, match=r"there is no version v1\.0\.0, but none at all"):
        promote.verified("v1.0.0")
    subprocess.run(["git", "fetch", "-q", "--tags"], check=True)
    assert "is what it says" in promote.verified("v1.0.0")


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
def test_a_champion_that_has_learned_the_test_pictures_is_no_measure(variants: Path) -> None:
    commit(variants, "known")
    assert promoted()[0] == 0
    commit(variants, "equal")
    code, said = promoted()
    assert (code, len(tags())) == (2, 2)
    assert "15 test pictures are left that classifier@v1.0.0 hasn't learned from, too few" in said


def test_slices_are_as_large_as_they_still_are() -> None:
    cells = {"a": {"n": 90, "judged": True}, "b": {"n": 90, "judged": True}, "c": {"n": 5, "judged": False}}
    ours = pd.DataFrame({"slice_camera": ["a"] * 40 + ["b"] * 20})
    found = comparison.recounted_slices({"slices": {"camera": cells}, "test": 1}, ours, least=30)
    facts = {"a": {"n": 40, "judged": True}, "b": {"n": 20, "judged": False}, "c": {"n": 0, "judged": False}}
    assert found == {"slices": {"camera": facts}, "test": 1}


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_nobody_is_told_of_what_nobody_can_fetch(variants: Path) -> None:
    commit(variants, "good")
    subprocess.run(["dvc", "remote", "remove", "store"], check=True)
    subprocess.run(["git", "commit", "-qam", "No remote"], check=True)
    code, said = promoted(push=True)
    assert (code, tags()) == (2, [])
    assert "DVC has no remote" in said
    assert promoted()[0] == 0, "for oneself it will do"
    code, said = promoted(push=True)
    assert code == 2, "also the next time"
    assert "DVC has no remote" in said


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
    monkeypatch.setattr(comparison, "PATIENCE", 0.05)  # which none is started within
    commit(variants, "good")
    code, said = promoted()
    assert (code, tags()) == (2, [])
    assert said.endswith("had not answered after 0.05 seconds")


@pytest.mark.usefixtures("here")
def test_what_gto_takes_back_is_taken_back() -> None:
    """And a rollback goes back further each time."""
    for words in (["add", "-A"], ["commit", "-q", "-m", "1"]):
        subprocess.run(["git", *words], check=True)
    for count in range(1, 4):
        subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", f"{count}"], check=True)
        registry.register(f"v1.{count}.0", "HEAD", "text")
        registry.assign("production", Registry.read().named(f"v1.{count}.0"), "text")
    known = Registry.read()
    assert [one.name for one in known.history("production")] == ["v1.3.0", "v1.2.0", "v1.1.0"]
    assert known.history("staging") == []
    registry.assign("staging", known.named("v1.1.0"), "v1.1.0 is back into staging tomorrow")
    registry.assign("staging", known.named("v1.2.0"), "text")
    registry.assign("staging", known.named("v1.1.0"), "the good one goes back into staging")
    history = Registry.read().history("staging")
    assert [one.name for one in history] == ["v1.1.0", "v1.2.0", "v1.1.0"], "words by hand take nothing back"
    registry.assign("production", known.named("v1.2.0"), "classifier@v1.2.0 back into production")
    history = Registry.read().history("production")
    assert [one.name for one in history] == ["v1.2.0", "v1.1.0"], "as tags of format 2 have it"
    gto.api.unassign(".", "classifier", version="v1.2.0", stage="production")
    assert [one.name for one in Registry.read().history("production")] == ["v1.1.0"]
    gto.api.deregister(".", "classifier", version="v1.1.0")
    assert Registry.read().champion("production") is None
    gto.api.deregister(".", "classifier", version="v1.3.0")
    assert [one.name for one in Registry.read().versions] == ["v1.2.0"]
    assert Registry.read().next(breaks=False) == "v1.4.0", "no name is given twice"
    subprocess.run(["git", "tag", "classifier@v9.0.0"], check=True)
    assert Registry.read().next(breaks=True) == "v2.0.0", "a lightweight tag is none of GTO's"


def by_hand(name: str, **facts: str) -> None:
    """Makes a tag of HEAD, as anybody can."""
    words = ["git", "tag", "--annotate", "--message", facts.pop("message", "mine"), name]
    subprocess.run(words, check=True, env=os.environ | facts)


@pytest.mark.usefixtures("here")
def test_a_version_made_by_hand_is_one_without_evidence(variants: Path) -> None:
    commit(variants, "good")
    by_hand("classifier@v1.0.0")
    by_hand("classifier#staging#1")
    with pytest.raises(DataError, match=r"classifier@v1\.0\.0 carries no evidence"):
        promote.verified("v1.0.0")
    assert "- made by hand, without evidence\n- 20" in model_card.changelog()
    assert ": staging, by hand\n" in model_card.changelog()
    commit(variants, "equal")
    assert promoted()[0] == 0
    assert champion() == "v2.0.0", "what it might break nobody knows"
    text = model_card.changelog()
    assert text.index("## v2.0.0") < text.index("- accuracy 1.0000") < text.index("## v1.0.0")
    later = registry.message("classifier@v2.0.0").replace(
        f'"format": {FORMAT}', f'"format": {FORMAT + 1}, "new": 0'
    )
    by_hand("classifier@v2.1.0", message=later)
    with pytest.raises(DataError, match="evidence of a later version of this project"):
        model_card.card("v2.1.0")


@pytest.mark.usefixtures("here")
def test_a_clock_that_is_behind_is_told(variants: Path) -> None:
    """By the times of their tags GTO and DVC would go on with the champion of before."""
    commit(variants, "good")
    by_hand("classifier#staging#1", GIT_COMMITTER_DATE="2099-01-01T00:00:00Z")
    code, said = promoted()
    assert (code, tags()) == (2, ["classifier#staging#1"])
    assert "the last tag is of 2099-01-01 00:00:00 +0000 classifier#staging#1, which is still to come" in said


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_tag_that_is_another_elsewhere_is_told(variants: Path) -> None:
    commit(variants, "good")
    by_hand("classifier@v1.0.0", message="theirs")
    subprocess.run(["git", "push", "-q", "origin", "classifier@v1.0.0"], check=True)
    subprocess.run(["git", "tag", "--delete", "classifier@v1.0.0"], check=True)
    by_hand("classifier@v1.0.0", message="ours")
    code, said = promoted()
    assert (code, len(tags())) == (2, 1)
    assert "origin has another classifier@v1.0.0: git tag --delete 'classifier@v1.0.0'; git fetch" in said


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
def test_a_rollback_tells_nobody_of_what_it_takes_back(
    variants: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which others learn of only as the version before the last."""
    commit(variants, "poor")
    assert promoted(push=True)[0] == 0
    commit(variants, "good")
    assert promoted()[0] == 0
    code, said = promoted(rollback=True, push=True)
    assert (code, champion()) == (0, "v1.0.0")
    assert "is back in production in place of classifier@v1.1.0" in said
    assert set(registry.published()) == set(tags()), "a stage's tag says nothing without its version's"
    commit(variants, "equal")
    another = ["git", "tag", "--annotate", "--message", "theirs", "classifier#staging#4"]
    monkeypatch.setattr(comparison, "probed", lambda *_: subprocess.run(another, check=True).stdout or {})
    code, said = promoted()
    assert code == 2, "what it was decided by is another now"
    assert said == "another promotion was there first; run it again"
    assert champion() == "v1.0.0"


@pytest.mark.usefixtures("here")
def test_an_interrupt_while_tags_are_made_takes_them_back() -> None:
    script = """
import os, signal
from pathlib import Path
from flows import outcome, promote
from tasks.core.release import registry
from tasks.core.release.registry import Registry
with outcome.by_hand(), promote.tagging(Registry.read(), push=False) as made:
    made.append(registry.register("v1.0.0", "HEAD", "text"))
    assert registry.git("tag") == "classifier@v1.0.0"
    os.kill(os.getpid(), signal.SIGTERM)
"""
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "1"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert (done.returncode, tags()) == (process.INTERRUPTED, [])


@pytest.mark.usefixtures("here")
def test_a_rollback_needs_what_it_puts_back(variants: Path, tmp_path: Path) -> None:
    for name in ("poor", "good"):
        commit(variants, name)
        assert promoted()[0] == 0
    file = cached(variants / "poor" / EXPORT / "model.onnx", tmp_path / "store")
    file.rename(tmp_path / "kept")
    code, said = promoted(rollback=True)
    assert (code, champion()) == (2, "v1.1.0"), "nobody else could fetch it, though it is in the cache"
    assert (
        f"export/model.onnx of classifier@v1.0.0 is not what dvc.lock says: in DVC's remote {file} is missing"
        in said
    )
    (tmp_path / "kept").rename(file)
    assert promoted(rollback=True)[0] == 0
    assert champion() == "v1.0.0"


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_version_that_is_not_what_it_says_is_told(variants: Path) -> None:
    commit(variants, "good")
    assert promoted()[0] == 0
    message = registry.message("classifier@v1.0.0")
    subprocess.run(["git", "tag", "--delete", "classifier@v1.0.0"], check=True)
    forged = message.replace('"accuracy": 1.0', '"accuracy": 0.5').replace(
        '"model.onnx": "', '"model.onnx": "0'
    )
    subprocess.run(["git", "tag", "-a", "-m", forged, "classifier@v1.0.0"], check=True)
    with pytest.raises(Rejected) as told:
        promote.verified("v1.0.0")
    assert "export/model.onnx is not the one of then" in str(told.value)
    assert "test.accuracy of the stored predictions is 1.0, and not 0.5" in str(told.value)
    assert "its metrics are not those of reports/metrics.json" in str(told.value)


@pytest.mark.usefixtures("here")
def test_what_is_in_production_can_be_monitored(
    variants: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    commit(variants, "poor")
    shutil.copytree(variants / "pictures/red", "new/red")
    state = monitor.monitor("new", "production", return_state=True)
    assert (state.message or "").startswith("nothing is in production: `python -m flows.promote")

    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["git", "clone", "-q", "-b", "main", str(tmp_path / "origin"), str(elsewhere)], check=True)
    with monkeypatch.context() as there:
        there.chdir(elsewhere)
        subprocess.run(["dvc", "pull", "-q"], check=True)
        assert promoted(push=True)[0] == 0
    for path in (EXPORT, MANIFEST, PREDICTIONS):  # as of a run that was rejected, or a machine without data
        remove(path)
    text = Path("params.yaml").read_text("utf-8").replace(str(variants / "pictures"), "others")
    Path("params.yaml").write_text(text)
    state = monitor.monitor("new", "production", return_state=True)
    assert state.name == "Drifted", "they are all of one class, and the tag was fetched"
    assert read_json(MONITORED / "drift.json")["model"] == "classifier@v1.0.0 (model.onnx)"
    mix = [check for check in read_json(MONITORED / "drift.json")["checks"] if check["name"] == drift.CLASSES]
    assert [check["old"] for check in mix] == [[1 / 3] * 3]

    registry.remove(["classifier#production#1"])
    by_hand("classifier#production#1")
    assert monitor.monitor("new", "production", return_state=True).name == "Drifted"
    assert "origin has another classifier#production#1: git tag --delete" in caplog.text

    remove(tmp_path / "origin")
    remove(tmp_path / "store")
    assert monitor.monitor("new", "production", return_state=True).name == "Drifted", "all of it is here"
    assert "origin can't be asked for its tags" in caplog.text


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


@pytest.mark.usefixtures("here")
def test_a_promotion_of_an_earlier_version_can_be_taken_back(variants: Path) -> None:
    for name in ("poor", "good"):
        commit(variants, name)
        assert promoted()[0] == 0
    for words in (["git", "checkout", "-q", "classifier@v1.0.0"], ["dvc", "checkout", "-q"]):
        subprocess.run(words, check=True)
    assert promoted(champion=False)[0] == 0
    assert promoted(rollback=True)[1].startswith("classifier@v1.1.0 is back in production in place of")
    assert promoted(rollback=True)[1].startswith("classifier@v1.0.0 is back in production in place of")
    assert '"rollback": true' in registry.message("classifier#production#5")
    assert promoted(rollback=True)[0] == 2
    assert '"rollback": true' in registry.message("classifier#production#4")


@pytest.mark.usefixtures("here")
def test_a_commit_that_others_do_not_have_is_told(variants: Path) -> None:
    commit(variants, "good")
    lacks = "; origin has its commit on no branch, so `git push` that too"
    assert promoted()[0] == 0
    assert promoted(push=True)[1].endswith(f"already, and now others know{lacks}")
    assert promoted("staging", push=True)[1].endswith(lacks)
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    assert promoted(push=True)[1].endswith("already")


@pytest.mark.usefixtures("here")
def test_a_clone_that_knows_less_says_so(
    variants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(variants, "good")
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    subprocess.run(["git", "clone", "-q", "-b", "main", tmp_path / "origin", tmp_path / "clone"], check=True)
    assert promoted(push=True)[0] == 0
    monkeypatch.chdir(tmp_path / "clone")
    monkeypatch.setattr("sys.argv", ["flows/promote.py", "--changelog"])
    assert promote.main() == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("# Changelog of classifier\n")
    assert captured.err.startswith(
        "promote: origin has classifier#production#1, which is not here; `git fetch"
    )


@pytest.mark.usefixtures("here")
def test_what_was_altered_in_the_remote_is_not_blamed_on_the_cache(variants: Path, tmp_path: Path) -> None:
    commit(variants, "good")
    flipped(cached(EXPORT / formats.FORMATS["onnx"].file, tmp_path / "store"))
    remove(Path(".dvc/cache"))
    with pytest.raises(
        DataError, match=r"in DVC's remote .* was altered; remove .*\.dir there, and `dvc push`"
    ):
        Revision("HEAD").read(EXPORT / formats.FORMATS["onnx"].file)
    remove(tmp_path / "store")
    for published in (True, False):
        with pytest.raises(DataError, match=rf"DVC's remote, {tmp_path}/store, is not there: mount it"):
            Revision("HEAD", published).read(EXPORT / formats.FORMATS["onnx"].file)


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
def test_a_version_that_was_withdrawn_stays_so(variants: Path) -> None:
    commit(variants, "good")
    assert promoted()[0] == 0
    gto.api.deregister(".", "classifier", version="v1.0.0")
    assert registry.unpublished() == []
    code, said = promoted()
    assert (code, said.startswith("this commit was classifier@v1.0.0, which was withdrawn")) == (2, True), (
        said
    )
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "Another"], check=True)
    assert promoted()[0] == 0
    assert champion() == "v1.1.0"


@pytest.mark.usefixtures("here")
def test_a_slip_in_the_configuration_of_dvc_is_the_users(variants: Path) -> None:
    commit(variants, "good")
    Path(".dvc/config.local").write_text("[core\n")
    with pytest.raises(DataError, match="DVC: "):
        Revision("HEAD")
