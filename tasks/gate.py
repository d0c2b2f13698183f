"""Stage `gate`: holds the metrics against the rules of params.yaml.

It writes the verdict and ends well whatever the verdict is: DVC keeps the outputs of stages that
end well only, and a person wants to look at a rejected model too. Stage `verdict`, the last one,
is where a no ends the run.
"""

from __future__ import annotations

from typing import Any

from tasks.core import cli, params
from tasks.core.errors import ParamError
from tasks.core.paths import GATES, METRICS
from tasks.core.serialize import read_json, write_json


def judge(metrics: dict[str, Any], rules: tuple[params.Rule, ...]) -> dict[str, Any]:
    """Gives what `gates.json` holds.

    Args:
        metrics: as in `metrics.json`; a rule names one of its numbers by a dotted path.

    Raises:
        ParamError: a rule names a number that is not there.
    """
    numbers = flat(metrics)
    gates = [_judged(place, rule, numbers) for place, rule in enumerate(rules)]
    return {"passed": all(gate["passed"] for gate in gates), "gates": gates}


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """All numbers of nested dicts by their dotted paths."""
    result: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)):
            result[prefix + key] = value
    return result


def _judged(place: int, rule: params.Rule, numbers: dict[str, float]) -> dict[str, Any]:
    if rule.metric not in numbers:
        known = ", ".join(name for name in numbers if not name.startswith("per_class."))
        raise ParamError(
            f"gate.rules.{place}.metric is {rule.metric!r}, which was not measured; "
            f"there are {known} and per_class.<class>.<measure>"
        )
    value = numbers[rule.metric]
    low, high = rule.min, rule.max
    passed = (low is None or value >= low) and (high is None or value <= high)
    threshold = low if low is not None else high
    limit = "at least" if low is not None else "at most"
    verdict = "is" if passed else "is not"
    return {
        "name": rule.metric,
        "value": value,
        "threshold": threshold,
        "passed": passed,
        "why": f"{rule.metric} is {value:g}, which {verdict} {limit} {threshold:g}",
    }


def main() -> None:
    p = params.load()
    verdict = judge(read_json(METRICS), p.gate.rules)
    write_json(GATES, verdict)
    for gate in verdict["gates"]:
        cli.say(f"gate: {'pass' if gate['passed'] else 'FAIL'}  {gate['why']}")


if __name__ == "__main__":
    cli.stage(main)
