"""A gate says no by name, value and threshold, and a no ends the run."""

from __future__ import annotations

import pytest

from tasks import gate, verdict
from tasks.core.errors import ParamError, Rejected
from tasks.core.params import Rule

METRICS = {"test": {"accuracy": 0.85, "n": 20}, "per_class": {"cat": {"recall": 0.5}}}
GOOD = {"onnx": {"passed": True, "why": "fine"}}


def test_a_met_rule_passes() -> None:
    result = gate.judge(METRICS, (Rule("test.accuracy", min=0.85), Rule("per_class.cat.recall", max=0.5)))
    assert result["passed"]
    verdict.check(result, GOOD)


@pytest.mark.parametrize(
    ("rule", "limit"),
    [(Rule("test.accuracy", min=0.9), "at least 0.9"), (Rule("test.accuracy", max=0.8), "at most 0.8")],
)
def test_a_rule_that_is_not_met_ends_the_run(rule: Rule, limit: str) -> None:
    result = gate.judge(METRICS, (Rule("test.n", min=1), rule))
    assert [entry["passed"] for entry in result["gates"]] == [True, False]
    with pytest.raises(Rejected) as caught:
        verdict.check(result, GOOD)
    assert all(word in str(caught.value) for word in ("test.accuracy", "0.85", limit, "gate.rules"))
    assert caught.value.exit_code == 1


def test_an_artifact_that_failed_ends_the_run() -> None:
    with pytest.raises(Rejected, match=r"model\.onnx agrees too little \(export\.min_agreement\)"):
        verdict.check({"gates": []}, {"onnx": {"passed": False, "why": "model.onnx agrees too little"}})


def test_a_rule_about_nothing_measured_is_a_slip() -> None:
    with pytest.raises(ParamError, match=r"gate\.rules\.0\.metric is 'test\.acuracy'.*test\.accuracy"):
        gate.judge(METRICS, (Rule("test.acuracy", min=0.9),))
