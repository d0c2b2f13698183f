"""What an artifact must show before it is shipped: it is run as its user will run it, and compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from tasks.core.artifacts import isolation
from tasks.core.artifacts.config import TIMED, ArtifactRule
from tasks.core.artifacts.formats import Format
from tasks.core.base.arrays import Array, rounded
from tasks.core.base.errors import ModelError
from tasks.core.base.files import sha256, size

SURE = 0.9  # probability of a class from which on the trained model is sure of it


@dataclass(frozen=True)
class ParityCheck:
    """The images that artifacts are asked about, and what the trained model says of them.

    images: a .npy file of the test split, uint8 (n, size, size, 3).
    labels: int (n,), places of their classes.
    expected: the trained model's probabilities of them, float (n, classes).
    golden: a folder of encoded images.
    expected_golden: the trained model's probabilities of those, float (m, classes).
    """

    images: Path
    labels: Array
    expected: Array
    golden: Path
    expected_golden: Array

    def facts(self, artifact: Path) -> dict[str, Any]:
        """Runs an artifact apart, and compares. What can't be run has no answers, and an `error`."""
        facts: dict[str, Any] = {"file": artifact.name, "bytes": size(artifact), "sha256": sha256(artifact)}
        try:
            answers = isolation.predict(artifact, self.images, self.golden)
        except ModelError as error:
            return facts | {"error": str(error)}
        if not all(np.isfinite(answer).all() for answer in answers.values()):
            return facts | {"error": f"{artifact.name} gives probabilities that are no numbers"}
        return facts | {name: rounded(value) for name, value in self._compare(answers).items()}

    def _compare(self, answers: dict[str, Array]) -> dict[str, float]:
        test = answers["test"]
        golden = [answers[name] for name in ("golden", "encoded") if name in answers]
        best = self.expected_golden.argmax(axis=1)
        accuracy = _share(test, self.labels)
        answered, classes = test.argmax(axis=1), self.expected.argmax(axis=1)
        lost = (classes == self.labels).astype(int) - (answered == self.labels)
        surely_other = (self.expected.max(axis=1) >= SURE) & (answered != classes)
        return {
            "agreement": _share(test, classes),
            "sure_disagreement": float(np.mean(surely_other)),
            "sure_disagreement_least": _lowest_mean(surely_other),
            "max_probability_difference": float(np.abs(test - self.expected).max()),
            "accuracy": accuracy,
            "accuracy_drop": _share(self.expected, self.labels) - accuracy,
            "accuracy_drop_least": _lowest_mean(lost),
            "sum_error": float(np.abs(test.sum(axis=1) - 1).max()),
            "golden_agreement": min(_share(answer, best) for answer in golden),
            "golden_difference": max(float(np.abs(a - self.expected_golden).max()) for a in golden),
        }


def _lowest_mean(values: Array) -> float:
    """The lower end of the one-sided 95 % interval of a mean: what it is at least, chance aside."""
    error = float(np.std(values)) / np.sqrt(len(values))
    return float(np.mean(values) + norm.ppf(0.05) * error)


def _share(probabilities: Array, classes: Array) -> float:
    return float(np.mean(probabilities.argmax(axis=1) == classes))


def apply_rules(
    kind: Format, facts: dict[str, Any], rules: tuple[ArtifactRule, ...], times: dict[str, Any]
) -> dict[str, Any]:
    """Holds an artifact against the rules that are for it.

    Args:
        facts: what `ParityCheck.facts` gave.
        times: what was measured of its run on this machine, where a rule asks for that.

    Returns:
        The facts with `gates`, one for each rule, `passed`, and `why`: what is not met, if anything. Times,
        which are others the next time, have no value there.
    """
    file = facts["file"]
    if "error" in facts:
        return facts | {"gates": [], "passed": False, "why": facts["error"]}
    seen = facts | times
    gates = [_gate(file, rule, seen) for rule in rules_for(kind, rules)]
    faults = [gate["why"] for gate in gates if not gate["passed"]]
    why = "; ".join(faults) or f"{file} meets all of export.rules"
    return facts | {"gates": gates, "passed": not faults, "why": why}


def rules_for(kind: Format, rules: tuple[ArtifactRule, ...]) -> list[ArtifactRule]:
    """The rules for a format: those of its own, and of those for all what these say nothing of."""
    own = [rule for rule in rules if rule.artifact == kind]
    measures = {rule.metric for rule in own}
    return own + [rule for rule in rules if rule.artifact is None and rule.metric not in measures]


def _gate(file: str, rule: ArtifactRule, seen: dict[str, Any]) -> dict[str, Any]:
    value = seen[rule.metric]
    # A file that answers otherwise on one of few test images need not be a worse one.
    judged = seen.get(f"{rule.metric}_least", value)
    passed = value is not None and rule.margin(judged, judged) >= 0
    timed = rule.metric in TIMED
    if value is None:
        why = f"{file} has no {rule.metric}, since there is no SavedModel that runs"
    else:
        figure = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
        has = f"a {rule.metric}" if timed else f"{rule.metric} of {figure}"
        chance = "" if judged is value else f" (95 %: at least {judged:.6g})"
        why = f"{file} has {has}{chance}, which {'is' if passed else 'is not'} {rule.said(',.10g')}"
    return {
        "name": rule.metric,
        "value": None if timed else value,
        "threshold": rule.threshold,
        "passed": passed,
        "why": why,
    }
