"""What a pipeline would make of several models, and a repository to promote them in."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.artifacts import formats, golden
from tasks.core.artifacts.exporter import Exporter, lines
from tasks.core.artifacts.formats import Format
from tasks.core.base.files import read_json, sha256, write_json, write_text
from tasks.core.base.paths import EXPORT, GATES, MANIFEST, METRICS, PREDICTIONS
from tasks.core.data import image_io
from tasks.core.data.manifest import SCHEMA
from tasks.core.data.parquet import read_parquet, write_parquet
from tasks.core.evaluation import estimates, predictions
from tasks.core.release.shipped import ARTIFACTS
from tasks.core.training import classifier
from tests.images import scanned, write_classes
from tests.structure import ROOT
from tests.tiny import Tiny

COUNT = 100  # images of each class, all of them test images
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


@pytest.fixture(scope="session")
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


def made(folder: Path, images: Path, manifest: pd.DataFrame, model: Any, contract: Any) -> None:
    predict = classifier.predictor(model)
    pixels = [
        image_io.pixels((images / path).read_bytes(), images / path, contract.image_size, contract.resize)
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
    digests = dict(zip(manifest["path"][:4], manifest["sha256"][:4], strict=True))
    golden.write(export / "golden", images, digests, contract, predict)
    exporter = Exporter(model, contract, "elsewhere", np.zeros((1, 32, 32, 3), np.float32))
    facts = {}
    for kind in FORMATS:
        exporter.write(kind, export / formats.FORMATS[kind].file)
        digest = sha256(export / formats.FORMATS[kind].file)
        facts[kind] = {"file": formats.FORMATS[kind].file, "sha256": digest, "passed": True, "why": ""}
    write_text(export / "labels.txt", lines(contract.class_names))
    write_text(export / "classifier.json", contract.text() + "\n")
    write_json(export / "artifacts.json", {"exported": True, "artifacts": facts})


@pytest.fixture(scope="session")
def template(variants: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `here` is a copy of, with the remotes beside it."""
    top = tmp_path_factory.mktemp("template")
    folder = top / "here"
    folder.mkdir()
    text = (ROOT / "params.yaml").read_text("utf-8")
    rules = text.index("  rules: "), text.index("\nexport:")
    text = (
        text[: rules[0]]
        + "  rules: [{metric: test.accuracy, against: champion, min: 0.0}]\n"
        + text[rules[1] :]
    )
    text = text.replace("images: data/digits", f"images: {variants / 'pictures'}")
    (folder / "params.yaml").write_text(text)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / ".gitignore").write_text(".dvc/tmp\n")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(top / "origin")], check=True)
    for words in (
        ["git", "init", "-q"],
        ["git", "config", "user.name", "A Tester"],
        ["git", "config", "user.email", "tester@example.invalid"],
        ["git", "remote", "add", "origin", str(top / "origin")],
        ["dvc", "init", "-q"],
        ["dvc", "remote", "add", "-q", "-d", "store", str(top / "store")],
    ):
        subprocess.run(words, cwd=folder, check=True)
    return top


@pytest.fixture
def here(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with remotes of git and of DVC, in which nothing has been made yet."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "here"
    for file in (folder / ".git/config", folder / ".dvc/config"):
        text = file.read_text("utf-8")
        assert str(template) in text
        file.write_text(text.replace(str(template), str(tmp_path)), "utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    return folder
