"""What is measured is what was predicted; a label that there is reason to doubt is named, and no other."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks import build, evaluate
from tasks.check import Params
from tasks.core.base import params
from tasks.core.base.arrays import Array
from tasks.core.base.files import read_json
from tasks.core.data.manifest import SCHEMA
from tasks.core.data.parquet import write_parquet
from tasks.core.evaluation import label_errors
from tasks.core.evaluation.corruptions import CORRUPTIONS
from tests.images import ALONE, scanned
from tests.structure import ROOT
from tests.tiny import Tiny

LABELS = np.repeat([0, 1, 2], 20)


def sure_of(classes: Array, count: int = 3, confidence: float = 0.95) -> Array:
    """Probabilities of a model that is as sure as that of these classes."""
    rest = (1 - confidence) / (count - 1)
    return np.full((len(classes), count), rest) + (confidence - rest) * np.eye(count)[classes]


def test_an_image_in_the_wrong_class_is_found_by_the_stage(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One red image for the test among the blue ones; `tiny` was trained without it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.images, "pictures")
    planted = "blue/really red.png"
    Path("pictures/red/003.png").rename(Path("pictures") / planted)
    Path("labels.csv").write_text("path,label\n")
    frame = scanned(Path("pictures"), Path("labels.csv"))
    frame.loc[frame["path"] == planted, "split_hint"] = "test"
    others = [name for name in ("train", "validation", "test") for _ in range(20)]
    rest = frame["path"] != planted
    frame.loc[rest, "split_hint"] = [others[place * 7 % 60] for place in range(rest.sum())]
    write_parquet(Path("manifest.parquet"), frame, SCHEMA)
    p = params.read(ROOT / "params.yaml", Params)
    backbone = str(tiny.folder / "backbone")
    build.build(Path("pictures"), Path("manifest.parquet"), Path("dataset"), p.build, backbone, 32, ALONE, {})
    _, doubts = evaluate.evaluate(
        tiny.models, Path("dataset"), Path("manifest.parquet"), Path("labels.csv"), p.evaluate
    )
    (found,) = read_json(Path("reports/label_errors.json"))
    assert doubts == 1
    assert 0 <= found.pop("self_confidence") < 0.5
    assert found == {"path": planted, "label": "blue", "suggested": "red", "split": "test"}


def test_the_least_credible_label_comes_first_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    labels, probabilities = LABELS.copy(), sure_of(LABELS)
    labels[5], labels[45] = 1, 0
    probabilities[45] = sure_of(np.array([2]), confidence=0.99)[0]
    text = {"label": labels.astype(str), "predicted": LABELS.astype(str), "split": "test"}
    frame = pd.DataFrame({"path": [f"{row}.png" for row in range(60)], **text})
    found = label_errors.describe(frame, labels, probabilities)
    assert [(row["path"], row["label"], row["suggested"]) for row in found] == [
        ("45.png", "0", "2"),
        ("5.png", "1", "0"),
    ]
    assert [row["self_confidence"] for row in found] == [0.005, 0.025]
    assert capfd.readouterr() == ("", "")


def test_labels_that_the_model_agrees_with_are_not_doubted() -> None:
    assert label_errors.likely(LABELS, sure_of(LABELS)) == []


def test_a_class_without_images_here_is_no_trouble() -> None:
    """Its column of probabilities is there, and one image is even taken for it."""
    labels = np.repeat([0, 2], 20)
    probabilities = sure_of(labels)
    probabilities[7] = sure_of(np.array([1]))[0]
    labels[3] = 2
    assert label_errors.likely(labels, probabilities) == [3]


def test_a_model_that_knows_one_class_only_is_no_trouble() -> None:
    found = label_errors.likely(LABELS, sure_of(np.ones_like(LABELS)))
    assert set(found) <= set(np.flatnonzero(LABELS != 1)), "its own class is never doubted"


@pytest.mark.parametrize("place", [0, 2])
def test_where_all_labels_are_the_same_none_is_doubted(place: int) -> None:
    labels = np.full(20, place)
    assert label_errors.likely(labels, sure_of(np.array([1, *labels[1:]]))) == []


@pytest.fixture(scope="module")
def measured(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the stage has run on the small data set, of which a column tells the camera."""
    folder = tmp_path_factory.mktemp("evaluate")
    paths = sorted(file.relative_to(tiny.images).as_posix() for file in tiny.images.rglob("*.png"))
    rows = [
        f"{path},{path.split('/')[0]},{'new' if place % 2 else 'old'}" for place, path in enumerate(paths)
    ]
    (folder / "labels.csv").write_text("\n".join(["path,label,camera", *rows]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        p = dataclasses.replace(params.read(ROOT / "params.yaml", Params).evaluate, robustness=10)
        manifest = tiny.folder / "manifest.parquet"
        evaluate.evaluate(tiny.models, tiny.dataset, manifest, Path("labels.csv"), p)
    return folder / "reports"


def test_the_numbers_are_those_of_the_predictions(measured: Path) -> None:
    found, frame = read_json(measured / "metrics.json"), pd.read_parquet(measured / "predictions.parquet")
    assert found["test"]["n"] == len(frame)
    assert found["test"]["accuracy"] == round((frame["label"] == frame["predicted"]).mean(), 6)
    for name, facts in found["slices"]["camera"].items():
        chosen = frame[frame["slice_camera"] == name]
        assert facts["n"] == len(chosen)
        assert facts["accuracy"] == round((chosen["label"] == chosen["predicted"]).mean(), 6)
    for name in ("majority", "colours"):
        share = (frame["label"] == frame[f"baseline_{name}"]).mean()
        assert found["baselines"][name]["accuracy"] == round(share, 6)


def test_colours_alone_tell_plain_colours_apart_and_the_majority_does_not(measured: Path) -> None:
    """What a model has to beat: here colour is all there is."""
    found = read_json(measured / "metrics.json")["baselines"]
    assert found["colours"]["accuracy"] == 1
    assert found["majority"]["accuracy"] < 0.5


def test_robustness_is_the_mean_of_all_harm(measured: Path) -> None:
    found = read_json(measured / "metrics.json")["robustness"]
    each = [share for name in CORRUPTIONS for share in found["corruptions"][name].values()]
    assert len(each) == 18
    assert found["accuracy"] == pytest.approx(np.mean(each), abs=1e-5)
    assert found["n"] == 10
    low, high = found["interval_95"]["accuracy"]
    assert low <= found["accuracy"] <= high


def test_the_tables_that_dvc_plots_hold_every_test_image(measured: Path) -> None:
    n = read_json(measured / "metrics.json")["test"]["n"]
    curves = pd.read_csv(measured / "evaluation/reliability.csv").groupby("when")["n"].sum()
    assert curves.to_dict() == {"before": n, "after": n}
    assert len(pd.read_csv(measured / "evaluation/confusion.csv")) == n
    assert len(pd.read_csv(measured / "evaluation/robustness.csv")) == 18


def test_calibration_is_told_before_and_after(measured: Path) -> None:
    found, test = (read_json(measured / "metrics.json")[name] for name in ("calibration", "test"))
    assert found["before"] == {name: test[name] for name in ("log_loss", "ece")}
    assert found["after"] != found["before"]
