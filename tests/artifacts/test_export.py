"""Every artifact says what the model says, is proved as it ships, and comes out the same bytes."""

import dataclasses
import io
import json
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import onnx
import pytest
from PIL import ExifTags, Image, ImageOps
from scipy.special import softmax

from tasks import export, latency, verdict
from tasks.check import Params
from tasks.core.artifacts import decode_graph, exporter, golden, isolation, runtimes, verification
from tasks.core.artifacts.config import TIMED, ArtifactRule, Export
from tasks.core.artifacts.formats import FORMATS, Format
from tasks.core.backbones import tensorflow_setup
from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.base import params
from tasks.core.base.arrays import Array
from tasks.core.base.contract import Contract
from tasks.core.base.errors import DataError, ModelError, ParamError, Rejected, WorkerError
from tasks.core.base.files import read_json, sha256
from tasks.core.data import image_io
from tasks.core.inference.predictor import load_predictor
from tasks.core.training import classifier
from tasks.core.training.dataset import Dataset
from tests.structure import ROOT
from tests.tiny import Tiny

LABELS = ["blue", "green", "red"]
P = params.read(ROOT / "params.yaml", Params)
ALL: Export = P.export
RULES = P.export.rules
TEMPERATURE = 0.8
FILES = [spec.file for spec in FORMATS.values()]


def run(
    tiny: Tiny, folder: Path, *formats: Format, rules: tuple[ArtifactRule, ...] = RULES
) -> dict[str, Any]:
    p = dataclasses.replace(ALL, formats=formats or ALL.formats, golden=6, rules=rules)
    found: dict[str, Any] = export.export(tiny.models, tiny.dataset, tiny.images, folder, p, TEMPERATURE)[
        "artifacts"
    ]
    return found


IN_A_PROCESS = """
import dataclasses, sys
from pathlib import Path
from tasks import export
from tasks.check import Params
from tasks.core.backbones import tensorflow_setup
from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.base import params
from tasks.core.base.files import write_json
tensorflow_setup.deterministic(0)
p = dataclasses.replace(params.load(Params).export, golden=6)
models, dataset, images, folder = map(Path, sys.argv[1:])
write_json(folder / "artifacts.json", export.export(models, dataset, images, folder, p, 0.8))
"""


def export_in_a_process(tiny: Tiny, folder: Path, hash_seed: str) -> None:
    """All formats. Names in a SavedModel depend on what a process did before, so that it is a new one."""
    places = map(str, (tiny.models, tiny.dataset, tiny.images, folder))
    words = [sys.executable, "-c", IN_A_PROCESS, *places]
    environment = {"PYTHONHASHSEED": hash_seed, "PATH": "/bin"}
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, env=environment)


@pytest.fixture(scope="module")
def exported(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export_in_a_process(tiny, folder, "1")
    facts = read_json(folder / "artifacts.json")["artifacts"]
    assert all(fact["passed"] for fact in facts.values()), facts
    return folder


def split(tiny: Tiny) -> Array:
    """The test split, float32 in [0, 1]."""
    batches = Dataset.load(tiny.dataset).read("test", 64).as_numpy_iterator()
    return np.concatenate([runtimes.floats(batch["image"]) for batch in batches])


@pytest.mark.parametrize("name", FILES)
def test_an_artifact_is_told_by_its_content_and_answers_with_probabilities(
    exported: Path, tiny: Tiny, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / "renamed"
    (shutil.copytree if (exported / name).is_dir() else shutil.copy)(exported / name, copy)
    predictor = load_predictor(copy)
    assert list(predictor.contract.class_names) == LABELS
    images = split(tiny)
    answer = predictor.predict(images)
    assert answer.shape == (len(images), 3)
    assert np.allclose(answer.sum(axis=1), 1, atol=0.02)
    alone = np.concatenate([predictor.predict(image[None]) for image in images])
    assert np.allclose(answer, alone, atol=1e-5), "the batch size changes nothing"


def test_the_table_of_formats_has_a_row_for_each_and_its_runtime_recognizes_the_file(exported: Path) -> None:
    assert set(FORMATS) == set(get_args(Format))
    for spec in FORMATS.values():
        assert runtimes.detect(exported / spec.file) is spec.runtime


def test_a_format_without_a_row_in_the_table_is_not_written_as_another(tiny: Tiny, tmp_path: Path) -> None:
    model, contract = classifier.load(tiny.models)
    writer = exporter.Exporter(model, contract, "backbone", np.empty((0, 32, 32, 3), np.float32))
    with pytest.raises(KeyError, match="openvino"):
        writer.write("openvino", tmp_path / "model.xml")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_labels_are_inside_each_format(exported: Path) -> None:
    lines = "blue\ngreen\nred\n"
    assert (exported / "saved_model/assets/labels.txt").read_text() == lines
    assert (exported / "labels.txt").read_text() == lines
    with zipfile.ZipFile(exported / "model_int8.tflite") as extra:
        assert extra.read("labels.txt").decode() == lines
    with h5py.File(exported / "model.h5") as file:
        assert json.loads(file.attrs["classifier"])["class_names"] == LABELS
    facts = {entry.key: entry.value for entry in onnx.load(exported / "model.onnx").metadata_props}
    assert facts["class_names"].split("\n") == LABELS


def test_onnx_has_named_ends_and_takes_any_batch(exported: Path) -> None:
    graph = onnx.load(exported / "model.onnx").graph
    (image,), (probabilities,) = graph.input, graph.output
    assert (image.name, probabilities.name) == ("image", "probabilities")
    assert not image.type.tensor_type.shape.dim[0].HasField("dim_value")
    assert [size.dim_value for size in image.type.tensor_type.shape.dim][1:] == [32, 32, 3]


def test_one_contract_is_in_every_artifact_and_beside_them(exported: Path) -> None:
    beside = json.loads((exported / "classifier.json").read_text())
    for name in FILES:
        assert load_predictor(exported / name).contract.text() == json.dumps(beside, ensure_ascii=False)


def test_the_same_jpeg_gets_the_same_answer_from_every_artifact(
    exported: Path, tiny: Tiny, tmp_path: Path
) -> None:
    """Float artifacts to a thousandth, those of fewer bits to two hundredths."""
    image = tmp_path / "image.jpg"
    Image.open(tiny.images / "green/004.png").resize((90, 61)).save(image, exif=_turned())
    contract = load_predictor(exported / "model.onnx").contract
    pixels = runtimes.floats(image_io.read(image, contract.image_size, contract.resize)[None])
    answers = {name: load_predictor(exported / name).predict(pixels)[0] for name in FILES}
    saved = tensorflow_setup.tf.saved_model.load(str(exported / "saved_model"))
    encoded = tensorflow_setup.tf.constant([image.read_bytes()])
    answers["bytes"] = saved.signatures["serving_bytes"](encoded=encoded)["probabilities"].numpy()[0]
    first = answers["saved_model"]
    for name, answer in answers.items():
        tolerance = 0.02 if "int8" in name or "dynamic" in name else 0.005 if name == "bytes" else 0.001
        assert answer.argmax() == LABELS.index("green"), name
        assert np.abs(answer - first).max() <= tolerance, name


def _turned() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif.tobytes()


def test_the_temperature_is_in_the_artifacts(exported: Path, tiny: Tiny) -> None:
    images = split(tiny)
    model, _ = classifier.load(tiny.models)
    logits = model.predict(images, verbose=0)
    answer = load_predictor(exported / "model.onnx").predict(images)
    assert np.allclose(answer, softmax(logits / TEMPERATURE, axis=1), atol=1e-4)
    assert not np.allclose(answer, softmax(logits, axis=1), atol=1e-4)


def test_golden_images_are_test_images_with_what_to_expect(exported: Path, tiny: Tiny) -> None:
    rows = read_json(exported / "golden/golden.json")
    assert len(rows) == 6
    predictor = load_predictor(exported / "model.onnx")
    for row in rows:
        file = exported / "golden" / row["file"]
        assert file.read_bytes() == (tiny.images / row["path"]).read_bytes()
        pixels = runtimes.floats(image_io.read(file, 32, "stretch")[None])
        assert np.allclose(predictor.predict(pixels)[0], row["probabilities"], atol=1e-4)
        assert row["class"] == row["path"].split("/")[0]


def test_golden_images_can_be_tried_as_is_said_beside_them(exported: Path) -> None:
    """By somebody who has onnxruntime and Pillow, and nothing of this project."""
    (code,) = re.findall(r"(?s)```python\n(.*?)```", (exported / "golden/README.md").read_text("utf-8"))
    assert code.index("ORT_DISABLE_TELEMETRY") < code.index("import onnxruntime")
    words = [sys.executable, "-I", "-c", code]
    done = subprocess.run(words, cwd=exported, check=True, capture_output=True, text=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    rows = read_json(exported / "golden/golden.json")
    assert [line[:2] for line in lines] == [[row["file"], row["class"]] for row in rows]
    assert max(float(line[2]) for line in lines) < 0.001


@pytest.mark.parametrize("size", [(90, 40), (900, 2)])
@pytest.mark.parametrize("resize", golden.RESIZED)
def test_what_is_said_beside_golden_images_resizes_as_we_do(resize: Any, size: tuple[int, int]) -> None:
    image = Image.effect_noise(size, 60).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    names: dict[str, Any] = {"image": image, "square": (32, 32), "Image": Image, "ImageOps": ImageOps}
    exec(golden.RESIZED[resize].replace("\n    ", "\n"), names)
    theirs = np.asarray(names["image"])
    assert np.array_equal(theirs, image_io.pixels(buffer.getvalue(), Path("picture"), 32, resize))


def test_what_is_no_plain_jpeg_or_png_is_golden_as_png(tmp_path: Path) -> None:
    deep = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(tmp_path / "old.bmp")
    contract = Contract(("a", "b"), 32, "stretch")
    seen: list[Array] = []

    def predict(pixels: Array) -> Array:
        seen.append(pixels)
        return np.tile([0.25, 0.75], (len(pixels), 1))

    digests = {name: sha256(tmp_path / name) for name in ("deep.png", "old.bmp")}
    golden.write(tmp_path / "golden", tmp_path, digests, contract, predict)
    Image.new("RGB", (9, 9)).save(tmp_path / "old.bmp")
    with pytest.raises(DataError, match=r"old.bmp was changed since it was validated"):
        golden.write(tmp_path / "again", tmp_path, digests, contract, predict)
    for place, name in enumerate(["000000.png", "000001.png"]):
        read = runtimes.pixels((tmp_path / "golden" / name).read_bytes(), contract.facts())
        assert np.array_equal(read, seen[0][place])


def cut(png: bytes) -> bytes:
    return png[:-12]  # IEND


def miscounted(png: bytes) -> bytes:
    end = png.index(b"IEND") - 4
    return png[: end - 1] + bytes([png[end - 1] ^ 1]) + png[end:]  # of IDAT's checksum


def with_a_profile(png: bytes) -> bytes:
    """As ImageMagick writes EXIF."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    text = f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n".encode()
    chunk = b"tEXtRaw profile type exif\0" + text
    return (
        png[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]
    )


@pytest.mark.parametrize("change", [cut, miscounted, with_a_profile])
def test_what_tensorflow_reads_otherwise_is_golden_as_png(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    """Pillow reads each of these, and one such image among the golden ones had the SavedModel left out."""
    contract = Contract(("a", "b"), 32, "stretch")
    buffer = io.BytesIO()
    Image.effect_noise((40, 60), 60).convert("RGB").save(buffer, "PNG")
    for name, data in {"odd.png": change(buffer.getvalue()), "plain.png": buffer.getvalue()}.items():
        (tmp_path / name).write_bytes(data)
    digests = {name: sha256(tmp_path / name) for name in ("odd.png", "plain.png")}
    golden.write(tmp_path / "golden", tmp_path, digests, contract, lambda pixels: np.ones((len(pixels), 2)))
    odd, plain = ((tmp_path / f"golden/00000{place}.png").read_bytes() for place in (0, 1))
    assert plain == buffer.getvalue()
    served = decode_graph.images(tf.constant([odd]), contract)[0].numpy() * 255
    assert np.abs(served - image_io.read(tmp_path / "odd.png", 32, "stretch")).max() <= 2.5


# Proofs.


def test_artifacts_are_proved_on_a_share_of_many_test_images(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each class the same share and one at least, the same images each time, each with its own answer."""
    counts = [10_000, 40, 1, 0]
    drawn, again = (export.draw_test_images(counts) for _ in range(2))
    assert [each.sum() for each in drawn] == [4980, 20, 1, 0]
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))
    assert all(each.all() for each in export.draw_test_images([4999, 1]))

    def brightness(images: Array) -> Array:
        means: Array = images.mean((1, 2))
        return means

    data = Dataset.load(tiny.dataset)
    whole, _ = export.answer_test_images(brightness, data, tmp_path / "whole.npy")
    assert len(whole) == data.size("test")
    monkeypatch.setattr(export, "MOST_PROVED", 6)
    labels, answers = export.answer_test_images(brightness, data, tmp_path / "some.npy")
    assert 6 <= len(labels) < len(whole) and set(labels) == set(whole)
    assert np.array_equal(brightness(np.load(tmp_path / "some.npy")), answers)


def test_an_artifact_is_run_where_the_project_can_not_be_imported(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    script = tmp_path / "probe.py"
    script.write_text(
        Path(runtimes.__file__).read_text().replace("import json\n", "import json\nimport tasks\n", 1)
    )
    monkeypatch.setattr(runtimes, "__file__", str(script))
    with pytest.raises(ModelError, match="No module named 'tasks'"):
        isolation.time_artifacts(exported, {"onnx": "model.onnx"})


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_onnx_and_tflite_need_no_tensorflow(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    script = tmp_path / "probe.py"
    forbid = "import sys\nsys.modules.update(dict.fromkeys(['tensorflow', 'tf_keras', 'keras', 'pandas']))\n"
    text = Path(runtimes.__file__).read_text()
    script.write_text(text.replace("import json\n", forbid + "import json\n", 1))
    monkeypatch.setattr(runtimes, "__file__", str(script))
    assert isolation.time_artifacts(exported, {name: name})[name]["latency_ms"] > 0


def facts(**changes: Any) -> dict[str, Any]:
    good = {
        "agreement": 1.0,
        "accuracy": 0.9,
        "accuracy_drop": 0.0,
        "accuracy_drop_least": 0.0,
        "sure_disagreement": 0.0,
        "sure_disagreement_least": 0.0,
        "sum_error": 0.0,
        "golden_difference": 0.0,
    }
    return {"file": "model.x", "bytes": 100, "sha256": ""} | good | changes


@pytest.mark.parametrize(
    ("kind", "changes", "fault"),
    [
        ("onnx", {"agreement": 0.98}, "agreement of 0.98, which is not at least 0.99"),
        (
            "onnx",
            {"accuracy_drop": 0.02, "accuracy_drop_least": 0.008},
            r"accuracy_drop of 0.02 \(95 %: at least 0.008\), which is not at most 0.005",
        ),
        ("tflite_int8", {"agreement": 0.79}, "at least 0.8"),
        ("tflite_int8", {"sure_disagreement_least": 0.01}, "at least 0.01.*, which is not at most 0.005"),
        ("h5", {"sum_error": 0.5}, "sum_error of 0.5"),
        ("h5", {"golden_difference": 0.9}, "golden_difference of 0.9"),
        ("h5", {"agreement": 0.5, "sum_error": 0.5}, "agreement of 0.5.*; .*sum_error of 0.5"),
    ],
)
def test_each_rule_says_no_by_name_value_and_limit(kind: Format, changes: dict[str, Any], fault: str) -> None:
    found = verification.apply_rules(kind, facts(**changes), RULES, {})
    assert not found["passed"]
    assert re.search(fault, found["why"]), found["why"]


def test_a_rule_for_one_format_goes_before_that_for_all() -> None:
    assert verification.apply_rules("tflite_int8", facts(agreement=0.9), RULES, {})["passed"]
    assert not verification.apply_rules("tflite", facts(agreement=0.9), RULES, {})["passed"]


def test_what_few_images_can_not_show_is_no_drop() -> None:
    def drop(lost: int, count: int) -> float:
        return verification._lowest_mean(np.arange(count) < lost)

    assert drop(1, 70) < 0
    assert drop(10, 70) > 0.005
    assert drop(100, 10_000) > 0.005, "of many images a hundredth is one"


def test_a_budget_of_time_is_held_and_the_time_is_not_told() -> None:
    rule = (ArtifactRule("latency_ratio", max=0.1), ArtifactRule("bytes", max=50))
    found = verification.apply_rules("onnx", facts(), rule, {"latency_ratio": 0.123456})
    assert "latency_ratio, which is not at most 0.1; model.x has bytes of 100" in found["why"]
    assert "latency_ratio" not in found and "0.123" not in str(found), "the same bytes the next time"
    assert [(gate["name"], gate["value"]) for gate in found["gates"]] == [
        ("latency_ratio", None),
        ("bytes", 100),
    ]


def test_a_ratio_to_a_saved_model_that_does_not_run_is_not_met() -> None:
    rule = (ArtifactRule("latency_ratio", max=0.1),)
    found = verification.apply_rules("onnx", facts(), rule, {"latency_ratio": None})
    assert not found["passed"] and "no SavedModel that runs" in found["why"]


def test_a_format_that_can_not_be_written_costs_only_itself(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_self: Any, _path: Path) -> None:
        raise ValueError("no such operation\nin this format")

    monkeypatch.setattr(exporter.Exporter, "onnx", fails)
    found = run(tiny, tmp_path, "onnx", "tflite")
    assert found["tflite"]["passed"]
    assert found["onnx"]["why"] == "model.onnx can't be written (no such operation in this format)"


def test_without_golden_images_to_ship_artifacts_are_proved_with_some(tiny: Tiny, tmp_path: Path) -> None:
    p = dataclasses.replace(ALL, formats=("onnx",), golden=0)
    found = export.export(tiny.models, tiny.dataset, tiny.images, tmp_path, p, TEMPERATURE)["artifacts"]
    assert found["onnx"]["golden_agreement"] == 1
    assert not (tmp_path / "golden").exists()


@pytest.mark.slow
def test_an_hdf5_file_that_names_a_backbones_folder_is_run(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `model.backbone: mine` does, in the folder that the pipeline runs in."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.folder / "backbone", "mine")
    shutil.copytree(tiny.models, "models")
    facts_file = tmp_path / "models/classifier.json"
    assert read_json(facts_file)["backbone"] == str(tiny.folder / "backbone")
    facts_file.write_text(facts_file.read_text().replace(str(tiny.folder / "backbone"), "mine"))
    p = dataclasses.replace(ALL, formats=("h5",))
    (tmp_path / "out").mkdir()
    found = export.export(tmp_path / "models", tiny.dataset, tiny.images, tmp_path / "out", p, 1.0)[
        "artifacts"
    ]
    assert found["h5"]["passed"], found


def test_the_free_size_in_an_onnx_file_has_a_name_that_is_no_counter(exported: Path) -> None:
    graph = onnx.load(exported / "model.onnx").graph
    shapes = [value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output)]
    assert [[dim.dim_param or dim.dim_value for dim in shape] for shape in shapes] == [
        ["batch", 32, 32, 3],
        ["batch", 3],
    ]


def test_a_ratio_without_what_it_is_a_ratio_to_is_a_slip() -> None:
    rules = (*RULES[:2], ArtifactRule("latency_ratio", max=0.1))
    with pytest.raises(ParamError, match=r"export\.rules\.2 is about latency_ratio"):
        dataclasses.replace(ALL, formats=("onnx",), rules=rules)


def test_the_contract_says_what_an_artifact_takes() -> None:
    contract = Contract(("a", "b"), 64, "pad")
    said = json.loads(contract.text())
    assert said["input"] == {"shape": [None, 64, 64, 3], "dtype": "float32", "range": [0, 1]}
    assert Contract.of(said) == contract


def test_budgets_of_time_are_measured_when_asked_for(tiny: Tiny, tmp_path: Path) -> None:
    most = [ArtifactRule("peak_memory_bytes", max=each) for each in (1e7, 1e10)]
    found = run(tiny, tmp_path, "onnx", rules=(ArtifactRule("latency_ms", max=0.0), *most))["onnx"]
    assert not found["passed"] and "latency_ms" in found["why"]
    assert found["why"].count("peak_memory_bytes") == 1, "some hundred MB"
    assert not (tmp_path / "model.onnx").exists()


def test_an_artifact_that_can_not_be_run_is_told_of(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter.Exporter, "onnx", lambda _self, path: path.write_bytes(b"\x08nonsense"))
    found = run(tiny, tmp_path, "onnx")["onnx"]
    assert not found["passed"] and "can't be run apart (onnxruntime." in found["why"]
    assert found["why"].startswith("model.onnx can't"), "the folder is a temporary one"
    with pytest.raises(Rejected, match=r"model\.onnx can't be run apart"):
        verdict.check({"gates": []}, {"onnx": found})
    assert latency.with_times(tmp_path, {"onnx": found})["onnx"]["latency_ms"] is None


def test_what_is_timed_is_what_rules_may_name(exported: Path) -> None:
    assert set(TIMED) == {*runtimes.measure_load(exported / "model.tflite"), "latency_ratio"}


@pytest.mark.slow
def test_times_and_memory_are_measured_of_each(exported: Path) -> None:
    found = latency.with_times(exported, read_json(exported / "artifacts.json")["artifacts"])
    assert found["saved_model"]["latency_ratio"] == 1
    for fact in found.values():
        assert 0 < fact["latency_ms"] < fact["latency_32_ms"]
        assert fact["peak_memory_bytes"] > 1e7


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(exported: Path, tiny: Tiny, tmp_path: Path) -> None:
    export_in_a_process(tiny, tmp_path, "2")
    first, second = (
        {path.name: sha256(path) for path in folder.iterdir()} for folder in (exported, tmp_path)
    )
    assert first == second
    assert len(first) == 11


@pytest.mark.parametrize("content", [b"", b"nothing known", b"\x89HDF\r\n\x1a\n", b"\0\0\0\0TFL3"])
def test_what_is_no_artifact_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_predictor(tmp_path / "model")
    assert "\n" not in str(caught.value) and "model" in str(caught.value)


@pytest.mark.parametrize(("end", "error"), [("SIGKILL", WorkerError), ("SIGSEGV", ModelError)])
def test_a_process_that_somebody_kills_says_nothing_of_its_artifact(
    end: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a model is rejected for good, as what an export came to is kept. A crash is its own fault."""
    killed = tmp_path / "killed.py"
    killed.write_text(f"import os, signal\nos.kill(os.getpid(), signal.{end})\n")
    monkeypatch.setattr(runtimes, "__file__", str(killed))
    (tmp_path / "model.onnx").touch()
    with pytest.raises(error, match=r"model\.onnx"):
        isolation._run("predict", tmp_path / "model.onnx")
