"""Drift is said where there is some, and not where few images happen to look like it."""

import html
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from tasks import drift as command
from tasks.core.base import cli
from tasks.core.base.errors import DataError
from tasks.core.base.files import read_json
from tasks.core.base.paths import MANIFEST
from tasks.core.data.manifest import MEASURES
from tasks.core.inference import drift, scoring
from tasks.core.inference.config import DriftLimits
from tasks.core.inference.scoring import REFERENCE, TABLE
from tests.structure import ROOT

LIMITS = DriftLimits(psi=0.2, ks=0.2, js=0.2, significance=0.001)


def table(n: int, seed: int, darker: float = 0.0) -> pd.DataFrame:
    """A table of scored images: measures, two classes, and what the model says."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.normal(0.5, 0.1, n) - darker for name in MEASURES})
    sure = rng.uniform(0.5, 1, n)
    first = rng.random(n) < 0.5
    frame["p_a"], frame["p_b"] = np.where(first, sure, 1 - sure), np.where(first, 1 - sure, sure)
    frame["predicted"] = np.where(first, "a", "b")
    frame["confidence"] = sure
    frame["path"], frame["error"] = [f"{place}.png" for place in range(n)], None
    return frame


def drifted(old: pd.DataFrame, new: pd.DataFrame) -> set[str]:
    return {check.name for check in drift.checks(old, old, new, LIMITS) if check.drifted}


def test_the_stability_index_is_the_one_of_the_books() -> None:
    counts = np.array([[5000, 5000], [2500, 7500]])
    by_hand = (0.25 - 0.5) * math.log(0.25 / 0.5) + (0.75 - 0.5) * math.log(0.75 / 0.5)
    assert drift.stability(counts) == pytest.approx(by_hand, abs=1e-3)
    assert drift.stability(np.array([[7, 7], [7, 7]])) == 0
    assert math.isfinite(drift.stability(np.array([[100, 0], [0, 100]]))), "an empty bin is no end"


def test_a_bin_of_one_image_counts_in_the_test_of_independence() -> None:
    """G = 2 sum(n ln(n / expected)), Sokal and Rohlf, Biometry."""
    expected = np.array([[2.5, 3.0, 0.5], [2.5, 3.0, 0.5]])
    counts = np.array([[3, 2, 1], [2, 4, 0]])
    g = 2 * sum(n * math.log(n / e) for n, e in zip(counts.flat, expected.flat, strict=True) if n)
    assert drift.independence(counts) == pytest.approx(chi2.sf(g, df=2), rel=1e-9)
    assert drift.independence(np.insert(counts, 1, 0, axis=1)) == pytest.approx(chi2.sf(g, df=2), rel=1e-9)


def test_distances_reach_from_nothing_to_all() -> None:
    old = np.linspace(0, 1, 200)
    (_, same), (_, other) = (
        drift.compare_numbers("x", old, old, LIMITS),
        drift.compare_numbers("x", old, old + 2, LIMITS),
    )
    assert (same.value, same.drifted, other.value, other.drifted) == (0, False, 1, True)
    a, b = pd.Series(["a"] * 100), pd.Series(["b"] * 100)
    assert drift.compare_classes(a, a, LIMITS).value == 0
    apart = drift.compare_classes(a, b, LIMITS)
    assert (apart.value, apart.drifted, apart.bins) == (1, True, ("a", "b"))
    assert (apart.old, apart.new) == ((1.0, 0.0), (0.0, 1.0))


def test_half_an_image_in_each_bin_is_all_that_is_added_to_the_stability_index() -> None:
    counts = np.array([[9, 9], [4, 14]])  # of 19 with the halves: 9.5 and 9.5, 4.5 and 14.5
    by_hand = -5 / 19 * math.log(4.5 / 9.5) + 5 / 19 * math.log(14.5 / 9.5)
    assert drift.stability(counts) == pytest.approx(by_hand, rel=1e-12)
    old, new = np.repeat([0.0, 1.0], [9, 9]), np.repeat([0.0, 1.0], [4, 14])
    index, ks = drift.compare_numbers("x", old, new, LIMITS)
    # The edges are 0, 0.5 and 1: four bins, of which two are empty, and 20 images with the halves.
    by_hand = -5 / 20 * math.log(4.5 / 9.5) + 5 / 20 * math.log(14.5 / 9.5)
    assert index.value == pytest.approx(by_hand, abs=1e-6)
    assert ks.value == pytest.approx(9 / 18 - 4 / 18, abs=1e-6)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_class_that_only_one_side_has_counts_as_none_on_the_other(swapped: bool) -> None:
    one, other = pd.Series(["a"] * 100), pd.Series(["a"] * 50 + ["c"] * 50)
    check = drift.compare_classes(*((other, one) if swapped else (one, other)), LIMITS)
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))  # of the mean; the sides have 0 and 1 bit
    assert check.value == pytest.approx(math.sqrt(entropy - 0.5), abs=1e-6)
    assert (check.bins, check.drifted) == (("a", "c"), True)
    assert (check.new if swapped else check.old) == (1.0, 0.0)


def test_few_images_of_the_same_kind_are_no_drift() -> None:
    """Their indices are above the limit by chance alone, which the test knows."""
    old = table(1000, seed=0)
    samples = [drift.checks(old, old, table(40, seed), LIMITS) for seed in range(1, 201)]
    above = sum(check.value > check.limit for checks in samples for check in checks)
    assert above > 200, "else this test protects nothing"
    # 200 samples of 13 checks at 0.001 make 2.6 false alarms on average at most; by Poisson more than 8 come
    # of one choice of seeds in 600, if the p-values are right.
    assert sum(any(check.drifted for check in checks) for checks in samples) <= 8
    assert drifted(old, table(400, seed=1, darker=0.1)) == set(MEASURES), "but a real change is told"


def test_darker_images_are_drift_of_what_is_darker() -> None:
    old, new = table(1000, seed=0), table(100, seed=1)
    assert drifted(old, new) == set()
    new["brightness"] -= 0.1
    assert drifted(old, new) == {"brightness"}


def test_a_model_that_is_less_sure_and_another_mix_of_classes_are_drift() -> None:
    old, new = table(1000, seed=0), table(200, seed=1)
    unsure = new.assign(confidence=0.5 + (new["confidence"] - 0.5) / 3)
    assert drifted(old, unsure) == {drift.CONFIDENCE}
    assert drifted(old, new.assign(predicted="a")) == {drift.CLASSES}


def test_a_measure_that_never_varied_and_now_does_is_seen() -> None:
    """As the saturation of grey images when the first coloured ones come."""
    old, new = table(500, seed=0), table(100, seed=1)
    old["saturation"], new["saturation"] = 0.0, 0.0
    assert drifted(old, new) == set()
    new["saturation"] = 0.3
    assert drifted(old, new) == {"saturation"}


@pytest.mark.parametrize("now", [0.4, 0.6])
def test_a_constant_measure_has_bins_of_its_own_and_is_seen_to_move_either_way(now: float) -> None:
    old, new = np.full(500, 0.5), np.full(100, now)
    checks = drift.compare_numbers("x", old, new, LIMITS)
    assert all(check.bins == ("up to 0.5", "above 0.5") for check in checks), "nine equal edges are one"
    assert any(check.drifted for check in checks)
    assert not any(check.drifted for check in drift.compare_numbers("x", old, old[:100], LIMITS))


@pytest.fixture
def monitored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the tables that the command reads, of images that are as they were."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text("utf-8"), "utf-8")
    folder = Path("reports/monitor")
    for path in (MANIFEST, folder / TABLE):
        path.parent.mkdir(parents=True)
    table(500, seed=0).to_parquet(MANIFEST)
    table(300, seed=1).to_parquet(folder / REFERENCE)
    table(200, seed=2).to_parquet(folder / TABLE)
    return folder


def test_a_page_says_of_which_images_it_is_and_names_those_that_can_not_be_read(monitored: Path) -> None:
    new = table(200, seed=2).assign(sha256="0")
    new.loc[8, ["predicted", "error", "confidence"]] = [None, "is <empty>", np.nan]
    scoring.write(
        monitored / TABLE, new, folder="new/of-may", model="export/m.onnx", scored="2026-05-01T10:20"
    )
    result = command.compare(monitored, LIMITS)
    assert (result["folder"], result["model"]) == ("new/of-may", "export/m.onnx")
    page = (monitored / command.PAGE).read_text("utf-8")
    assert "200 images of new/of-may, 1 of them" in page
    assert "2026-05-01 at 10:20" in page
    assert '<td class="path">8.png</td><td class="words">is &lt;empty&gt;</td>' in page
    assert command.summary(result) == "no drift (200 images, 1 of them unreadable)"


@pytest.mark.parametrize("name", ["", REFERENCE])
def test_what_can_not_be_compared_leaves_no_earlier_verdict(monitored: Path, name: str) -> None:
    command.compare(monitored, LIMITS)
    if name:
        (monitored / name).unlink()
    else:
        table(5, seed=1).assign(predicted=None, error="is not an image").to_parquet(monitored / TABLE)
    with pytest.raises(DataError):
        command.compare(monitored, LIMITS)
    assert not (monitored / command.PAGE).exists()
    assert not (monitored / command.RESULT).exists()


def test_a_folder_that_is_not_of_scores_loses_nothing(tmp_path: Path) -> None:
    """Of a gallery, which somebody meant to monitor, the page was deleted first."""
    files = [tmp_path / command.RESULT, tmp_path / command.PAGE / "mine.html"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    with pytest.raises(DataError, match=f"^{tmp_path / TABLE} is not there"):
        command.compare(tmp_path, LIMITS)
    assert all(file.exists() for file in files)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"text"])
def test_a_damaged_table_is_named(monitored: Path, damage: Callable[[bytes], bytes]) -> None:
    path = monitored / TABLE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"^{path} can't be read as Parquet"):
        command.compare(monitored, LIMITS)


def test_another_table_is_named_with_what_it_lacks(monitored: Path) -> None:
    table(200, seed=2).drop(columns="confidence").to_parquet(monitored / TABLE)
    with pytest.raises(
        DataError, match=r"has no column confidence, so .* give a folder that `python -m tasks.score`"
    ):
        command.compare(monitored, LIMITS)


def test_what_has_changed_most_is_named_first() -> None:
    check = drift.compare_classes(pd.Series([*"aab"]), pd.Series([*"abb", "c"]), LIMITS)
    assert [name for name, _, _ in check.moved] == ["a", "c", "b"]


def test_a_page_shows_the_checks_and_the_least_certain_answers(monitored: Path) -> None:
    new = table(200, seed=2, darker=0.3)
    new.loc[7, "path"], new.loc[7, "confidence"], new.loc[7, "predicted"] = "<b>&.png", 0.4, "<class>"
    new.loc[8, "predicted"] = None
    new.to_parquet(monitored / TABLE)
    result = command.compare(monitored, LIMITS)
    assert (result["drifted"], result["pictures"], result["unreadable"]) == (True, 200, 1)
    page = (monitored / command.PAGE).read_text("utf-8")
    assert "The images have drifted" in page
    assert "&lt;b&gt;&amp;.png" in page
    assert "<class>" not in page
    assert page.count("<svg") == len(MEASURES) + 2
    shown = [html.unescape(name) for name in re.findall(r"<td class=\"path\">([^<]*\.png)</td><td>", page)]
    sure = new.drop(index=8).sort_values("confidence")
    assert shown == list(sure["path"][: command.MAX_LEAST_CONFIDENT]), (
        "the least certain first, none without an answer"
    )


def test_a_file_for_programs_has_every_check(monitored: Path) -> None:
    result = command.compare(monitored, LIMITS)
    assert read_json(monitored / command.RESULT) == json.loads(json.dumps(result))
    twice = [(name, kind) for name in (*MEASURES, drift.CONFIDENCE) for kind in ("PSI", "KS")]
    found = [(check["name"], check["statistic"]) for check in result["checks"]]
    assert found == [*twice, (drift.CLASSES, "JS distance")]
    for check in result["checks"]:
        assert f"{check['value']:.3f}" in check["why"]
        assert sum(check["old"]) == pytest.approx(1) == sum(check["new"])


@pytest.mark.parametrize(("darker", "code"), [(0.0, 0), (0.3, 1)])
def test_the_exit_code_tells_of_drift(
    monitored: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    darker: float,
    code: int,
) -> None:
    table(200, seed=2, darker=darker).to_parquet(monitored / TABLE)
    monkeypatch.setattr("sys.argv", ["tasks/drift.py"])
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the tests' own handlers stay
    with pytest.raises(SystemExit) as ended:
        cli.command(command.main)
    assert ended.value.code == code
    said = capsys.readouterr()
    assert ("no drift (200 images)" in said.out) == (code == 0)
    assert ("drift: drift of brightness" in said.err) == (code == 1)


def place(folder: Path, name: str) -> Path:
    return MANIFEST if name == MANIFEST.name else folder / name


@pytest.mark.parametrize("name", [TABLE, REFERENCE, MANIFEST.name])
def test_a_missing_table_is_named(monitored: Path, name: str) -> None:
    path = place(monitored, name)
    path.unlink()
    with pytest.raises(DataError, match=f"^{path} is not there"):
        command.compare(monitored, LIMITS)


@pytest.mark.usefixtures("monitored")
def test_a_remedy_writes_to_the_folder_that_was_asked_about() -> None:
    with pytest.raises(DataError, match=r"tasks\.score MODEL FOLDER --output nowhere`$"):
        command.compare(Path("nowhere"), LIMITS)


@pytest.mark.parametrize("rows", [0, 5])
@pytest.mark.parametrize("name", [TABLE, REFERENCE, MANIFEST.name])
def test_images_that_can_not_be_read_are_nothing_to_compare(monitored: Path, name: str, rows: int) -> None:
    """Of the reference, as when no image of the last evaluation is in the manifest any more."""
    path = place(monitored, name)
    table(rows, seed=1).assign(predicted=None, error="is not an image").to_parquet(path)
    said = "too few to compare with" if rows and name == REFERENCE else f"^{path} names no image that could"
    with pytest.raises(DataError, match=said):
        command.compare(monitored, LIMITS)


def test_a_test_image_without_an_answer_is_left_out(monitored: Path) -> None:
    known = table(300, seed=1)
    without = command.compare(monitored, LIMITS)["checks"]
    lost = table(3, seed=9).assign(predicted=None, confidence=np.nan, p_a=np.nan, p_b=np.nan)
    pd.concat([known, lost.astype(known.dtypes)]).to_parquet(monitored / REFERENCE)
    result = command.compare(monitored, LIMITS)
    assert result["checks"] == without
    assert command.summary(result) == "no drift (200 images; compared with 300 of 303 test images)"
    pd.concat([known[:100], *[lost.astype(known.dtypes)] * 34]).to_parquet(monitored / REFERENCE)
    with pytest.raises(DataError, match=r"^their folder has 100 of the 202 test images of the model as they"):
        command.compare(monitored, LIMITS)
