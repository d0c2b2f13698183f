"""Stage `verdict`: ends the run with exit 1 if a gate or a required artifact said no.

It is the last stage, so that metrics, predictions, gates and the report are written and locked by
then: the run has failed, and everything is there to see why.
"""

from typing import Any

from tasks.core.base import cli, console
from tasks.core.base.errors import Rejected
from tasks.core.base.files import read_json
from tasks.core.base.paths import ARTIFACT_FACTS, EXPORT, GATES, PAGE
from tasks.core.evaluation.rejection import left_out, rejection_reasons


def check(gates: dict[str, Any], artifacts: dict[str, Any]) -> None:
    """Lets a model pass whose gates and artifacts all did.

    Raises:
        Rejected: names each gate or artifact at fault, its value and its threshold.
    """
    if found := rejection_reasons(gates["gates"], artifacts):
        raise Rejected(f"rejected: {'; '.join(found)}; {PAGE} shows what the model gets wrong")


def main() -> None:
    artifacts = read_json(EXPORT / ARTIFACT_FACTS)["artifacts"]
    check(read_json(GATES), artifacts)
    for line in left_out(artifacts):
        console.warn(f"verdict: {line}")
    console.say(f"verdict: passed; the artifacts are in {EXPORT}/, the report is {PAGE}")


if __name__ == "__main__":
    cli.stage(main)
