"""Planted defects, each of which must turn the right gate red: who guards must be seen to guard."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks import build, evaluate, export, validate, verdict
from tasks.check import Params
from tasks.core.artifacts import exporter
from tasks.core.artifacts.formats import Format
from tasks.core.backbones import tensorflow_setup
from tasks.core.base import params, paths
from tasks.core.base.errors import Rejected
from tasks.core.base.files import read_json
from tasks.core.data.manifest import SCHEMA
from tasks.core.data.parquet import read_parquet, write_parquet
from tasks.core.evaluation import gates
from tasks.core.validation import schema
from tests.images import ALONE, scanned, write_classes
from tests.structure import ROOT
from tests.tiny import Tiny

P = params.read(ROOT / "params.yaml", Params)
COLOURS = ("blue", "green", "red")


@pytest.fixture
def workplace(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A folder of its own with the small data set's images and backbone, and no labels file yet."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.images, "pictures")
    shutil.copytree(tiny.folder / "backbone", "backbone")
    Path("labels.csv").write_text("path,label\n")
    return Tiny(tmp_path)


def gates_of(place: Tiny) -> dict[str, Any]:
    """Builds, trains, evaluates and judges by the rules that the project ships."""
    labels = place.folder / "labels.csv"
    write_parquet(place.folder / "manifest.parquet", scanned(place.images, labels), SCHEMA)
    backbone = str(place.folder / "backbone")
    build.build(
        place.images, place.folder / "manifest.parquet", place.dataset, P.build, backbone, 32, ALONE, {}
    )
    place.train(place.models)
    p = dataclasses.replace(P.evaluate, robustness=0)
    evaluate.evaluate(place.models, place.dataset, place.folder / "manifest.parquet", labels, p)
    settings = dataclasses.replace(p, bootstrap=200, seed=1, min_slice=30, calibration_bins=15)
    evaluator = gates.GateEvaluator(read_json(paths.METRICS), read_parquet(paths.PREDICTIONS), None, settings)
    return gates.evaluate_gates(evaluator, P.gate.rules, "fail")


def red(gates: dict[str, Any]) -> set[str]:
    return {entry["name"] for entry in gates["gates"] if not entry["passed"]}


def test_sound_data_turns_no_gate_red(workplace: Tiny) -> None:
    """The failing twin of all that follow."""
    assert red(gates_of(workplace)) == set()


def test_shuffled_labels(workplace: Tiny) -> None:
    files = sorted(file.relative_to(workplace.images).as_posix() for file in workplace.images.rglob("*.png"))
    labels = np.random.default_rng(1).permutation([file.split("/")[0] for file in files])
    rows = [f"{file},{label}" for file, label in zip(files, labels, strict=True)]
    Path("labels.csv").write_text("\n".join(["path,label", *rows]))
    found = gates_of(workplace)
    assert red(found) == {"test.accuracy against majority"}
    with pytest.raises(Rejected, match=r"(rejected|inconclusive): test\.accuracy against majority"):
        verdict.check(found, {})


def test_a_leaked_duplicate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "validation", "test"):
        write_classes(Path("pictures") / split, COLOURS, 12, (90, 80))
    for number, file in enumerate(sorted(Path("pictures").rglob("*.png"))):  # each of its own
        blots = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(blots).resize((90, 80), Image.Resampling.BICUBIC).save(file)
    assert why_not() == ""
    shutil.copy("pictures/train/red/003.png", "pictures/test/red/leaked.png")
    said = why_not()
    assert "split" in said and "leaked.png" in said


def test_a_class_that_was_dropped(workplace: Tiny) -> None:
    known = schema.suggest(scanned(workplace.images, Path("labels.csv")))
    assert "classes without an image" not in why_not(known)
    shutil.rmtree("pictures/red")
    said = why_not(known)
    assert "classes without an image: red" in said


def why_not(expected: schema.Schema | None = None) -> str:
    """What `validate` says against the images; nothing if it lets them pass."""
    quiet = dataclasses.replace(P.validate.severity, duplicate="ignore", near_duplicate="ignore")
    p = dataclasses.replace(P.validate, severity=quiet)
    Path("labels.csv").write_text("path,label\n")
    try:
        validate.validate(Path("pictures"), Path("labels.csv"), expected or schema.Schema(), None, p, ALONE)
    except Rejected as error:
        return str(error)
    return ""


# Defects of one artifact: it is not shipped, the others are.


def shipped_with(tiny: Tiny, folder: Path, *formats: Format) -> dict[str, Any]:
    p = dataclasses.replace(P.export, formats=formats, golden=6, required=formats)
    found = export.export(tiny.models, tiny.dataset, tiny.images, folder, p, 1.0)
    facts: dict[str, Any] = found["artifacts"]
    for fact in facts.values():
        assert (folder / fact["file"]).exists() == fact["passed"]
    return facts


def test_sound_artifacts_are_shipped(tiny: Tiny, tmp_path: Path) -> None:
    facts = shipped_with(tiny, tmp_path, "tflite", "tflite_int8", "onnx")
    assert all(fact["passed"] for fact in facts.values()), facts


def test_a_quantisation_measured_on_wrong_images(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of 0 to 1 that were scaled down once more: all that is lighter is cut off."""
    begin = exporter.Exporter.__init__

    def scaled_twice(self: Any, model: Any, contract: Any, backbone: str, images: Any) -> None:
        begin(self, model, contract, backbone, images / 255)

    monkeypatch.setattr(exporter.Exporter, "__init__", scaled_twice)
    facts = shipped_with(tiny, tmp_path, "tflite", "tflite_int8")
    assert facts["tflite"]["passed"]
    assert "agreement" in facts["tflite_int8"]["why"]


def with_serve(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any, Callable[[Any], Any]], Any]) -> None:
    """Has ONNX files written of a changed graph: `change` gets images, and the way to probabilities."""
    write = exporter.Exporter.onnx

    def changed(self: exporter.Exporter, path: Path) -> None:
        sound = self.serve

        @tensorflow_setup.tf.function(input_signature=self.spec)
        def serve(image: Any) -> dict[str, Any]:
            answer = change(image, lambda images: sound(images)["probabilities"])
            return {"probabilities": tensorflow_setup.tf.identity(answer, name="probabilities")}

        self.serve = serve
        write(self, path)
        self.serve = sound

    monkeypatch.setattr(exporter.Exporter, "onnx", changed)


@pytest.mark.parametrize(
    ("change", "measures"),
    [
        (lambda image, answer: answer(image[..., ::-1]), ["agreement", "accuracy_drop", "golden_difference"]),
        (lambda image, answer: answer(image * 255), ["golden_difference"]),
        (lambda image, answer: answer(image) * 0.5, ["sum_error"]),
        (lambda image, answer: answer(image)[:, ::-1], ["agreement"]),
        (lambda image, answer: answer(image) * float("nan"), ["no numbers"]),
    ],
    ids=["channels swapped", "wrong range", "no sum of one", "classes reversed", "not a number"],
)
def test_an_onnx_file_that_is_wrong(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, measures: list[str]
) -> None:
    with_serve(monkeypatch, change)
    facts = shipped_with(tiny, tmp_path, "tflite", "onnx")
    assert facts["tflite"]["passed"]
    for measure in measures:
        assert measure in facts["onnx"]["why"]
    with pytest.raises(Rejected, match=r"model\.onnx"):
        verdict.check({"gates": []}, facts)
