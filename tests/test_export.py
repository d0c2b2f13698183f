"""Every artifact says what the model says, carries its labels, and comes out the same bytes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest

from tasks import export, latency, predict, verdict
from tasks.core import params, predictors, runtime
from tasks.core.errors import ModelError, Rejected
from tasks.core.params import Export
from tasks.core.records import Dataset
from tasks.core.serialize import sha256
from tests.conftest import Tiny
from tests.structure import ROOT

LABELS = ["blue", "green", "red"]
ALL: Export = params.load(ROOT / "params.yaml").export


@pytest.fixture(scope="module")
def exported(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    runtime.deterministic(0)
    facts = export.export(tiny.models, tiny.dataset, folder, ALL)
    assert all(fact["passed"] for fact in facts.values()), facts
    return folder


@pytest.mark.parametrize("name", export.FILES.values())
def test_an_artifact_is_told_by_its_content_and_answers_with_probabilities(
    exported: Path, tiny: Tiny, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / "renamed"
    (shutil.copytree if (exported / name).is_dir() else shutil.copy)(exported / name, copy)
    predictor = predictors.load(copy)
    assert list(predictor.contract.class_names) == LABELS
    pictures, _ = export.test_pictures(Dataset.load(tiny.dataset))
    answer = predictor.predict(pictures)
    assert answer.shape == (len(pictures), 3)
    assert np.allclose(answer.sum(axis=1), 1, atol=0.02)
    alone = np.concatenate([predictor.predict(picture[None]) for picture in pictures])
    assert np.allclose(answer, alone, atol=1e-5), "the batch size changes nothing"


def test_labels_are_inside_each_format(exported: Path) -> None:
    lines = "blue\ngreen\nred\n"
    assert (exported / "saved_model/assets.extra/labels.txt").read_text() == lines
    assert (exported / "labels.txt").read_text() == lines
    with zipfile.ZipFile(exported / "model_int8.tflite") as extra:
        assert extra.read("labels.txt").decode() == lines
    with h5py.File(exported / "model.h5") as file:
        assert json.loads(file.attrs["classifier"])["class_names"] == LABELS
    facts = {entry.key: entry.value for entry in onnx.load(exported / "model.onnx").metadata_props}
    assert facts["class_names"].split("\n") == LABELS


def test_an_artifact_of_another_mind_is_not_passed(exported: Path, tiny: Tiny) -> None:
    pictures, labels = export.test_pictures(Dataset.load(tiny.dataset))
    truth = predictors.load(exported / "saved_model").predict(pictures)
    fact = export.prove(exported / "model.onnx", pictures, labels, truth[:, ::-1], 0.99)
    assert not fact["passed"]
    assert "model.onnx" in fact["why"] and "0.99" in fact["why"]


def test_an_artifact_that_fails_is_told_of_and_not_left_there(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export.Exporter.onnx

    def write_classes_in_another_order(self: export.Exporter, path: Path) -> None:
        head = self.model.get_layer("head")
        weights = head.get_weights()
        head.set_weights([np.roll(array, 1, axis=-1) for array in weights])
        write(self, path)
        head.set_weights(weights)

    monkeypatch.setattr(export.Exporter, "onnx", write_classes_in_another_order)
    both = dataclasses.replace(ALL, formats=("saved_model", "onnx"))
    facts = export.export(tiny.models, tiny.dataset, tmp_path, both)
    assert not (tmp_path / "model.onnx").exists()
    assert facts["saved_model"]["passed"] and (tmp_path / "saved_model").is_dir()
    assert latency.timed(tmp_path, facts)["onnx"]["latency_ms"] is None
    with pytest.raises(Rejected, match=r"model\.onnx agrees with the trained model on 0\.0000"):
        verdict.check({"gates": []}, facts)


EXPORT_AGAIN = """
import sys
from pathlib import Path
from tasks import export
from tasks.core import params, runtime
runtime.deterministic(0)
export.export(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), params.load().export)
"""


def test_another_process_writes_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    digests = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        words = [sys.executable, "-c", EXPORT_AGAIN, str(tiny.models), str(tiny.dataset), str(folder)]
        subprocess.run(
            words, cwd=ROOT, check=True, capture_output=True, env={"PYTHONHASHSEED": seed, "PATH": "/bin"}
        )
        digests.append({path.name: sha256(path) for path in folder.iterdir()})
    assert digests[0] == digests[1]
    assert len(digests[0]) == 8


@pytest.mark.parametrize("content", [b"", b"nothing known", b"\x89HDF\r\n\x1a\n", b"\0\0\0\0TFL3"])
def test_what_is_no_artifact_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        predictors.load(tmp_path / "model")
    assert "\n" not in str(caught.value) and "model" in str(caught.value)


def run_predict(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tasks.predict", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def test_predict_passes_over_what_it_can_not_read_and_says_so(
    exported: Path, tiny: Tiny, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    done = run_predict(exported / "model.onnx", tiny.pictures / "red", bad, "--json")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"predict: {bad} is not a picture; leave it out or replace it"]
    answers = json.loads(done.stdout)
    assert [answer["class"] for answer in answers] == ["red"] * 20
    assert answers[0]["top"][0]["class"] == "red"


def test_predict_prints_a_table(exported: Path, tiny: Tiny) -> None:
    done = run_predict(exported / "model.tflite", tiny.pictures / "blue/000.png", "--top", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[1] == "blue"


@pytest.mark.parametrize("words", [("nowhere.onnx", "x.png"), ("nowhere.onnx",), ("a", "b", "--top", "0")])
def test_predict_takes_a_slip_with_exit_2(words: tuple[str, ...]) -> None:
    done = run_predict(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_more_pictures_than_a_batch_all_come_out_in_order(exported: Path, tiny: Tiny) -> None:
    unread: list[Path] = []
    results = list(predict.predict(exported / "model.onnx", predict.listed([tiny.pictures]), 1, unread))
    assert [Path(result["path"]).parent.name for result in results] == [x for x in LABELS for _ in range(20)]
    assert unread == []
