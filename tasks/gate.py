"""Stage `gate`: holds a model against the rules of params.yaml.

It writes the verdict and ends with exit code 0 whatever that is: DVC keeps the outputs of stages that
succeed only, and a person wants to look at a rejected model too. Stage `verdict`, the last one,
is where a no ends the run.
"""

from dataclasses import dataclass

from tasks.core.base import cli, console, params
from tasks.core.base.files import read_json, write_json
from tasks.core.base.paths import GATES, METRICS, PREDICTIONS
from tasks.core.data.parquet import read_parquet
from tasks.core.evaluation import gates
from tasks.core.evaluation.config import NONE, Evaluate, Gate
from tasks.core.release import champion


@dataclass(frozen=True)
class Params(params.Section):
    evaluate: Evaluate
    gate: Gate


def main() -> None:
    p = params.load(Params)
    evaluator = gates.GateEvaluator(
        read_json(METRICS),
        read_parquet(PREDICTIONS),
        None if p.gate.champion == NONE else champion.predictions(p.gate.champion),
        p.evaluate,
    )
    verdict = gates.evaluate_gates(evaluator, p.gate.rules, p.gate.on_inconclusive)
    write_json(GATES, verdict)
    for gate in verdict["gates"]:
        console.say(f"gate: {'pass' if gate['passed'] else 'FAIL'}  {gate['why']}")


if __name__ == "__main__":
    cli.stage(main)
