"""What a model must reach: rules held against what was measured, a baseline or a champion."""

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

import pandas as pd

from tasks.core.base.arrays import rounded
from tasks.core.base.errors import ParamError
from tasks.core.base.files import flat
from tasks.core.base.paths import METRICS
from tasks.core.evaluation import estimates, metrics, predictions
from tasks.core.evaluation.config import CHAMPION, Evaluate, Rule
from tasks.core.evaluation.metrics import Answers

Verdict = Literal["pass", "fail", "inconclusive"]
MAX_NAMES = 5  # names that a message gives


@dataclass(frozen=True)
class Outcome:
    """What a rule came to; there is no value where there is nothing to judge."""

    verdict: Verdict
    name: str
    why: str
    value: float | None = None
    interval: tuple[float, float] | None = None  # at 95 %, of a change

    def margin(self, rule: Rule) -> float:
        """How far within the limit all of it is; below 0 if some of it is not."""
        if self.value is None:
            return -math.inf
        return rule.margin(*(self.interval or (self.value, self.value)))


@dataclass(frozen=True)
class GateEvaluator:
    """Everything that rules are held against.

    measured: as in `metrics.json`.
    candidate: the table of predictions.
    champion: that of the champion, if there is one.
    p: bins, resamples, seed, and the images that a bootstrap needs, as a slice does (`min_slice`).
    """

    measured: dict[str, Any]
    candidate: pd.DataFrame
    champion: pd.DataFrame | None
    p: Evaluate

    def outcome(self, place: int, rule: Rule) -> Outcome:
        """Holds the model against one rule.

        Raises:
            ParamError: the rule names a number or a slice that is not there.
        """
        if rule.against == CHAMPION and self.champion is None:
            why = "no champion is named (gate.champion); a promotion compares with the one in its stage"
            return Outcome("pass", _name(rule), f"{_name(rule)}: {why}")
        if rule.slice == "worst":
            return self._worst(place, rule)
        if rule.slice and (few := self._too_few(place, rule.slice)):
            return Outcome("inconclusive", _name(rule), f"{_name(rule)}: {few}")
        return self._change(rule) if rule.against else self._level(place, rule)

    def _level(self, place: int, rule: Rule) -> Outcome:
        value: float | None
        if rule.slice:
            part = predictions.answers(self._part(rule))
            value = rounded(_metric(rule).of(part, self.p.calibration_bins))
        else:
            value = self._number(place, rule)
        if value is None:
            row, _, _ = rule.metric.rpartition(".")
            why = flat(self.measured)[f"{row}.why"]
            return Outcome("inconclusive", _name(rule), f"{_name(rule)} is not defined: {why}")
        met = rule.margin(value, value) >= 0
        return Outcome(
            "pass" if met else "fail",
            _name(rule),
            f"{_name(rule)} is {value:.6g}, which {'is' if met else 'is not'} {rule.said('g')}",
            value,
        )

    def _number(self, place: int, rule: Rule) -> float | None:
        """What was measured; none where that is not defined."""
        known: dict[str, float | None] = {
            name: value
            for name, value in flat(self.measured).items()
            if value is None or type(value) in (int, float)
        }
        if rule.metric not in known:
            near = _near(rule.metric, list(known))
            raise ParamError(f"gate.rules.{place}.metric is {rule.metric!r}, which was not measured; {near}")
        return known[rule.metric]

    def _change(self, rule: Rule) -> Outcome:
        """Judges a change by its interval: all of it within the limit, or all beyond."""
        candidate, reference = self._pair(rule)
        name, n, metric = _name(rule), len(candidate), _metric(rule)
        exact = metric.hits and not rule.relative  # such an interval knows how few there are
        if n < (1 if exact else self.p.min_slice):
            few = f"{n} test images that both have answered are too few to tell (evaluate.min_slice)"
            return Outcome("inconclusive", name, f"{name}: {few}")
        before, after = (metric.of(answers, self.p.calibration_bins) for answers in (reference, candidate))
        settings = (self.p.calibration_bins, self.p.bootstrap, self.p.seed)
        change, (low, high) = estimates.change(candidate, reference, metric, rule.relative, *settings)
        if math.isnan(change) or math.isnan(low):
            zero = "is 0" if before == 0 else "is 0 in many resamples of the images"
            why = f"{name}: a share of {rule.against}'s, which {zero}, says nothing"
            return Outcome("inconclusive", name, why)
        verdict, says = _verdict(rule, low, high)
        why = (
            f"{name}: {before:.6g} becomes {after:.6g}, a {'relative ' if rule.relative else ''}change of "
            f"{change:+.4g} (95 %: {low:+.4g} to {high:+.4g}; {n} images), which {says} {rule.said('+g')}"
        )
        return Outcome(verdict, name, why, change, (low, high))

    def _pair(self, rule: Rule) -> tuple[Answers, Answers]:
        """Our answers and those that they are held against, to the same images in the same order."""
        part = self._part(rule)
        if rule.against != CHAMPION:
            return predictions.answers(part), predictions.baseline(part, str(rule.against))
        assert self.champion is not None
        reference = predictions.another(self.champion, part)
        candidate = predictions.another(part, reference)
        return predictions.answers(candidate), predictions.answers(reference)

    def _worst(self, place: int, rule: Rule) -> Outcome:
        """The outcome of the slice that is worst off, of all that are judged; what fails goes first."""
        large = [name for name, (_, _, fact) in self._cells().items() if fact["judged"]]
        found = [self.outcome(place, replace(rule, slice=name)) for name in large]
        if not found:
            return Outcome("pass", _name(rule), f"{_name(rule)}: there is no slice to judge")
        order = ("fail", "inconclusive", "pass")
        worst = min(found, key=lambda outcome: (order.index(outcome.verdict), outcome.margin(rule)))
        return replace(worst, why=f"{worst.why} (the worst of {len(found)} slices that are judged)")

    def _cells(self) -> dict[str, tuple[str, str, dict[str, Any]]]:
        """The kind, the value and the facts of each slice, by the name that rules give it."""
        return {
            f"{kind}={cell}": (kind, cell, fact)
            for kind, cells in self.measured["slices"].items()
            for cell, fact in cells.items()
        }

    def _too_few(self, place: int, name: str) -> str | None:
        cells = self._cells()
        if name not in cells:
            raise ParamError(f"gate.rules.{place}.slice is {name!r}; {_near(name, list(cells))}")
        fact = cells[name][2]
        return None if fact["judged"] else f"its {fact['n']} images are too few to judge (evaluate.min_slice)"

    def _part(self, rule: Rule) -> pd.DataFrame:
        if not rule.slice:
            return self.candidate
        kind, cell, _ = self._cells()[rule.slice]
        return self.candidate[self.candidate[predictions.SLICE + kind] == cell].reset_index(drop=True)


def evaluate_gates(
    evaluator: GateEvaluator, rules: tuple[Rule, ...], on_inconclusive: Literal["pass", "fail"]
) -> dict[str, Any]:
    """Gives what `gates.json` holds."""
    gates = []
    for place, rule in enumerate(rules):
        outcome = evaluator.outcome(place, rule)
        passed = outcome.verdict == "pass" or (outcome.verdict, on_inconclusive) == ("inconclusive", "pass")
        gates.append(
            {
                "name": outcome.name,
                "value": None if outcome.value is None else rounded(outcome.value),
                "threshold": rule.threshold,
                "passed": passed,
                "verdict": outcome.verdict,
                "interval_95": outcome.interval and [rounded(end) for end in outcome.interval],
                "why": outcome.why,
            }
        )
    return {"passed": all(gate["passed"] for gate in gates), "gates": gates}


def _near(name: str, known: list[str]) -> str:
    """Which names are meant, or else some of those that there are."""
    if meant := get_close_matches(name, known, MAX_NAMES):
        return f"did you mean {' or '.join(meant)}?"
    more = f" and {len(known) - MAX_NAMES} more in {METRICS}" if len(known) > MAX_NAMES else ""
    return f"there are {', '.join(known[:MAX_NAMES]) or 'none'}{more}"


def _metric(rule: Rule) -> metrics.Metric:
    return metrics.METRICS[rule.metric.removeprefix("test.")]


def _name(rule: Rule) -> str:
    part = f" of {'the worst slice' if rule.slice == 'worst' else rule.slice}" if rule.slice else ""
    return f"{rule.metric}{part}{f' against {rule.against}' if rule.against else ''}"


def _verdict(rule: Rule, low: float, high: float) -> tuple[Verdict, str]:
    if rule.margin(low, high) >= 0:
        return "pass", "is"
    if rule.margin(high, low) < 0:
        return "fail", "is not"
    return "inconclusive", "may or may not be"
