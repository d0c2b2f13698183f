"""Drift is said where there is some, and not where few pictures happen to look like it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks import drift as command
from tasks.core import cli, drift
from tasks.core.errors import DataError
from tasks.core.manifest import MEASURES
from tasks.core.params import DriftLimits
from tasks.core.paths import MANIFEST
from tasks.core.scoring import REFERENCE, TABLE
from tests.structure import ROOT

LIMITS = DriftLimits(psi=0.2, ks=0.2, js=0.2, significance=0.001)


def table(n: int, seed: int, darker: float = 0.0) -> pd.DataFrame:
    """A table of scored pictures: measures, two classes, and what the model says."""
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


def test_distances_reach_from_nothing_to_all() -> None:
    old = np.linspace(0, 1, 200)
    (_, same), (_, other) = drift.measured("x", old, old, LIMITS), drift.measured("x", old, old + 2, LIMITS)
    assert (same.value, same.drifted, other.value, other.drifted) == (0, False, 1, True)
    a, b = pd.Series(["a"] * 100), pd.Series(["b"] * 100)
    assert drift.mixed(a, a, LIMITS).value == 0
    apart = drift.mixed(a, b, LIMITS)
    assert (apart.value, apart.drifted, apart.bins) == (1, True, ("a", "b"))
    assert (apart.old, apart.new) == ((1.0, 0.0), (0.0, 1.0))


def test_few_pictures_of_the_same_kind_are_no_drift() -> None:
    """Their indices are above the limit by chance alone, which the test knows."""
    old = table(1000, seed=0)
    samples = [drift.checks(old, old, table(40, seed), LIMITS) for seed in range(1, 101)]
    above = sum(check.value > check.limit for checks in samples for check in checks)
    assert above > 100, "else this test protects nothing"
    # 100 samples of 13 checks at 0.001 would be 1.3 false alarms, were all checks above their limits.
    assert sum(any(check.drifted for check in checks) for checks in samples) <= 3


def test_darker_pictures_are_drift_of_what_is_darker() -> None:
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
    """As the saturation of grey pictures when the first coloured ones come."""
    old, new = table(500, seed=0), table(100, seed=1)
    old["saturation"], new["saturation"] = 0.0, 0.0
    assert drifted(old, new) == set()
    new["saturation"] = 0.3
    assert drifted(old, new) == {"saturation"}


@pytest.fixture
def monitored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the tables that the command reads, of pictures that are as they were."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text("utf-8"), "utf-8")
    folder = Path("reports/monitor")
    for path in (MANIFEST, folder / TABLE):
        path.parent.mkdir(parents=True)
    table(500, seed=0).to_parquet(MANIFEST)
    table(300, seed=1).to_parquet(folder / REFERENCE)
    table(200, seed=2).to_parquet(folder / TABLE)
    return folder


def test_a_page_shows_the_checks_and_the_least_certain_answers(monitored: Path) -> None:
    new = table(200, seed=2, darker=0.3)
    new.loc[7, "path"], new.loc[7, "confidence"], new.loc[7, "predicted"] = "<b>&.png", 0.4, "<class>"
    new.loc[8, "predicted"] = None
    new.to_parquet(monitored / TABLE)
    result = command.compare(monitored, LIMITS)
    assert (result["drifted"], result["pictures"], result["unreadable"]) == (True, 200, 1)
    page = (monitored / command.PAGE).read_text("utf-8")
    assert "The pictures have drifted" in page
    assert "&lt;b&gt;&amp;.png" in page
    assert "<class>" not in page
    assert page.count("<svg") == len(MEASURES) + 2


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
    assert ("no drift (200 pictures)" in said.out) == (code == 0)
    assert ("drift: drift of brightness" in said.err) == (code == 1)


@pytest.mark.parametrize("name", [TABLE, REFERENCE])
def test_a_missing_table_is_named(monitored: Path, name: str) -> None:
    (monitored / name).unlink()
    with pytest.raises(DataError, match=name):
        command.compare(monitored, LIMITS)


@pytest.mark.parametrize("name", [TABLE, REFERENCE])
def test_pictures_that_can_not_be_read_are_nothing_to_compare(monitored: Path, name: str) -> None:
    table(5, seed=1).assign(predicted=None).to_parquet(monitored / name)
    with pytest.raises(DataError, match="no picture that could be read"):
        command.compare(monitored, LIMITS)
