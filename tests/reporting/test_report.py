"""The page shows what it says it shows, holds each image once, and needs nothing but itself."""

import base64
import dataclasses
import html
import re
import shutil
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tasks import build, report, validate
from tasks.check import Params
from tasks.core.base import params, paths
from tasks.core.base.errors import DataError
from tasks.core.base.files import read_json, sha256, write_json
from tasks.core.data import splits
from tasks.core.data.manifest import MEASURES, readable
from tasks.core.data.parquet import read_parquet
from tasks.core.evaluation import calibration, estimates, metrics
from tasks.core.reporting import charts, thumbnails
from tasks.core.validation.schema import Schema
from tests.browser import in_a_browser
from tests.images import ALONE
from tests.structure import ROOT

P = params.read(ROOT / "params.yaml", Params)
FOLDER = Path("pictures")
ODD = 'say "no" & <b>'  # a class name that HTML could trip over


QUARTILE = {"n": 40, "accuracy": 0.9, "interval_95": [0.77, 0.96], "judged": True, "range": [0.1, 0.3]}
MEASURED = {
    "slices": {
        "brightness": {"q1": QUARTILE, "q4": QUARTILE | {"accuracy": 0.7}},
        "camera": {"odd": QUARTILE | {"n": 3, "accuracy": 0.0, "judged": False}},
    },
    "calibration": {
        "temperature": 0.7,
        "before": {"log_loss": 0.4, "ece": 0.2},
        "after": {"log_loss": 0.3, "ece": 0.1},
    },
    "baselines": {"majority": {"accuracy": 0.3}, "colours": {"accuracy": 0.5}},
    "robustness": {
        "n": 20,
        "unharmed": 0.95,
        "accuracy": 0.8,
        "interval_95": {"accuracy": [0.7, 0.9]},
        "corruptions": {"blur": {"1": 0.9, "2": 0.7, "3": 0.4}, "jpeg": {"1": 0.9, "2": 0.9, "3": 0.9}},
    },
}


def write_images(classes: list[str], count: int) -> None:
    """Writes soft blots of colour as JPEG."""
    rng = np.random.default_rng(2)
    for label in classes:
        (FOLDER / label).mkdir(parents=True)
        for number in range(count):
            blots = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
            blots.resize((160, 120), Image.Resampling.BICUBIC).save(FOLDER / label / f"{number:02d}.jpg")


def run_stages_before() -> None:
    """Runs the stages before, but trains no model: its predictions are right, but for one image."""
    Path("labels.csv").write_text("path,label\n")
    p = dataclasses.replace(P.validate, max_unreadable=1, min_per_class=3)
    validate.validate(FOLDER, Path("labels.csv"), Schema(), None, p, ALONE)
    built = build.build(FOLDER, paths.MANIFEST, paths.DATASET, P.build, "efficientnet_lite0", 64, ALONE, {})
    names = built["class_names"]
    images = readable(read_parquet(paths.MANIFEST))
    test = images[splits.read(paths.DATASET, images["path"]) == "test"].reset_index(drop=True)
    labels = test["label"].map(names.index).to_numpy()
    taken_for = labels.copy()
    taken_for[0] = (labels[0] + 1) % len(names)
    probabilities = 0.1 / len(names) + 0.9 * np.eye(len(names))[taken_for]
    predictions = test[["path", "label"]].assign(predicted=[names[place] for place in taken_for])
    columns = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in names])
    pd.concat([predictions, columns], axis=1).to_parquet(paths.PREDICTIONS)
    answers = metrics.Answers.of(labels, probabilities)
    headline = estimates.headline(answers, 15, 100, 1)
    measured = {"test": headline, "per_class": metrics.per_class(answers, tuple(names))} | MEASURED
    curves = pd.DataFrame(calibration.reliability(answers.confidence, answers.right, 15))
    paths.EVALUATION.mkdir(parents=True)
    curves.assign(when="before").to_csv(paths.EVALUATION / "reliability.csv", index=False)
    write_json(paths.METRICS, measured)
    passed = {"name": "test.accuracy", "value": 0.95, "threshold": 0.9, "passed": True, "verdict": "pass"}
    gates = [passed | {"interval_95": None, "why": "test.accuracy is 0.95, which is at least 0.9"}]
    write_json(paths.GATES, {"passed": True, "gates": gates})
    doubt = {"self_confidence": 0.0333, "split": "test", "suggested": names[taken_for[0]]}
    write_json(paths.LABEL_ERRORS, [predictions.loc[0, ["path", "label"]].to_dict() | doubt])
    write_json(paths.EXPORT / "artifacts.json", {"artifacts": {}})
    best = {"phase": "head", "epoch": 1}
    facts = {"backbone": "b", "backbone_sha256": "s", "best_epoch": best, "dataset": "d", "versions": {}}
    facts["auto"] = AUTO
    write_json(paths.MODELS / "classifier.json", facts)
    curve = {
        "phase": ["head", "fine_tune"],
        "epoch": [1, 1],
        "loss": [1, 0],
        "val_loss": [1, 0],
        "accuracy": [0, 1],
    }
    pd.DataFrame(curve | {"val_accuracy": [0, 1]}).to_csv(paths.MODELS / "history.csv")


def rendered(**changes: Any) -> str:
    return report.page(FOLDER, dataclasses.replace(P.report, **changes), 30, {})


def shown(text: str) -> list[str]:
    """Paths of the images in a part of the page, in order."""
    return [html.unescape(path) for path in re.findall(r'role="img" aria-label="([^"]+)" title', text)]


def part(text: str, name: str) -> str:
    """The page from the heading of that id on, up to the next of its kind."""
    return text.split(f'<h2 id="{name}">')[1].split("<h2", maxsplit=1)[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the stages before have run, over images with planted copies and a broken file."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_images(["cat", "dog", ODD], 15)
        shutil.copy(FOLDER / "cat/00.jpg", FOLDER / "cat/copy.jpg")
        Image.open(FOLDER / "dog/01.jpg").save(FOLDER / "dog/resaved.jpg", quality=70)
        (FOLDER / "dog/broken.jpg").write_bytes((FOLDER / "dog/00.jpg").read_bytes()[:900])
        run_stages_before()
    return folder


@pytest.fixture(autouse=True)
def there(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)


def test_the_page_is_one_file_without_network_or_script() -> None:
    text = rendered()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert not re.findall(r"url\((?!data:)", text)
    assert "<script" not in text


def test_the_page_comes_out_the_same_each_time() -> None:
    assert rendered() == rendered()


def test_each_image_is_held_once_however_often_it_is_shown() -> None:
    text = rendered()
    paths_shown = shown(text)
    assert len(paths_shown) > len(set(paths_shown)), "some stand in several sheets"
    assert text.count("data:image/webp") == len(set(paths_shown) - {"dog/broken.jpg"})


def test_augmented_images_are_shown_if_there_are_any() -> None:
    assert 'id="augmented"' not in rendered()
    file = paths.TRAINING / paths.AUGMENTED
    file.parent.mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(file)
    shown_then = part(rendered(), "augmented")
    shutil.rmtree(paths.TRAINING)
    (data,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', shown_then)
    assert Image.open(BytesIO(base64.b64decode(data))).size == (40, 30)


def test_copies_are_shown_together() -> None:
    together = re.findall(r'<div class="sheet together">(.*?)</div>', rendered(), re.DOTALL)
    assert sorted(shown(group) for group in map(str, together)) == [
        ["cat/00.jpg", "cat/copy.jpg"],
        ["dog/01.jpg", "dog/resaved.jpg"],
    ]


def test_every_class_has_a_sheet_that_tells_how_many_there_are() -> None:
    sheets_shown = part(rendered(thumbnails=4), "pictures").split("<h3>")[1:]
    totals = [html.unescape(re.sub("<[^>]+>", "", sheet.split("</h3>")[0])) for sheet in sheets_shown]
    assert totals == [
        "cat 16 images, 4 shown",
        "dog 16 images, 4 shown",
        f"{ODD} 15 images, 4 shown",
    ]
    assert [len(shown(sheet)) for sheet in sheets_shown] == [4, 4, 4]


def test_no_thumbnails_are_shown_if_none_are_asked_for() -> None:
    text = rendered(thumbnails=0, mistakes=0)
    assert not shown(text)
    assert "data:image/webp" not in text
    assert "Duplicate" in part(text, "findings"), "its failing twin: what was found is still told"


def test_an_unreadable_image_has_a_name_and_no_thumbnail() -> None:
    (placeholder,) = re.findall(r'<span class="thumb unread"[^>]+>', rendered())
    assert 'title="dog/broken.jpg"' in placeholder


def test_a_likely_label_error_is_shown_with_both_classes() -> None:
    (doubt,) = read_json(paths.LABEL_ERRORS)
    section = part(rendered(), "labels")
    assert shown(section) == [doubt["path"]]
    text = html.unescape(section)
    assert all(word in text for word in (doubt["label"], doubt["suggested"], "3.3", "test", "1 of the"))


def test_a_class_without_test_images_is_told_and_has_no_recall_of_0() -> None:
    measured = read_json(paths.METRICS)
    assert "not defined" not in rendered() and "Without a test image" not in rendered(), "its failing twin"
    name = next(iter(measured["per_class"]))
    row = {"precision": None, "recall": None, "f1": None, "n": 0, "why": metrics.WITHOUT}
    write_json(paths.METRICS, measured | {"per_class": measured["per_class"] | {name: row}})
    try:
        assert part(rendered(), "classes").count(f'<span title="{metrics.WITHOUT}">not defined</span>') == 3
        assert f"these numbers say nothing of it: {name}.</li>" in part(rendered(), "card")
    finally:
        write_json(paths.METRICS, measured)


def test_what_holds_for_most_images_is_told_and_is_no_finding() -> None:
    before = read_json(paths.VALIDATION)
    assert "no finding" not in rendered(), "its failing twin: nothing is said where there is no such kind"
    try:
        write_json(paths.VALIDATION, before | {"prevalent": {"low_information": 0.86}})
        assert re.search(r"Low information: 86\.0\s%", html.unescape(part(rendered(), "data")))
    finally:
        write_json(paths.VALIDATION, before)


AUTO = {"model.image_size": "128 pixels: as <probes> say"}
NUMBERS = {"loss": 0.4, "accuracy": 0.95, "val_loss": 0.5, "val_accuracy": 0.9}
HEAD_AND_TWO_EPOCHS = [
    {"phase": phase, "epoch": epoch} | NUMBERS
    for phase, epoch in (("head", 1), ("fine_tune", 1), ("fine_tune", 2))
]


def test_a_head_that_was_kept_is_told_beside_the_curves_of_fine_tuning() -> None:
    history = pd.DataFrame(HEAD_AND_TWO_EPOCHS)
    kept = {"phase": "fine_tune", "epoch": 2} | NUMBERS
    assert report.best_epoch(history, kept).endswith("epoch 2, of the lowest validation loss among them.")
    assert "above the head's by less than" in report.best_epoch(
        history, kept | {"val_loss": 0.6, "val_loss_error": 0.3}
    )
    assert "above" not in report.best_epoch(history, kept | {"val_loss": 0.6}), "of features in a cache"
    assert "Kept: the head, as what" in report.best_epoch(history, {"phase": "head", "epoch": 1})
    found = report.curves(history)
    assert [(curve.first, curve.epochs) for curve in found] == [("head", 2)] * 2


def test_a_training_that_diverged_is_told_and_has_no_curve_of_what_is_no_number() -> None:
    rows = [*HEAD_AND_TWO_EPOCHS, {"phase": "fine_tune", "epoch": 3, "loss": np.nan, "val_loss": np.nan}]
    history = pd.DataFrame(rows)
    assert "as the loss of these became no number" in report.best_epoch(history, {"phase": "head"})
    assert [curve.epochs for curve in report.curves(history)] == [2, 2]
    assert report.curves(history.iloc[[0, 3]]) == []


def test_a_head_that_is_all_has_a_sentence_and_no_curve() -> None:
    history = pd.DataFrame(HEAD_AND_TWO_EPOCHS[:1])
    assert report.curves(history) == []
    assert "validation loss 0.5000, accuracy 0.9000" in report.best_epoch(history, HEAD_AND_TWO_EPOCHS[0])


def test_what_is_nearly_all_is_not_called_all() -> None:
    before = read_json(paths.METRICS)
    test = deepcopy(before["test"]) | {"accuracy": 0.9972, "macro_f1": 1.0}
    test["interval_95"] |= {"accuracy": [0.9844, 0.99951], "macro_f1": [1.0, 1.0]}
    try:
        write_json(paths.METRICS, before | {"test": test})
        text = html.unescape(rendered()).replace("\u202f", " ")
        test["interval_95"] |= {"accuracy": [0.9844, 0.99999]}
        write_json(paths.METRICS, before | {"test": test})
        higher = html.unescape(rendered()).replace("\u202f", " ")
    finally:
        write_json(paths.METRICS, before)
    assert "95 %: 98.4 % to 99.95 %" in text
    assert "95 %: 98.4 % to 99.99 %" in higher
    assert "no interval: all resamples agree" in text
    assert "Top-5" not in text, "there are three classes"


def test_measures_are_drawn_for_every_split_and_class() -> None:
    rows = re.findall(r"<tr><td>([^<]+)</td>\n?<td><svg", part(rendered(), "measures"))
    assert [html.unescape(row) for row in rows] == ["train", "validation", "test", "cat", "dog", ODD]


def test_quantiles_by_hand_on_an_axis_that_all_groups_share() -> None:
    even, double = np.linspace(0, 1, 101), np.linspace(0, 2, 101)
    frame = pd.DataFrame(dict.fromkeys(MEASURES, np.concatenate([even, double])) | {"entropy": 3.0})
    groups = pd.Series(["one"] * 101 + ["two"] * 101)
    measured = {measure.name: measure for measure in charts.measures(frame, {"Class": groups})}
    brightness, entropy = measured["brightness"], measured["entropy"]
    assert (brightness.low, brightness.high) == pytest.approx((0.05, 1.9))
    assert brightness.boxes["Class", "one"].values == pytest.approx((0.05, 0.25, 0.5, 0.75, 0.95))
    assert brightness.boxes["Class", "two"].places == pytest.approx((2.7, 24.3, 51.4, 78.4, 100), abs=0.1)
    assert set(entropy.boxes["Class", "one"].places) == {50.0}, "no spread is drawn in the middle"


def test_a_chart_reaches_from_the_lowest_value_to_the_highest() -> None:
    """Upwards, where SVG counts downwards."""
    history = pd.DataFrame({"epoch": [0, 1, 2], "loss": [3.0, 2.0, 1.0], "val_loss": [2.5, 1.5, 2.0]})
    width, height = charts.SIZE
    drawn = charts.chart("Loss", history, {"loss": "training", "val_loss": "validation"}, "head")
    one, other = (line.points.split() for line in drawn.lines)
    assert one == [f"0.0,{0.0}", f"{width / 2:.1f},{height / 2}", f"{width:.1f},{float(height)}"]
    assert [float(point.split(",")[1]) for point in other] == [height / 4, height * 3 / 4, height / 2]
    assert drawn.ticks == [(height, "1.00"), (height / 2, "2.00"), (0, "3.00")]


def test_bars_are_measured_by_the_largest_class() -> None:
    bars = charts.bars({"train": {"cat": 6, "dog": 2}, "test": {"cat": 2, "dog": 0}})
    assert bars["cat"].widths == {"train": 75, "test": 25}
    assert bars["dog"].widths == {"train": 25, "test": 0}
    assert bars["dog"].counts == {"train": 2, "test": 0}


def thumbnail(file: Path) -> Image.Image:
    rule = thumbnails.background(file.read_bytes())
    (data,) = re.findall("base64,([^)]+)", rule)
    return Image.open(BytesIO(base64.b64decode(data)))


def test_a_thumbnail_is_small_upright_and_never_enlarged(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (1200, 800)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (9, 8)).save(tmp_path / "tiny.png")
    assert thumbnail(tmp_path / "turned.jpg").size == (64, 96)
    assert thumbnail(tmp_path / "tiny.png").size == (9, 8)


def test_an_image_that_is_not_the_one_that_was_validated_is_not_shown(tmp_path: Path) -> None:
    Image.new("RGB", (9, 8)).save(tmp_path / "cat.png")
    digests = pd.Series({"cat.png": sha256(tmp_path / "cat.png"), "gone.png": "0" * 64})
    album = thumbnails.Album(tmp_path, digests)
    assert album.image("cat.png").look == "i0"
    assert album.image("broken.png").look == thumbnails.UNREAD, "which could not be read then"
    Image.new("RGB", (9, 8), "red").save(tmp_path / "cat.png")
    with pytest.raises(DataError, match=r"cat.png was changed since it was validated; run the pipeline"):
        thumbnails.Album(tmp_path, digests).image("cat.png")
    with pytest.raises(DataError, match=r"gone.png is gone since it was validated; run the pipeline"):
        album.image("gone.png")


def album_of_none(folder: Path) -> thumbnails.Album:
    return thumbnails.Album(folder, pd.Series(dtype=str))


def test_many_classes_do_not_burst_the_page(tmp_path: Path) -> None:
    """As many photographs as are shown at most take less than 5 MB."""
    rows = [(f"{label}/{n}.jpg", f"{label:04d}", f"{n:02d}") for label in range(400) for n in range(5)]
    frame = pd.DataFrame(rows, columns=["path", "label", "sha256"])
    per_class = [sheet.shown for sheet in thumbnails.of_classes(frame, album_of_none(tmp_path), 12)]
    assert 400 <= sum(per_class) <= thumbnails.MAX_CLASS_THUMBNAILS
    Image.fromarray(load_sample_image("china.jpg")).save(tmp_path / "photograph.png")
    rule = thumbnails.background((tmp_path / "photograph.png").read_bytes())
    assert len(rule) * thumbnails.MAX_CLASS_THUMBNAILS < 5e6


def test_no_set_is_cut_down_to_a_single_image(tmp_path: Path) -> None:
    found = {"severity": "warning", "paths": list("abcdef"), "sets": [list("abc"), list("de"), ["f", "g"]]}
    validation = {"findings": {"duplicate": found}, "expectations": []}
    (sheet,) = thumbnails.of_findings(validation, album_of_none(tmp_path), 4)
    assert [[image.path for image in images] for images in sheet.sets] == [list("abc")]
    assert (sheet.shown, sheet.total) == (3, 6)


def test_a_finding_names_a_few_expectations_and_tells_how_many_more(tmp_path: Path) -> None:
    """With a hundred classes out of balance the page would be nothing else."""
    asked = {
        "kind": "imbalance",
        "paths": [],
        "passed": False,
        "observed": 2,
        "expected": "9",
        "remedy": "add",
        "details": "",
    }
    outcomes = [asked | {"name": f"balance of class {n}"} for n in range(100)]
    outcomes += [asked | {"kind": "dark", "name": "another kind"}, asked | {"passed": True, "name": "met"}]
    validation = {"findings": {"imbalance": {"paths": []}}, "expectations": outcomes}
    (sheet,) = thumbnails.of_findings(validation, album_of_none(tmp_path), 4)
    assert sheet.notes[0] == "Balance of class 0: 2. Asked for: 9. To do: add."
    assert sheet.notes[-1] == "And 97 more of the kind."
    assert len(sheet.notes) == 4
    (sheet,) = thumbnails.of_findings(validation | {"expectations": outcomes[:3]}, album_of_none(tmp_path), 4)
    assert len(sheet.notes) == 3, "all are named, and none are left"


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_has_nothing_to_complain_of(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    """No message, no request beyond the page, no side scroll, and nothing serious by axe-core."""
    from axe_playwright_python.sync_playwright import Axe

    file = tmp_path / "index.html"
    file.write_text(rendered(), "utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    violations = Axe().run(page).response["violations"]
    grave = [v for v in violations if v["impact"] in ("serious", "critical")]
    assert not grave, [(v["id"], v["nodes"][0]["html"]) for v in grave]


@in_a_browser
def test_a_click_on_a_mistake_leads_to_its_images(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text(rendered(), "utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(file.as_uri())
    link = page.locator(".matrix a")
    assert link.count() == 1
    link.click()
    target = page.locator(":target")
    (doubt,) = read_json(paths.LABEL_ERRORS)
    assert target.locator(f'[title="{doubt["path"]}"]').is_visible()
    assert target.evaluate("element => element.getBoundingClientRect().top") < 900, "it is in view"


def test_what_the_images_decided_is_told() -> None:
    text = rendered()
    assert ">model.image_size</code>" in text and "128 pixels: as &lt;probes&gt; say" in text


def test_every_link_leads_to_something_on_the_page() -> None:
    text = rendered()
    targets = re.findall(r'href="#([^"]+)"', text)
    assert len(targets) > 15
    for target in targets:
        assert text.count(f'id="{target}"') == 1, target


def test_a_rejected_model_says_why_at_the_top() -> None:
    before = read_json(paths.GATES)
    why = "test.accuracy may or may not be at least 0.9"
    fault = {"passed": False, "verdict": "inconclusive", "why": why}
    try:
        write_json(paths.GATES, {"passed": False, "gates": [before["gates"][0] | fault]})
        header = rendered().split("</header>")[0]
    finally:
        write_json(paths.GATES, before)
    assert "<h1>Rejected</h1>" in header and why in header
    assert "<h1>Passed</h1>" in rendered().split("</header>")[0]


def test_the_confusion_matrix_gives_shares_of_each_true_class_and_links_mistakes() -> None:
    predictions = pd.DataFrame({"label": list("aaab"), "predicted": list("aaba")})
    rows = report.confusion(predictions, ["a", "b", "c"])
    cells = {(row["label"], cell["to"]): cell for row in rows for cell in row["cells"]}
    assert cells["a", "a"]["count"] == 2 and cells["a", "a"]["anchor"] is None
    assert cells["a", "b"]["anchor"] and cells["b", "a"]["anchor"]
    shares = {pair: cell["share"] for pair, cell in cells.items() if cell["share"]}
    assert shares == {("a", "a"): 2 / 3, ("a", "b"): 1 / 3, ("b", "a"): 1}


def test_what_changed_since_the_last_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, validation = read_json(paths.METRICS), read_json(paths.VALIDATION)
    old = now | {"test": now["test"] | {"accuracy": 0.5}}
    write_json(tmp_path / "metrics.json", old)
    write_json(tmp_path / "validation.json", validation | {"pictures": validation["pictures"] - 3})
    files = {paths.METRICS: tmp_path / "metrics.json", paths.VALIDATION: tmp_path / "validation.json"}
    rules = [{"metric": "n", "min": 1}]
    values = {"train": {"epochs": 6, "augment": {"zoom": 0.1}}, "gate": {"rules": rules}}
    monkeypatch.setattr(report, "last_inputs", lambda *_: (files, values))
    found = report.changes(now, validation, {"train.epochs": "8", "train.augment.zoom": "0.1"}) or []
    assert {(change.name, change.before, change.difference) for change in found} == {
        ("pictures", str(validation["pictures"] - 3), "+3"),
        ("test.accuracy", "0.5000", f"{now['test']['accuracy'] - 0.5:+.4f}"),
        ("train.epochs", "6", ""),
        ("gate.rules.0", "metric: n, min: 1", ""),
    }
    renamed = {"gate": {"artifacts": rules}}
    monkeypatch.setattr(report, "last_inputs", lambda *_: ({}, renamed))
    assert report.changes(now, validation, {"export.rules.0": "metric: n, min: 1"}) == [], (
        "a new name is no change"
    )
    monkeypatch.setattr(report, "last_inputs", lambda *_: ({}, {}))
    assert report.changes(now, validation, {}) is None


def test_an_artifact_that_could_not_be_run_has_its_row() -> None:
    file = paths.EXPORT / "artifacts.json"
    before = read_json(file)
    fault = {
        "file": "model.onnx",
        "bytes": 9,
        "error": "can't be run",
        "passed": False,
        "why": "can't be run",
    }
    try:
        proved_on = {"test_images": 5005, "of": 40000}
        write_json(file, {"proved_on": proved_on, "artifacts": {"onnx": fault}})
        assert "can&#39;t be run" in part(rendered(), "artifacts")
        assert "run over 5,005 of 40,000 test images" in part(rendered(), "artifacts")
    finally:
        write_json(file, before)


def test_a_slice_that_is_too_small_is_shown_and_never_the_weakest() -> None:
    text = rendered()
    assert "camera = odd" in part(text, "slices")
    assert "on an axis from 70" in part(text, "slices"), "the tenth below the least end of an interval"
    assert "brightness is q4" in part(text, "card") and "camera is odd" not in part(text, "card")


def test_curves_of_reliability_go_up_with_accuracy_and_come_before_what_they_became() -> None:
    rows = {"n": [10, 40, 50], "confidence": [0.5, 1.0, 0.9], "accuracy": [0.4, 1.0, 0.8]}
    found = charts.reliability(pd.DataFrame(rows).assign(when=["before", "before", "after"]))
    assert list(found) == ["before", "after"]
    (small, large), ((x, y, radius, _),) = found["before"], found["after"]
    assert (x, y) == pytest.approx((0.9 * charts.SQUARE, 0.2 * charts.SQUARE), abs=0.1)
    assert large[:2] == (charts.SQUARE, 0)
    assert (radius / small[2]) ** 2 == pytest.approx(5, rel=0.05), "areas are numbers of images"


def test_curves_of_robustness_share_one_axis() -> None:
    robustness: Any = MEASURED["robustness"]
    blur, jpeg = charts.robustness_curves(robustness)
    width, height = charts.CURVE_SIZE
    assert blur.values == [0.95, 0.9, 0.7, 0.4]
    assert [place for place, _ in blur.points] == pytest.approx([0, width / 3, width * 2 / 3, width], abs=0.1)
    assert blur.points[-1][1] == height, "the worst of all is at the foot"
    assert jpeg.points[-1][1] == pytest.approx(height * 0.1 / 0.6, abs=0.1)
    unharmed = charts.robustness_curves({"unharmed": 1.0, "corruptions": {"blur": {"1": 1.0}}})[0]
    assert [high for _, high in unharmed.points] == [0, 0]
