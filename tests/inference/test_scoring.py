"""A folder is scored whole, whoever does the work, and nothing is scored twice."""

import dataclasses
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks import predict, score
from tasks.core.artifacts import runtimes
from tasks.core.artifacts.exporter import Exporter
from tasks.core.artifacts.formats import FORMATS
from tasks.core.base.errors import DataError, ModelError
from tasks.core.base.files import sha256
from tasks.core.base.paths import MANIFEST, PREDICTIONS
from tasks.core.data import image_io
from tasks.core.data.config import Processes
from tasks.core.data.manifest import MEASURES, SCHEMA
from tasks.core.data.parquet import write_parquet
from tasks.core.inference import scoring
from tasks.core.inference.predictor import load_predictor
from tasks.core.inference.scoring import REFERENCE, TABLE, Shard
from tasks.core.release.deployment import Model
from tasks.core.training import classifier
from tests.images import ALONE, scanned
from tests.structure import ROOT
from tests.tiny import Tiny
from tests.workers import local_cluster

TWO = Processes(workers=2, scheduler="none")


@pytest.fixture(scope="module")
def model(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained, contract = classifier.load(tiny.models)
    path = tmp_path_factory.mktemp("exported") / FORMATS["onnx"].file
    Exporter(trained, contract, "elsewhere", np.zeros((1, 32, 32, 3), np.float32)).write("onnx", path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def scored(model: Path, folder: Path, compute: Processes = ALONE) -> pd.DataFrame:
    return scoring.score(model, folder, scoring.describe(folder, compute), 7, compute)


@pytest.mark.usefixtures("here")
def test_every_image_gets_an_answer_its_digest_and_its_measures(model: Path, tiny: Tiny) -> None:
    table = scored(model, tiny.images)
    assert list(table["predicted"]) == [path.split("/")[0] for path in table["path"]]
    assert len(table) == 60
    assert table["sha256"][0] == sha256(tiny.images / table["path"][0])
    assert table["brightness"].between(0, 1).all()
    names = load_predictor(model).contract.class_names
    assert np.allclose(table[[f"p_{name}" for name in names]].sum(axis=1), 1, atol=1e-5)
    assert np.allclose(table["confidence"], table[[f"p_{name}" for name in names]].max(axis=1))


@pytest.mark.usefixtures("here")
def test_the_answers_are_those_of_the_artifact(model: Path, tiny: Tiny) -> None:
    table, predictor = scored(model, tiny.images), load_predictor(model)
    row = table.iloc[33]
    path, contract = tiny.images / row["path"], predictor.contract
    pixels = image_io.pixels(path.read_bytes(), path, contract.image_size, contract.resize)
    expected = predictor.predict(runtimes.floats(pixels[None]))[0]
    answer = row[[f"p_{name}" for name in contract.class_names]].to_numpy(float)
    assert np.allclose(answer, expected, atol=1e-6)


@pytest.mark.usefixtures("here")
def test_tasks_predict_says_the_same(model: Path, tiny: Tiny) -> None:
    table = scored(model, tiny.images).set_index("path")
    unread: list[str] = []
    answers = predict.predict(load_predictor(model), predict.list_sources([str(tiny.images)]), 7, unread)
    best = {str(Path(one.path).relative_to(tiny.images)): one.best(1)[0] for one in answers}
    assert not unread
    assert {path: one["class"] for path, one in best.items()} == dict(table["predicted"])
    told = pd.Series({path: float(one["probability"]) for path, one in best.items()})
    assert np.allclose(told[table.index], table["confidence"], atol=1e-4)


def test_digests_and_measures_are_those_of_the_manifest(model: Path, tiny: Tiny, here: Path) -> None:
    (here / "labels.csv").write_text("path,label\n")
    manifest = scanned(tiny.images, here / "labels.csv").sort_values("path", ignore_index=True)
    columns = ["path", "sha256", *MEASURES]
    pd.testing.assert_frame_equal(scored(model, tiny.images)[columns], manifest[columns])
    assert manifest["sha256"].nunique() == 60, "else a mistaken row could look right"


def test_an_image_that_can_not_be_read_has_a_row_that_says_why(model: Path, tiny: Tiny, here: Path) -> None:
    shutil.copytree(tiny.images / "red", here / "new")
    (here / "new/broken.png").write_text("no image")
    said = score.score(Model(model), here / "new", tiny.images, here / "out", 7, ALONE)
    assert "21 images" in said
    assert "1 unreadable" in said
    table = pd.read_parquet(here / "out" / TABLE)
    broken = table[table["path"] == "broken.png"].iloc[0]
    assert broken["error"] == "is not an image"
    assert broken[["predicted", "confidence", "p_red"]].isna().all()
    assert (table[table["path"] != "broken.png"]["predicted"] == "red").all()


def test_nothing_but_broken_images_is_a_table_without_answers(model: Path, here: Path) -> None:
    (here / "new").mkdir()
    (here / "new/broken.png").write_text("no image")
    table = scored(model, here / "new")
    assert table["predicted"].isna().all()
    assert "p_red" in table


@pytest.mark.usefixtures("here")
def test_a_run_goes_on_where_another_was_ended(
    model: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "SHARD", 13)
    whole = scored(model, tiny.images)
    shutil.rmtree("cache")
    done: list[Shard] = []

    def counting(then: Callable[[], None]) -> Callable[[Shard], Shard]:
        def predict_shard(shard: Shard) -> Shard:
            done.append(shard)
            then()
            return original(shard)

        predict_shard.__module__ = "tasks.core.inference.scoring"
        return predict_shard

    def end() -> None:
        if len(done) == 3:
            raise KeyboardInterrupt

    original = scoring.predict_shard
    monkeypatch.setattr(scoring, "predict_shard", counting(end))
    with pytest.raises(KeyboardInterrupt):
        scored(model, tiny.images)
    done.clear()
    monkeypatch.setattr(scoring, "predict_shard", counting(lambda: None))
    pd.testing.assert_frame_equal(scored(model, tiny.images), whole)
    assert len(done) == 3, "of five shards two were done"
    done.clear()
    scored(model, tiny.images)
    assert not done


def test_another_model_is_asked_again(model: Path, tiny: Tiny, here: Path) -> None:
    other = here / "other.onnx"
    shutil.copy(model, other)
    rows = scoring.describe(tiny.images, ALONE)
    (one,) = scoring.shards(model, tiny.images, rows, 7)
    (same,) = scoring.shards(model, tiny.images, rows, 8)
    (two,) = scoring.shards(other, tiny.images, rows, 7)
    assert one.part == same.part
    assert one.part != two.part


@pytest.mark.usefixtures("here")
def test_a_model_that_is_replaced_under_its_name_answers_for_itself(
    model: Path, tiny: Tiny, tmp_path: Path
) -> None:
    trained, contract = classifier.load(tiny.models)
    path = tmp_path / model.name
    shutil.copy(model, path)
    before = scored(path, tiny.images)
    turned = dataclasses.replace(contract, class_names=contract.class_names[::-1])
    Exporter(trained, turned, "elsewhere", np.zeros((1, 32, 32, 3), np.float32)).write("onnx", path)
    after = scored(path, tiny.images)
    other = dict(zip(contract.class_names, turned.class_names, strict=True))
    assert list(after["predicted"]) == [other[name] for name in before["predicted"]]


def test_a_byte_in_any_file_of_an_artifact_makes_it_another(tmp_path: Path) -> None:
    (tmp_path / "saved/variables").mkdir(parents=True)
    for name in ("saved/graph.pb", "saved/variables/data"):
        (tmp_path / name).write_text("same")
    before = scoring.digest(tmp_path / "saved")
    assert scoring.digest(tmp_path / "saved") == before
    (tmp_path / "saved/variables/data").write_text("other")
    assert scoring.digest(tmp_path / "saved") != before


def test_an_image_that_was_away_for_a_moment_has_its_answer_the_next_time(
    model: Path, tiny: Tiny, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "SHARD", 7)
    shutil.copytree(tiny.images / "red", here / "new")
    rows = scoring.describe(here / "new", ALONE)
    (here / "new/003.png").rename(here / "aside.png")
    away = scoring.score(model, here / "new", rows, 7, ALONE).set_index("path")
    assert list(away.index[away["predicted"].isna()]) == ["003.png"]
    assert away["error"].notna()["003.png"]
    (here / "aside.png").rename(here / "new/003.png")
    kept = [job.part.exists() for job in scoring.shards(model, here / "new", rows, 7)]
    assert kept == [False, True, True], "only what it was in is done again"
    assert (scoring.score(model, here / "new", rows, 7, ALONE)["predicted"] == "red").all()


def test_processes_and_a_cluster_write_the_same_bytes(
    model: Path, tiny: Tiny, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "SHARD", 13)
    monkeypatch.setattr(scoring, "limit_workers", lambda compute, _: compute)  # few as they are
    digests = set()
    with local_cluster(2) as cluster:
        for place, compute in enumerate((ALONE, TWO, Processes(1, cluster.scheduler_address))):
            monkeypatch.setenv("DARKROOM_CACHE", str(here / f"cache-{place}"))
            scoring.write(here / TABLE, scored(model, tiny.images, compute))
            digests.add(sha256(here / TABLE))
    assert len(digests) == 1


@pytest.mark.usefixtures("here")
def test_threads_do_not_disturb_each_other(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of Dask's has several, and a TFLite interpreter is for one at a time."""
    monkeypatch.setattr(scoring, "SHARD", 5)
    trained, contract = classifier.load(tiny.models)
    model = tmp_path / FORMATS["tflite"].file
    Exporter(trained, contract, "elsewhere", np.zeros((1, 32, 32, 3), np.float32)).write("tflite", model)
    rows = scoring.describe(tiny.images, ALONE)
    jobs = list(scoring.shards(model, tiny.images, rows, 1))
    scoring.predict_shard(jobs[0])  # so that they share what is loaded
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(scoring.predict_shard, jobs))
    table = scoring.score(model, tiny.images, rows, 1, ALONE)
    assert list(table["predicted"]) == [path.split("/")[0] for path in table["path"]]


def test_the_reference_is_of_the_test_images(model: Path, tiny: Tiny, here: Path) -> None:
    score.score(Model(model), tiny.images / "red", tiny.images, here / "out", 7, ALONE)
    assert not (here / "out" / REFERENCE).exists(), "no test image is known"
    (here / "labels.csv").write_text("path,label\n")
    write_parquet(MANIFEST, scanned(tiny.images, here / "labels.csv"), SCHEMA)
    PREDICTIONS.parent.mkdir()
    pd.DataFrame({"path": ["blue/003.png", "red/000.png"]}).to_parquet(PREDICTIONS)
    score.score(Model(model), tiny.images / "red", tiny.images, here / "out", 7, ALONE)
    reference = pd.read_parquet(here / "out" / REFERENCE)
    assert list(reference["path"]) == ["blue/003.png", "red/000.png"]
    assert list(reference["predicted"]) == ["blue", "red"]


def test_a_file_is_no_place_for_tables(model: Path, tiny: Tiny, here: Path) -> None:
    (here / "file.png").touch()
    with pytest.raises(DataError, match=r"file\.png is a file; give a folder"):
        score.score(Model(model), tiny.images, tiny.images, here / "file.png", 7, ALONE)


@pytest.mark.parametrize("name", [TABLE, REFERENCE])
def test_tables_of_others_are_not_written_over(model: Path, tiny: Tiny, here: Path, name: str) -> None:
    """Those of `evaluate`, in reports/, have the same name."""
    (here / "out").mkdir()
    pd.DataFrame({"mine": [1]}).to_parquet(here / "out" / name)
    with pytest.raises(DataError, match=f"^out/{name} is not a table of tasks.score; give another folder"):
        score.score(Model(model), tiny.images, tiny.images, Path("out"), 7, ALONE)
    assert list(pd.read_parquet(here / "out" / name)) == ["mine"]
    (here / "out" / name).unlink()
    for _ in range(2):  # the second over the first
        score.score(Model(model), tiny.images / "red", tiny.images, Path("out"), 7, ALONE)


def test_tables_do_not_lie_among_the_images(model: Path, tiny: Tiny, here: Path) -> None:
    shutil.copytree(tiny.images, here / "new")
    with pytest.raises(DataError, match=r"new/red lies among the images of new; give a folder outside of it"):
        score.score(Model(model), tiny.images, Path("new"), Path("new/red"), 7, ALONE)
    with pytest.raises(DataError, match=r"new/red lies among the images of new; give a folder outside of it"):
        score.score(Model(model), Path("new"), tiny.images, Path("new/red"), 7, ALONE)


def test_tables_do_not_lie_in_what_a_stage_writes(model: Path, tiny: Tiny, here: Path) -> None:
    """DVC would remove them."""
    shutil.copy(ROOT / "dvc.yaml", here)
    for name in ("export", "reports/evaluation/new", "data/../models"):
        with pytest.raises(DataError, match=rf"{name} lies in .*, which a stage writes; give another folder"):
            score.score(Model(model), tiny.images, tiny.images, Path(name), 7, ALONE)


def test_mistakes_are_named(model: Path, tiny: Tiny, here: Path) -> None:
    (here / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        scored(model, here / "empty")
    with pytest.raises(DataError, match="nowhere is not a folder"):
        scored(model, here / "nowhere")
    with pytest.raises(ModelError, match="labels"):
        (here / "labels").write_text("no model")
        scored(here / "labels", tiny.images)


def test_an_image_that_was_changed_meanwhile_is_asked_again(model: Path, tiny: Tiny, here: Path) -> None:
    """Neither a gap nor another image's answer is kept under its digest."""
    shutil.copytree(tiny.images / "red", here / "new")
    rows = scoring.describe(here / "new", ALONE)
    shutil.copy(tiny.images / "blue/000.png", here / "new/003.png")
    table = scoring.score(model, here / "new", rows, 7, ALONE)
    assert table.loc[3, "error"] == scoring.MOVED
    assert list(table["predicted"].isna()) == [place == 3 for place in range(20)]
    shutil.copy(tiny.images / "red/003.png", here / "new/003.png")
    assert (scoring.score(model, here / "new", rows, 7, ALONE)["predicted"] == "red").all()
