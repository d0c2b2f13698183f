"""A slip in params.yaml is found before any work, and told in the words of the file."""

import dataclasses
from pathlib import Path

import pytest

from tasks.check import Params
from tasks.core.base import params
from tasks.core.base.errors import ParamError
from tasks.core.data.config import Processes
from tasks.core.evaluation.config import Rule
from tasks.core.reporting.parameters import changed, shown
from tests.structure import ROOT


@dataclasses.dataclass(frozen=True)
class Named(params.Section):
    compute: Processes


SHIPPED = (ROOT / "params.yaml").read_text("utf-8")
HEAD = SHIPPED[SHIPPED.index("  head: ") : SHIPPED.index("  fine_tune: ")]


def load(folder: Path, text: str) -> Params:
    file = folder / "params.yaml"
    file.write_text(text, "utf-8")
    return params.read(file, Params)


def test_the_shipped_file_is_good() -> None:
    assert params.read(ROOT / "params.yaml", Params).data.images == "data/digits"


def test_the_notebooks_recipe_is_whole_and_marks_what_differs() -> None:
    text = (ROOT / "params/notebook.yaml").read_text("utf-8")
    assert params.read(ROOT / "params/notebook.yaml", Params).train.epochs == 50
    shipped = SHIPPED.splitlines()
    others = [line for line in text.splitlines()[2:] if line not in shipped]
    assert others and all(line.endswith("# the notebook's") for line in others)


def test_a_training_of_nothing_is_refused(tmp_path: Path) -> None:
    text = SHIPPED.replace("  head: true", "  head: false")
    text = text.replace("fine_tune: auto", "fine_tune: false")
    with pytest.raises(ParamError, match=r"train\.head and train\.fine_tune are false"):
        load(tmp_path, text)
    text = text.replace("rotation: auto", "rotation: 10  ")
    assert load(tmp_path, text).train.head is False, "the head is trained on augmented images"


@pytest.mark.parametrize(
    ("old", "new"), [("head: true", "head: false"), ("fine_tune: auto", "fine_tune: true")]
)
def test_a_quick_training_of_more_than_the_head_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = SHIPPED.replace("  effort: standard", "  effort: quick").replace(f"  {old}", f"  {new}")
    with pytest.raises(ParamError, match=f"train.effort is quick, .* train.{new.replace(':', ' is')}"):
        load(tmp_path, text)


def test_a_format_may_be_exempt_from_a_rule_and_bytes_are_no_share(tmp_path: Path) -> None:
    text = SHIPPED.replace("golden_difference, max: 0.75,", "golden_difference, max: 1,")
    load(tmp_path, text.replace("sum_error, max: 0.03", "bytes, max: 5000000"))


def test_an_equals_sign_wants_quotes(tmp_path: Path) -> None:
    """A class may be called so; YAML 1.1, as DVC reads it, has a type of its own for it."""
    with pytest.raises(ParamError, match="has = as a value in line 5; put it in quotes"):
        load(tmp_path, SHIPPED.replace("images: data/digits", "images: ="))
    assert load(tmp_path, SHIPPED.replace("images: data/digits", "images: '='")).data.images == "="


def test_a_rule_on_robustness_needs_it_measured(tmp_path: Path) -> None:
    rule = "metric: test.accuracy, against: majority, min: 0.0"
    asked = SHIPPED.replace(rule, "metric: robustness.accuracy, min: 0.5")
    for text in (asked, SHIPPED.replace("robustness: 300", "robustness: 0")):
        load(tmp_path, text)
    with pytest.raises(
        ParamError, match=r"gate\.rules\.0\.metric .* but evaluate\.robustness is 0; raise it"
    ):
        load(tmp_path, asked.replace("robustness: 300", "robustness: 0"))


def test_a_number_may_have_an_exponent(tmp_path: Path) -> None:
    assert (
        load(tmp_path, SHIPPED.replace("learning_rate: auto", "learning_rate: 1e-3")).train.learning_rate
        == 1e-3
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs: auto", "epochs: ten", ("train.epochs", "'ten'", "'auto' or", "a whole number")),
        ("epochs: auto", "epochs: true", ("train.epochs", "True", "a whole number")),
        ("epochs: auto", "epochs: 0", ("train.epochs", "0", "greater than or equal to 1")),
        ("fine_tune: auto", "fine_tune: 1", ("train.fine_tune", "1", "'auto' or", "true or false")),
        ("effort: standard", "effort: much", ("train.effort", "'much'", "'standard' or 'thorough'")),
        ("patience: 3", "patiense: 3", ("train.patiense", "is not a parameter", "patience")),
        ("rotation: auto", "rotation [deg]: 3", ("train.augment.rotation [deg] is not", "rotation, trans")),
        ("calibration_bins: 15", "bool: 1", ("evaluate.bool is not a parameter", "calibration_bins")),
        ("\nevaluate:", "\n~: 2\nevaluate:", ("~ is not a parameter", "evaluate")),
        ("\nevaluate:", "\n1: 2\nevaluate:", (" 1 is not a parameter", "evaluate")),
        ("\nevaluate:", "\n0x1F: 2\nevaluate:", ("0x1F is not a parameter", "evaluate")),
        *(
            ("champion: none", f"champion: {written}", (f"gate.champion is {written}; ", "put it in quotes"))
            for written in ("0123456", "12345e7", "true")
        ),
        ("images: data/digits", "images: 2024-01-01", ("data.images is 2024-01-01; ", "put it in quotes")),
        ("\ntrain:", "\ntrian:", ("trian", "is not a parameter", "train")),
        ("resize: stretch", "resize: squash", ("build.resize", "'squash'", "'stretch', 'crop' or 'pad'")),
        ("sha256: none", "sha256: 12ab", ("model.sha256", "'12ab'", "'none' or")),
        ("image_size: auto", "image_size: 7", ("model.image_size", "7", "'auto' or", "32")),
        ("[saved_model", "[savedmodel", ("export.formats.0", "'savedmodel'", "'saved_model'")),
        ("min: 0.0}", "min: 0.9, max: 1}", ("gate.rules.0", "test.accuracy", "either")),
        ("min: 0.0}", "mim: 0.9}", ("gate.rules.0.mim", "is not a parameter", "metric, min, max")),
        (
            "metric: test.accuracy",
            "metric: test.acuracy",
            ("gate.rules.0.metric", "test.acuracy", "macro_f1"),
        ),
        ("min: 0.0}", "min: .nan}", ("gate.rules.0.min", "nan", "finite")),
        ("test_split: 0.2", "test_split: 0.95", ("build.test_split", "1.05", "less than 1")),
        ("seed: 123\n  resize", f"seed: {2**32}\n  resize", ("build.seed", str(2**32), "less than")),
        ("  seed: 123\n  resize", "  resize", ("build.seed", "is missing")),
        (HEAD, "", ("train.head", "is missing; give it a value")),
        ("required: [] ", "required: [coreml]", ("export.required", "'coreml'", "saved_model")),
        ("rotation: auto", "rotation: [1", ("not valid YAML", "line")),
        (SHIPPED, "", ("data", "is missing")),
        ("gate:\n", "gate:\n  artifacts: []\n", ("gate.artifacts is called export.rules now",)),
        (
            "    groups_merged: warning",
            "    tied: warning",
            ("validate.severity.tied is called validate.severity.groups_merged now",),
        ),
        (
            "metric: agreement, min: 0.99",
            "metric: agreement",
            ("export.rules.0", "agreement", "either"),
        ),
        *(
            (f"{key}: {old}", f"{key}: {new}", (f".{key} is 1", f"less than or equal to {most}"))
            for key, old, new, most in (
                ("epochs", "auto", 10**23, 2**31 - 1),
                ("learning_rate", "auto", "1e300", 2**31 - 1),
                ("warmup", "0.5", "1e23", 2**31 - 1),
                ("l2", "auto", "1.0e+40", 2**31 - 1),
                ("calibration_bins", "15", 10**9, 10_000),
                ("bootstrap", "1000", 10**9, 10**6),
                ("min_per_class", "10", 10**20, 2**31 - 1),
                ("robustness", "300", 10**20, 2**31 - 1),
                ("golden", "16", 10**20, 2**31 - 1),
                ("representative", "300", 10**20, 2**31 - 1),
            )
        ),
        *(
            (f"metric: {old}", f"metric: {new}", ("export.rules.", "it is a share: 90 % are 0.9"))
            for old, new in (
                ("agreement, min: 0.99", "agreement, min: 99"),
                ("accuracy_drop, max: 0.005", "accuracy_drop, max: 2"),
                ("golden_difference, max: 0.75,", "golden_difference, max: 75,"),
            )
        ),
        (
            "sure_disagreement, max: 0.005",
            "sure_disagreement, max: 1",
            ("export.rules.3", "at most 1, which all are; leave it out, or make it 0.01"),
        ),
    ],
)
def test_a_slip_is_told_with_key_value_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    assert old in SHIPPED
    with pytest.raises(ParamError) as caught:
        load(tmp_path, SHIPPED.replace(old, new, 1))
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in ("params.yaml", *words)), text


def test_a_stage_gets_what_it_names_and_the_whole_file_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip in `export` is told by the first stage, which knows nothing of it."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(SHIPPED, "utf-8")
    assert dataclasses.asdict(params.load(Named)) == {"compute": {"workers": 0, "scheduler": "none"}}
    Path("params.yaml").write_text(SHIPPED.replace("golden: 16", "golden: some"), "utf-8")
    with pytest.raises(ParamError, match=r"export\.golden is 'some'"):
        params.load(Named)


def test_a_missing_file_says_where_to_be(tmp_path: Path) -> None:
    with pytest.raises(ParamError, match="root of the repository"):
        params.read(tmp_path / "params.yaml", Params)


def test_parameters_stand_as_in_their_file() -> None:
    values = {"fine_tune": True, "augment": {"zoom": 0.1, "crop": 3.0}, "resize": "pad", "formats": ("h5",)}
    assert shown({"x": values}) == {
        "x.fine_tune": "true",
        "x.augment.zoom": "0.1",
        "x.augment.crop": "3",
        "x.resize": "pad",
        "x.formats": '["h5"]',
    }


def test_rules_read_and_rules_recorded_are_shown_alike() -> None:
    """What dvc.lock has of them is bare; a rule that is read has all its keys, in an order of its own."""
    recorded = {"slice": "worst", "metric": "test.accuracy", "min": 0}
    rule = Rule(metric="test.accuracy", slice="worst", min=0.0)
    one = shown({"gate": {"rules": [recorded]}})
    assert one == shown({"gate": {"rules": (dataclasses.asdict(rule),)}})
    assert one == {"gate.rules.0": "metric: test.accuracy, min: 0, slice: worst"}


def test_a_rule_that_is_put_between_others_is_the_only_change() -> None:
    then = shown({"gate": {"rules": [{"min": 1}, {"min": 2}, {"min": 3}]}, "seed": 1, "old": True})
    assert changed(then, then) == []
    now = shown({"gate": {"rules": [{"min": 1}, {"max": 9}, {"min": 2}, {"min": 3}]}, "seed": 1, "old": True})
    assert changed(then, now) == [("gate.rules.1", "not there", "max: 9")]
    now = shown({"gate": {"rules": [{"min": 1}, {"min": 4}, {"min": 3}]}, "seed": 2})
    assert changed(then, now) == [
        ("gate.rules.1", "min: 2", "min: 4"),
        ("seed", "1", "2"),
        ("old", "true", "not there"),
    ]


def test_a_required_format_that_is_not_written_is_a_slip(tmp_path: Path) -> None:
    text = SHIPPED.replace("tflite_int8, onnx]", "onnx]").replace("required: [] ", "required: [tflite_int8]")
    with pytest.raises(ParamError, match=r"export\.required has tflite_int8, which export\.formats doesn't"):
        load(tmp_path, text)
