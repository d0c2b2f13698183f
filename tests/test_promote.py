"""Promotion's story: who may take whose place, by which evidence, and the way back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prefect.testing.utilities import prefect_test_harness

from flows import outcome, promote
from tasks.core import classifier, golden, images, metrics, params, predictions
from tasks.core.exporter import FILES, Exporter, lines
from tasks.core.manifest import SCHEMA
from tasks.core.params import Format
from tasks.core.paths import EXPORT, GATES, MANIFEST, METRICS, PREDICTIONS
from tasks.core.registry import Registry
from tasks.core.serialize import sha256, write_json, write_text
from tasks.core.tables import write_parquet
from tests.conftest import Tiny
from tests.pictures import scanned, write_classes
from tests.structure import ROOT

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


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


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
    for name, order in (("good", [0, 1, 2]), ("poor", [1, 0, 2])):
        head.set_weights([weights[..., order] for weights in right])
        made(folder / name, folder / "pictures", manifest, model, contract)
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
    tested = metrics.headline(predictions.answers(table), 15, 20, 0)
    write_json(folder / METRICS, {"test": tested, "slices": {}})
    write_json(folder / GATES, {"passed": True, "gates": []})
    export = folder / EXPORT
    golden.write(export / "golden", pictures, list(manifest["path"][:4]), contract, predict)
    exporter = Exporter(model, contract, "elsewhere", np.zeros((1, 32, 32, 3), np.float32))
    facts = {}
    for kind in FORMATS:
        exporter.write(kind, export / FILES[kind])
        digest = sha256(export / FILES[kind])
        facts[kind] = {"file": FILES[kind], "sha256": digest, "passed": True, "why": ""}
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
    rules = text.index("  rules: "), text.index("  artifacts: ")
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
    params.load.cache_clear()
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
    return 0 if state.is_completed() else outcome.code_of(state) or 2, state.message or ""


def tags() -> list[str]:
    listed = subprocess.run(["git", "tag"], check=True, capture_output=True, text=True)
    return listed.stdout.split()


def champion() -> str:
    found = Registry.read().champion("production")
    assert found
    return found.name


@pytest.mark.usefixtures("here")
def test_a_story(variants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(variants, "poor")
    code, said = promoted(dry_run=True)
    assert (code, tags()) == (0, [])
    assert "would be put into production" in said
    assert promoted(push=True)[0] == 0
    assert tags() == ["classifier#production#1", "classifier@v1.0.0"]
    assert promoted() == (0, "classifier@v1.0.0 is in production already")

    commit(variants, "good")
    assert promoted(push=True)[0] == 0, "a better one"
    assert champion() == "v1.1.0"
    assert tags() == [
        "classifier#production#1",
        "classifier#production#2",
        "classifier@v1.0.0",
        "classifier@v1.1.0",
    ]

    commit(variants, "good", "once more")
    code, said = promoted()
    assert code == 1
    assert said.startswith("classifier@v1.1.0 stays: inconclusive: test.accuracy against champion"), said

    commit(variants, "poor", "again")
    code, said = promoted()
    assert code == 1
    assert said.startswith("classifier@v1.1.0 stays: fail: test.accuracy against champion: 1 becomes 0.33")
    assert len(tags()) == 4

    code, said = promoted(rollback=True, push=True)
    assert (code, champion()) == (0, "v1.0.0")
    assert "classifier@v1.0.0 is back in production in place of classifier@v1.1.0" in said
    code, said = promoted(rollback=True)
    assert code == 2
    assert "only classifier@v1.0.0 has been in production" in said

    clone = tmp_path / "clone"
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    subprocess.run(["git", "clone", "-q", "-b", "main", str(tmp_path / "origin"), str(clone)], check=True)
    monkeypatch.chdir(clone)
    for version in ("v1.0.0", "classifier@v1.1.0"):
        assert "is what it says: 9 digests" in promote.verified(version)
    consumer = tmp_path / "consumer"
    consumer.mkdir()
    monkeypatch.chdir(consumer)
    words = ["dvc", "artifacts", "get", str(tmp_path / "origin"), "classifier", "--stage", "production"]
    subprocess.run([*words, "-o", "got", "-q"], check=True)
    assert sha256(consumer / "got/model.onnx") == sha256(variants / "poor/export/model.onnx")
