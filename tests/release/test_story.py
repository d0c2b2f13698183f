"""Promotion's story: who may take whose place, by which evidence, and the way back."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.base.files import sha256
from tasks.core.release import model_card, promotion
from tests.release.promotions import champion, commit, promoted, tags
from tests.structure import ROOT

pytestmark = pytest.mark.usefixtures("prefect_server")


def described() -> None:
    text = model_card.card("v1.1.0")
    assert text.startswith("# classifier v1.1.0\n")
    assert "| 3 classes | blue, green, red |" in text
    assert "| accuracy | 1 | " in text
    decision = text[text.index("### production, 20") :]
    assert "| metric | this one | classifier&#64;v1.0.0 |" in decision
    assert "| accuracy | 1 | 0.333333 |" in decision, "the champion's on the same images"
    assert "- pass: test.accuracy against champion: 0.333333 becomes 1" in decision
    text = model_card.changelog()
    assert text.index("## v1.1.0") < text.index("## v1.0.0")
    assert text.startswith("# Changelog of classifier\n\n- production: v1.1.0\n\n## v1.1.0")
    assert "- accuracy 1.0000 on 300 test images, after 0.3333 on 300\n- 20" in text
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
    doubt = r"\(gate\.rules\); more test images would tell, or see gate\.on_inconclusive"
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
        assert "is what it says: 9 digests" in promotion.verify(version)
    consumer = tmp_path / "consumer"
    consumer.mkdir()
    monkeypatch.chdir(consumer)
    words = ["dvc", "artifacts", "get", str(tmp_path / "origin"), "classifier", "--stage", "production"]
    subprocess.run([*words, "-o", "got", "-q"], check=True)
    assert sha256(consumer / "got/model.onnx") == sha256(variants / "poor/export/model.onnx")
    image = variants / "pictures/blue/000.png"
    words = [sys.executable, "-m", "tasks.predict", "got/model.onnx", str(image), "--json"]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    assert b"green" in done.stdout, "which is what this model takes blue for"
