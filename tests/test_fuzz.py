"""Input of strangers, changed at random, and what that has found: `python -m tests.fuzz` tries more of it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.base import params
from tasks.core.base.errors import DarkroomError, DataError, ModelError, ParamError
from tasks.core.data import discovery
from tasks.core.inference.predictor import load_predictor
from tasks.core.release import registry
from tasks.core.release.evidence import Evidence
from tasks.core.validation import schema
from tests.fuzz.__main__ import fault, try_some
from tests.fuzz.targets import TARGETS, Target
from tests.structure import ROOT

COUNT, SEED = 150, 11
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by Linux' own means")


def test_what_strangers_give_comes_to_a_result_or_to_one_line() -> None:
    words = [sys.executable, "-m", "tests.fuzz", "--count", str(COUNT), "--seed", str(SEED)]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"{COUNT} inputs, 0 faults") == len(TARGETS)


@pytest.mark.parametrize("kind", TARGETS)
def test_sound_input_is_read(kind: str, tmp_path: Path) -> None:
    """Or nothing beyond a first check would be tried."""
    for place, data in enumerate(TARGETS[kind].sound):
        (tmp_path / str(place)).mkdir()
        TARGETS[kind].read(data, tmp_path / str(place))


def raise_it(error: BaseException) -> None:
    raise error


def end_the_process() -> None:
    import os

    os._exit(9)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda *_: raise_it(KeyError("x")), "KeyError"),
        (lambda *_: raise_it(DarkroomError("two\nlines")), "more than a line"),
        (lambda *_: end_the_process(), "exit code 9"),
        (lambda *_: bytearray(3 << 30), "MemoryError"),
    ],
)
def test_each_kind_of_fault_is_seen(read: object, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "bad", Target(lambda: [b"x"], [], read))  # type: ignore[arg-type]
    found = list(try_some("bad", 1, range(3)))
    assert [number for number, _ in found] == [0, 1, 2]
    assert all(words in text for _, text in found), found


def test_what_takes_too_long_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> None:
        while True:
            pass

    monkeypatch.setattr("tests.fuzz.__main__.SECONDS", 1)
    monkeypatch.setitem(TARGETS, "bad", Target(lambda: [b"x"], [], hang))
    assert fault("bad", b"x") == "took more than 1 seconds"


# What was found.


def test_a_damaged_parquet_file_of_labels_is_one_line(tmp_path: Path) -> None:
    """Arrow raises a plain OSError, which was called a fault of ours."""
    file = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"path": ["a.png"], "label": ["a"]}), file)
    data = bytearray(file.read_bytes())
    footer = -8 - int.from_bytes(data[-8:-4], "little")
    data[footer : footer + 8] = b"\xff" * 8
    file.write_bytes(data)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"labels.parquet can't be read .* it must be a CSV"):
        discovery.discover(tmp_path / "images", file)


def test_a_misspelt_key_within_a_range_of_the_schema_is_named(tmp_path: Path) -> None:
    """What may be none has no keys to list; that was a TypeError."""
    file = tmp_path / "schema.yaml"
    file.write_text("width: {mni: 1, max: 9}\n")
    with pytest.raises(ParamError, match=r"width.mni is not a parameter; known here: min, max"):
        schema.load(file)


def test_a_misspelt_key_within_a_list_is_named(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text("utf-8")
    file.write_text(text.replace("{metric: agreement, min: 0.99}", "{metric: agreement, mni: 0.99}"), "utf-8")
    from tasks.check import Params

    with pytest.raises(ParamError, match=r"export.rules.0.mni is not a parameter; known here: "):
        params.read(file, Params)


@pytest.mark.parametrize("text", ['{"a":' * 3000, '{"format": 1, "version": []}', '{"format": []}'])
def test_the_message_of_a_tag_that_was_written_by_hand_is_no_evidence(text: str) -> None:
    assert Evidence.from_facts(registry.facts(f"by hand\n{text}"), "v1") is None


def test_evidence_without_a_headline_is_none() -> None:
    facts: dict[str, object] = {name: {} for name in ("about", "digests", "artifacts", "probe", "metrics")}
    given = {"version": "v1.0.0", "commit": "a", "verdict": "passed", "format": 1} | facts
    assert Evidence.from_facts(given, "v1") is None


def test_an_artifact_that_takes_other_images_than_it_says_is_one_line(tmp_path: Path) -> None:
    """Its runtime's own error was a traceback, three lines long."""
    (tmp_path / "model.onnx").write_bytes(TARGETS["ONNX"].sound[0])
    predictor = load_predictor(tmp_path / "model.onnx")
    with pytest.raises(
        ModelError, match=r"model.onnx can't predict \(InvalidArgument: .*Expected: 4"
    ) as caught:
        predictor.predict(np.zeros((1, 5, 4, 3), np.float32))
    assert "\n" not in str(caught.value)
