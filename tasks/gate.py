"""Stage `gate`: holds a model against the rules of params.yaml.

It writes the verdict and ends well whatever the verdict is: DVC keeps the outputs of stages that
end well only, and a person wants to look at a rejected model too. Stage `verdict`, the last one,
is where a no ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from tasks.core import champion, cli, metrics, params, predictions
from tasks.core.errors import ParamError
from tasks.core.metrics import Answers
from tasks.core.params import CHAMPION, NONE, Rule
from tasks.core.paths import GATES, METRICS, PREDICTIONS
from tasks.core.serialize import read_json, write_json
from tasks.core.tables import read_parquet

Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Outcome:
    """What a rule came to; there is no value where there is nothing to judge."""

    verdict: Verdict
    name: str
    why: str
    value: float | None = None
    interval: tuple[float, float] | None = None  # at 95 %, of a change

    @property
    def interval_or_value(self) -> tuple[float, float]:
        value = self.value or 0.0
        return self.interval or (value, value)


@dataclass(frozen=True)
class Judge:
    """Everything that rules are held against.

    measured: as in `metrics.json`.
    ours: the table of predictions.
    theirs: the champion's, if there is one.
    bins, resamples, seed: of the calibration error and the bootstrap; as `evaluate` has them.
    """

    measured: dict[str, Any]
    ours: pd.DataFrame
    theirs: pd.DataFrame | None
    bins: int
    resamples: int
    seed: int

    def outcome(self, place: int, rule: Rule) -> Outcome:
        """Holds the model against one rule.

        Raises:
            ParamError: the rule names a number or a slice that is not there.
        """
        if rule.slice == "worst":
            return self._worst(place, rule)
        if rule.against == CHAMPION and self.theirs is None:
            return Outcome("pass", _name(rule), f"{_name(rule)}: there is no champion yet (gate.champion)")
        if rule.slice and (few := self._too_few(place, rule.slice)):
            return Outcome("pass", _name(rule), f"{_name(rule)}: {few}")
        return self._change(rule) if rule.against else self._level(place, rule)

    def _level(self, place: int, rule: Rule) -> Outcome:
        value = self._of_slice(rule) if rule.slice else self._number(place, rule)
        met = _met(rule, value)
        return Outcome(
            "pass" if met else "fail",
            _name(rule),
            f"{_name(rule)} is {value:.6g}, which {'is' if met else 'is not'} {_limit(rule)}",
            value,
        )

    def _of_slice(self, rule: Rule) -> float:
        return self._measure(rule)(predictions.answers(self._part(rule)))

    def _number(self, place: int, rule: Rule) -> float:
        numbers = flat(self.measured)
        if rule.metric not in numbers:
            some = ("test.", "validation.", "calibration.", "robustness.accuracy")
            known = ", ".join(name for name in numbers if name.startswith(some))
            raise ParamError(
                f"gate.rules.{place}.metric is {rule.metric!r}, which was not measured; "
                f"there are {known}, per_class.<class>.<measure> and what else {METRICS} holds"
            )
        return numbers[rule.metric]

    def _change(self, rule: Rule) -> Outcome:
        """Judges a change by the interval of its paired bootstrap: all of it within the limit, or beyond."""
        ours, theirs = self._pair(rule)
        name, n, measure = _name(rule), len(ours), self._measure(rule)
        if not n:
            return Outcome("inconclusive", name, f"{name}: no test picture is among the champion's")
        before, after = measure(theirs), measure(ours)
        if rule.relative and before == 0:
            return Outcome(
                "inconclusive", name, f"{name}: a share of {rule.against}'s, which is 0, says nothing"
            )
        change, (low, high) = metrics.change(ours, theirs, measure, rule.relative, self.resamples, self.seed)
        verdict, says = _told(rule, low, high)
        why = (
            f"{name}: {before:.6g} becomes {after:.6g}, a {'relative ' if rule.relative else ''}change of "
            f"{change:+.4g} (95 %: {low:+.4g} to {high:+.4g}; {n} pictures), which {says} {_limit(rule)}"
        )
        return Outcome(verdict, name, why, change, (low, high))

    def _pair(self, rule: Rule) -> tuple[Answers, Answers]:
        """Our answers and those that they are held against, to the same pictures in the same order."""
        part = self._part(rule)
        if rule.against != CHAMPION:
            return predictions.answers(part), predictions.baseline(part, str(rule.against))
        assert self.theirs is not None
        theirs = predictions.another(self.theirs, part)
        ours = predictions.another(part, theirs)
        return predictions.answers(ours), predictions.answers(theirs)

    def _worst(self, place: int, rule: Rule) -> Outcome:
        """The outcome of the slice, of all that are judged, that is farthest on the wrong side."""
        cells = [
            f"{kind}={cell}"
            for kind, facts in self.measured["slices"].items()
            for cell, fact in facts.items()
            if fact["judged"]
        ]
        found = [self.outcome(place, replace(rule, slice=cell)) for cell in cells]
        judged = [outcome for outcome in found if outcome.value is not None]
        if not judged:
            return Outcome("pass", _name(rule), f"{_name(rule)}: there is no slice to judge")
        return min(judged, key=lambda outcome: _margin(rule, *outcome.interval_or_value))

    def _too_few(self, place: int, name: str) -> str | None:
        kind, _, cell = name.partition("=")
        kinds = self.measured["slices"]
        if cell not in kinds.get(kind, {}):
            known = ", ".join(f"{kind}={cell}" for kind in kinds for cell in kinds[kind])
            raise ParamError(f"gate.rules.{place}.slice is {name!r}; there are {known or 'no slices'}")
        fact = kinds[kind][cell]
        return (
            None if fact["judged"] else f"its {fact['n']} pictures are too few to judge (evaluate.min_slice)"
        )

    def _part(self, rule: Rule) -> pd.DataFrame:
        if not rule.slice:
            return self.ours
        kind, _, cell = rule.slice.partition("=")
        return self.ours[self.ours[predictions.SLICE + kind] == cell].reset_index(drop=True)

    def _measure(self, rule: Rule) -> metrics.Measure:
        return metrics.measures(self.bins)[rule.metric.removeprefix("test.")]


def judged(judge: Judge, rules: tuple[Rule, ...], on_inconclusive: Literal["pass", "fail"]) -> dict[str, Any]:
    """Gives what `gates.json` holds."""
    gates = []
    for place, rule in enumerate(rules):
        outcome = judge.outcome(place, rule)
        passed = outcome.verdict == "pass" or (outcome.verdict, on_inconclusive) == ("inconclusive", "pass")
        gates.append(
            {
                "name": outcome.name,
                "value": None if outcome.value is None else metrics.rounded(outcome.value),
                "threshold": rule.min if rule.min is not None else rule.max,
                "passed": passed,
                "verdict": outcome.verdict,
                "interval_95": outcome.interval and [metrics.rounded(end) for end in outcome.interval],
                "why": outcome.why,
            }
        )
    return {"passed": all(gate["passed"] for gate in gates), "gates": gates}


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """All numbers of nested dicts by their dotted paths."""
    result: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            result[prefix + key] = value
    return result


def _name(rule: Rule) -> str:
    part = f" of {'the worst slice' if rule.slice == 'worst' else rule.slice}" if rule.slice else ""
    return f"{rule.metric}{part}{f' against {rule.against}' if rule.against else ''}"


def _limit(rule: Rule) -> str:
    sign = "+" if rule.against else ""
    return f"at least {rule.min:{sign}g}" if rule.min is not None else f"at most {rule.max:{sign}g}"


def _met(rule: Rule, value: float) -> bool:
    return _margin(rule, value, value) >= 0


def _margin(rule: Rule, low: float, high: float) -> float:
    """How far all of an interval is within the limit; below 0 if some of it is not."""
    return low - rule.min if rule.min is not None else (rule.max or 0.0) - high


def _told(rule: Rule, low: float, high: float) -> tuple[Verdict, str]:
    if _margin(rule, low, high) >= 0:
        return "pass", "is"
    if _margin(rule, high, low) < 0:
        return "fail", "is not"
    return "inconclusive", "may or may not be"


def main() -> None:
    p = params.load()
    theirs = None if p.gate.champion == NONE else champion.predictions(p.gate.champion)
    judge = Judge(
        read_json(METRICS),
        read_parquet(PREDICTIONS),
        theirs,
        p.evaluate.calibration_bins,
        p.evaluate.bootstrap,
        p.evaluate.seed,
    )
    verdict = judged(judge, p.gate.rules, p.gate.on_inconclusive)
    write_json(GATES, verdict)
    for gate in verdict["gates"]:
        counts = {True: "pass", False: "FAIL"}[gate["passed"]]
        cli.say(f"gate: {counts}  {gate['why']}")


if __name__ == "__main__":
    cli.stage(main)
