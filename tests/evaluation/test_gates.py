"""A gate says no by name, value and threshold, a no ends the run, and what can't be told is told."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks import verdict
from tasks.check import Params
from tasks.core.base import params
from tasks.core.base.errors import DarkroomError, ParamError, Rejected
from tasks.core.evaluation import gates, predictions
from tasks.core.evaluation.config import Evaluate, Rule
from tasks.core.evaluation.rejection import left_out
from tasks.core.release import champion
from tests.structure import ROOT

NAMES = ("cat", "dog", "owl")
N = 300
SETTINGS = Evaluate(64, calibration_bins=15, bootstrap=500, seed=1, min_slice=30, robustness=0)
GOOD = {"onnx": {"passed": True, "why": "fine"}}
ACCURACY = "test.accuracy"


def table(wrong: range | list[int], n: int = N, sure: float = 0.9) -> pd.DataFrame:
    """Predictions that are right but for those places; the first 100 images are night, the next day."""
    labels = np.arange(n) % 3
    taken_for = labels.copy()
    taken_for[list(wrong)] = (labels[list(wrong)] + 1) % 3
    rest = (1 - sure) / 2
    frame = predictions.of(
        [f"{i}.png" for i in range(n)], labels, rest + (sure - rest) * np.eye(3)[taken_for], NAMES
    )
    frame.insert(1, "sha256", [f"{i:064x}" for i in range(n)])
    light = np.where(np.arange(n) < 100, "night", "day")
    return frame.assign(
        slice_light=light, slice_rare=np.where(np.arange(n) < 5, "yes", "no"), baseline_majority="cat"
    )


def evaluator(ours: pd.DataFrame, theirs: pd.DataFrame | None = None) -> gates.GateEvaluator:
    cells = {
        kind: {
            cell: {"n": len(part), "judged": len(part) >= 30} for cell, part in ours.groupby(f"slice_{kind}")
        }
        for kind in (name.removeprefix("slice_") for name in map(str, ours) if name.startswith("slice_"))
    }
    share = float((ours["label"] == ours["predicted"]).mean())
    measured = {
        "test": {"accuracy": share, "n": len(ours)},
        "per_class": {
            "cat": {"recall": 0.5},
            "dog": {"recall": None, "why": "no test image is of this class"},
        },
        "slices": cells,
    }
    return gates.GateEvaluator(measured, ours, theirs, SETTINGS)


def result(
    ours: pd.DataFrame, *rules: Rule, theirs: pd.DataFrame | None = None, on: Any = "fail"
) -> dict[str, Any]:
    return gates.evaluate_gates(evaluator(ours, theirs), rules, on)


def only(*args: Any, **kwargs: Any) -> dict[str, Any]:
    (entry,) = result(*args, **kwargs)["gates"]
    return dict(entry)


def test_a_met_rule_passes() -> None:
    found = result(table(range(30)), Rule(ACCURACY, min=0.9), Rule("per_class.cat.recall", max=0.5))
    assert found["passed"]
    verdict.check(found, GOOD)


@pytest.mark.parametrize(
    "rule", [Rule("per_class.dog.recall", min=0.5), Rule("per_class.dog.recall", max=0.5)]
)
def test_what_is_not_defined_is_inconclusive_and_never_0(rule: Rule) -> None:
    found = only(table(range(30)), rule)
    assert (found["verdict"], found["value"], found["passed"]) == ("inconclusive", None, False)
    assert found["why"] == "per_class.dog.recall is not defined: no test image is of this class"
    assert only(table(range(30)), rule, on="pass")["passed"]


@pytest.mark.parametrize(
    ("rule", "limit"),
    [(Rule(ACCURACY, min=0.95), "at least 0.95"), (Rule(ACCURACY, max=0.8), "at most 0.8")],
)
def test_a_rule_that_is_not_met_ends_the_run(rule: Rule, limit: str) -> None:
    found = result(table(range(30)), Rule("test.n", min=1), rule)
    assert [entry["passed"] for entry in found["gates"]] == [True, False]
    assert [entry["verdict"] for entry in found["gates"]] == ["pass", "fail"]
    with pytest.raises(Rejected) as caught:
        verdict.check(found, GOOD)
    assert all(word in str(caught.value) for word in (ACCURACY, "0.9", limit, "gate.rules"))
    assert caught.value.exit_code == 1


def test_an_artifact_that_failed_ends_the_run() -> None:
    with pytest.raises(Rejected, match=r"model\.onnx agrees too little \(export\.rules\)"):
        verdict.check({"gates": []}, {"onnx": {"passed": False, "why": "model.onnx agrees too little"}})


BAD = {"passed": False, "file": "model_int8.tflite", "why": "model_int8.tflite agrees too little"}


def test_an_artifact_that_is_not_required_is_left_out_and_said() -> None:
    found = {"onnx": {"passed": True, "file": "model.onnx"}, "tflite_int8": BAD | {"required": False}}
    verdict.check({"gates": []}, found)
    (line,) = left_out(found)
    assert line == "left out: model_int8.tflite agrees too little (export.rules)"
    required = found | {"tflite_int8": BAD | {"required": True}}
    assert not left_out(required)
    with pytest.raises(Rejected, match=r"model_int8\.tflite agrees too little \(export\.rules\)"):
        verdict.check({"gates": []}, required)


def test_a_model_of_which_no_file_is_left_is_rejected() -> None:
    with pytest.raises(Rejected, match=r"model_int8\.tflite agrees too little"):
        verdict.check({"gates": []}, {"tflite_int8": BAD | {"required": False}})


def test_a_rule_about_nothing_measured_is_a_slip() -> None:
    with pytest.raises(ParamError, match=r"gate\.rules\.0\.metric is 'test\.acuracy'.*test\.accuracy"):
        result(table([]), Rule("test.acuracy", min=0.9))


# Against the champion: the verdict goes by the interval, not by the value.

BAR = Rule(ACCURACY, min=-0.01, against="champion")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (range(3), range(60), "pass"),  # better by far
        (range(60), range(3), "fail"),  # worse by far
        (range(10, 18), range(20, 26), "inconclusive"),  # two more mistakes, other ones
        (range(30), range(30), "pass"),  # the same mistakes
    ],
)
def test_a_change_is_told_by_its_interval(ours: range, theirs: range, expected: str) -> None:
    found = only(table(ours), BAR, theirs=table(theirs))
    assert found["verdict"] == expected
    assert found["value"] == pytest.approx((len(theirs) - len(ours)) / N, abs=1e-6)
    low, high = found["interval_95"]
    assert low <= found["value"] <= high
    assert "champion" in found["name"] and "300 images" in found["why"] and "at least -0.01" in found["why"]


def test_mistakes_on_the_same_images_make_a_change_surer_than_on_others() -> None:
    pairs = [(range(42), range(40)), (range(42), range(100, 140))]
    widths = []
    for ours, theirs in pairs:
        low, high = only(table(ours), BAR, theirs=table(theirs))["interval_95"]
        widths.append(high - low)
    assert widths[0] < widths[1] / 3


def test_what_inconclusive_means_is_the_users_to_say() -> None:
    ours, theirs = table(range(10, 18)), table(range(20, 26))
    assert not result(ours, BAR, theirs=theirs)["passed"]
    lenient = result(ours, BAR, theirs=theirs, on="pass")
    assert lenient["passed"] and lenient["gates"][0]["verdict"] == "inconclusive"
    assert not result(table(range(60)), BAR, theirs=table([]), on="pass")["passed"], "a worse one stays one"


def test_without_a_champion_its_rules_are_listed_and_pass() -> None:
    found = only(table([]), BAR)
    assert (found["passed"], found["value"]) == (True, None)
    assert "no champion" in found["why"]


def test_a_relative_change_is_a_share_of_the_champions() -> None:
    rule = Rule("test.log_loss", max=0.1, against="champion", relative=True)
    worse = only(table(range(3), sure=0.6), rule, theirs=table(range(3)))
    assert worse["verdict"] == "fail"
    assert worse["value"] == pytest.approx(np.log(0.6) / np.log(0.9) - 1, rel=0.25)
    assert only(table(range(3)), rule, theirs=table(range(3), sure=0.6))["verdict"] == "pass"


def test_a_share_of_what_may_be_0_says_nothing() -> None:
    rule = Rule("test.macro_recall", max=30, against="champion", relative=True)
    found = only(table([]), rule, theirs=table(range(1, N)))
    assert (found["verdict"], found["value"]) == ("inconclusive", None)
    assert found["why"].endswith("which is 0 in many resamples of the images, says nothing")
    better = only(table([]), replace(rule, max=None, min=1.0), theirs=table(range(6, N)))
    assert better["verdict"] == "pass", "it is 0 in hardly any"
    assert only(table([]), rule, theirs=table(range(N)))["why"].endswith(
        "champion's, which is 0, says nothing"
    )


def test_a_slice_is_judged_by_what_is_shown_of_it() -> None:
    """The mean of the classes' recalls is 0.7799999999999999, which metrics.json would have as 0.78."""
    ours = table(range(66)).assign(slice_light="night")
    assert only(ours, Rule("test.macro_recall", min=0.78, slice="light=night"))["verdict"] == "pass"


def test_only_images_that_both_answered_are_compared_and_by_todays_labels() -> None:
    theirs = table(range(10)).iloc[:200]
    ours = table([])
    ours.loc[range(5), "label"] = theirs["predicted"].iloc[:5]  # the champion was right of these all along
    ours.loc[range(5), "predicted"] = ours["label"].iloc[:5]
    found = only(ours, BAR, theirs=theirs)
    assert "200 images" in found["why"]
    # Of the labels that were mended the probabilities of ours know nothing: 5 mistakes; of theirs 5 are left.
    assert found["value"] == 0
    none = only(ours, BAR, theirs=theirs.assign(path="other"))
    assert (none["verdict"], none["value"]) == ("inconclusive", None)


def test_a_champion_that_knows_other_classes_is_compared_all_the_same() -> None:
    theirs = table([]).rename(columns={"p_owl": "p_eagle"})
    found = only(table([]), BAR, theirs=theirs)
    assert found["value"] == pytest.approx(1 / 3, abs=1e-6), "it can't be right of an owl"


def test_trivial_classifiers_are_to_be_beaten() -> None:
    rule = Rule(ACCURACY, min=0.1, against="majority")
    assert only(table(range(30)), rule)["verdict"] == "pass"
    assert only(table(range(N)), rule)["verdict"] == "fail"


# Slices.


def test_a_slice_is_judged_by_its_own_images() -> None:
    ours = table(range(40))  # all at night
    night, day = (Rule(ACCURACY, min=0.9, slice=f"light={light}") for light in ("night", "day"))
    assert [entry["value"] for entry in result(ours, night, day)["gates"]] == [0.6, 1.0]
    assert [entry["passed"] for entry in result(ours, night, day)["gates"]] == [False, True]
    change = replace(BAR, slice="light=night")
    assert only(ours, change, theirs=table([]))["value"] == pytest.approx(-0.4)
    assert only(ours, replace(change, slice="light=day"), theirs=table([]))["value"] == 0


def test_the_worst_slice_is_found_and_named() -> None:
    worst = only(table(range(40)), Rule(ACCURACY, min=0.7, slice="worst"))
    assert (worst["name"], worst["value"], worst["passed"]) == ("test.accuracy of light=night", 0.6, False)
    changed = only(table(range(40)), replace(BAR, slice="worst"), theirs=table([]))
    assert changed["name"] == "test.accuracy of light=night against champion"
    assert changed["verdict"] == "fail"


def test_a_small_slice_is_not_judged() -> None:
    found = only(table(range(5)), Rule(ACCURACY, min=0.9, slice="rare=yes"))
    assert (found["verdict"], found["value"]) == ("inconclusive", None)
    assert "5 images are too few" in found["why"]
    assert (
        only(table(range(5)), Rule(ACCURACY, min=0.9, slice="worst"))["name"]
        == "test.accuracy of light=night"
    )


def test_what_fails_is_never_hidden_by_what_may() -> None:
    """A large slice that is surely worse, and a small one whose interval reaches farther down."""
    ours = table([*range(4), *range(200, 224)]).assign(slice_rare="no")
    ours.loc[range(30), "slice_rare"] = "yes"
    rule = replace(BAR, min=-0.05, slice="worst")
    changed = only(ours, rule, theirs=table([]), on="pass")
    assert changed["verdict"] == "fail" and not changed["passed"]
    small = only(ours, replace(rule, slice="rare=yes"), theirs=table([]))
    assert small["verdict"] == "inconclusive" and small["interval_95"][0] < changed["interval_95"][0]


def test_a_worst_slice_that_can_not_be_compared_is_not_passed() -> None:
    found = only(table([]), replace(BAR, slice="worst"), theirs=table([]).assign(sha256="others"))
    assert found["verdict"] == "inconclusive"
    alone = only(table([]), replace(BAR, slice="worst"))
    assert alone["verdict"] == "pass" and "no champion" in alone["why"]


def test_a_few_pairs_that_agree_are_no_proof() -> None:
    few = [table([], n=n) for n in (29, 30, 300)]
    assert [only(frame, BAR, theirs=frame)["verdict"] for frame in few] == [
        "inconclusive",
        "inconclusive",
        "pass",
    ]


def test_another_image_under_the_same_path_is_not_compared() -> None:
    theirs = table([])
    theirs.loc[range(100), "sha256"] = "another"
    assert "200 images" in only(table(range(3)), BAR, theirs=theirs)["why"]


def test_the_name_of_a_slice_may_hold_anything() -> None:
    ours = table([]).rename(columns={"slice_light": "slice_iso=100"})
    assert only(ours, Rule(ACCURACY, min=0.9, slice="iso=100=day"))["value"] == 1
    assert only(ours, Rule(ACCURACY, min=0.9, slice="worst"))["passed"]


def test_a_slice_that_is_not_there_is_a_slip_that_names_those_that_are() -> None:
    with pytest.raises(ParamError, match=r"gate\.rules\.0\.slice is 'light=dusk'; did you mean light=day"):
        result(table([]), Rule(ACCURACY, min=0.9, slice="light=dusk"))
    with pytest.raises(ParamError, match=r"there are light=day, light=night, rare=no, rare=yes$"):
        result(table([]), Rule(ACCURACY, min=0.9, slice="x=y"))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(ACCURACY), "either `min` or `max`"),
        (Rule(ACCURACY, min=0.1, max=0.2), "either `min` or `max`"),
        (Rule("test.acuracy", min=0.1), "test has accuracy"),
        (Rule("accuracy", min=0.1), "must begin with one of test."),
        (Rule("robustnes.accuracy", min=0.1), "must begin with one of test."),
        (
            Rule("robustness.accuracy", min=0.1, against="champion"),
            "against champion it must be one of test.accuracy",
        ),
        (
            Rule("test.log_loss", max=0.1, against="colours"),
            "against colours it must be one of test.accuracy",
        ),
        (Rule("validation.accuracy", min=0.1, slice="worst"), "of a slice it must be"),
        (Rule(ACCURACY, min=90), "a share: 90 % are 0.9"),
        (Rule(ACCURACY, max=1), "of at most 1, which all are"),
        (Rule("per_class.red.recall", min=95), "a share"),
        (Rule("slices.version.1.5.accuracy", min=95), "a share"),
        (Rule("calibration.after.ece", max=5), "a share"),
        (Rule("baselines.colours.accuracy", max=95), "a share"),
        (Rule("robustness.corruptions.fog.3", min=80), "a share"),
        (Rule(ACCURACY, min=0.1, relative=True), "there is no `against`"),
    ],
)
def test_a_rule_that_makes_no_sense_is_a_slip_in_params(rule: Rule, words: str) -> None:
    with pytest.raises(ParamError, match=r"gate\.rules\.3") as caught:
        rule.check("gate.rules.3")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "rule",
    [
        Rule("per_class.recall.n", min=50),
        Rule("robustness.n", min=300),
        Rule("calibration.temperature", max=3),
        Rule("calibration.after.log_loss", max=2),
        Rule(ACCURACY, max=2, against="champion", relative=True),
    ],
)
def test_what_is_no_share_may_be_above_1(rule: Rule) -> None:
    rule.check("gate.rules.3")


def test_the_shipped_rules_are_checked_with_the_file() -> None:
    rules = params.read(ROOT / "params.yaml", Params).gate.rules
    assert {rule.against for rule in rules} == {"majority", "champion"}


# The champion's predictions come from a git revision by way of DVC.


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose tag `v1` holds a table of predictions, and whose working tree holds another."""
    monkeypatch.chdir(tmp_path)
    run("git", "init", "--quiet", "--initial-branch", "trunk")
    run("git", "config", "user.name", "A Tester")
    run("git", "config", "user.email", "tester@example.invalid")
    run("dvc", "init", "--quiet")
    run("git", "commit", "--quiet", "--message", "Start")
    run("git", "tag", "v0")
    predictions.write(Path("reports/predictions.parquet"), table(range(7)))
    run("dvc", "add", "--quiet", "reports/predictions.parquet")
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--message", "A model")
    run("git", "tag", "v1")
    predictions.write(Path("reports/predictions.parquet"), table([]))
    return tmp_path


@pytest.mark.usefixtures("repository")
def test_the_champion_is_what_its_revision_says_and_not_what_lies_here() -> None:
    found = champion.predictions("v1")
    assert int((found["label"] != found["predicted"]).sum()) == 7


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("v9", "git doesn't know"),
        ("HEAD", "no tag and no commit"),
        ("trunk", "no tag and no commit"),
        ("trunk~0", "no tag and no commit"),
        ("abcdef0", "git doesn't know"),
        ("v0", "dvc.lock names no"),
    ],
)
def test_a_revision_without_a_model_is_a_slip(revision: str, words: str) -> None:
    with pytest.raises(ParamError, match=f"gate.champion is '{revision}'.*{words}"):
        champion.predictions(revision)


def test_a_champion_that_is_gone_from_the_cache_is_told(repository: Path) -> None:
    for file in (repository / ".dvc/cache").rglob("*"):
        if file.is_file():
            file.chmod(0o600)
            file.unlink()
    with pytest.raises(DarkroomError, match="can't be had") as caught:
        champion.predictions("v1")
    assert "\n" not in str(caught.value)
