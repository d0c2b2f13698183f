"""Scores a folder of new images, and says whether they are what the model was made with.

  python -m flows.monitor FOLDER

It writes reports/monitor/predictions.parquet and index.html. Drift ends it with exit code 1, and is reported
as the event `darkroom.drift`; with `monitor.retrain_on_drift` that starts the deployment `nightly`.
"""

from flows.run import Run

if __name__ == "__main__":
    run = Run.begin()  # first: it starts a server, which takes as long as all imports that follow

from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import logs, outcome, server, working_copy
from flows.events import address, emit_drift, emit_failure
from flows.outcome import code_of, failed_by, stopped
from tasks import drift, score
from tasks.check import Params
from tasks.core.base import cli, console, params
from tasks.core.base.errors import DarkroomError
from tasks.core.base.files import read_json
from tasks.core.data.listing import images_below
from tasks.core.inference.scoring import MONITORED
from tasks.core.release import deployment

logs.tidy()
DRIFTED = "Drifted"


def run_name() -> str:
    """What a run is about: its folder."""
    return str(runtime.flow_run.parameters.get("folder") or "new images")


@flow(name="monitor", retries=0, flow_run_name=run_name, on_failure=[emit_failure], on_crashed=[emit_failure])
def monitor(folder: str | None = None, model: str | None = None, only_if_there: bool = False) -> State[Any]:
    """Scores a folder and compares it with what the model was made with.

    Args:
        folder: of new images; null: `monitor.images` of params.yaml.
        model: an exported artifact, or a stage, whose version it then is; null: `monitor.model`.
        only_if_there: end at once if `monitor.images` holds none yet.
    """
    Run.current().heed_signals()
    try:
        p = params.read(params.FILE, Params)
        images = Path(folder or p.monitor.images)
        if only_if_there and not folder and not (images.is_dir() and any(images_below(images))):
            return Completed(name="Skipped", message=f"{images} holds no images")
    except DarkroomError as error:
        return failed_by(error)
    # A pipeline at work may be writing the model.
    with working_copy.exclusive_run(get_run_logger().info, wait=True):
        for step in (partial(score_images, model or p.monitor.model, images, p), partial(compare, p)):
            state = step(return_state=True)
            if not state.is_completed():
                outcome.raise_unexpected(state)
                return stopped(state.message or state.name or "", code_of(state))
    result = read_json(MONITORED / drift.RESULT)
    if not result["drifted"]:
        return Completed(message=drift.summary(result))
    emit_drift(images, result, retrain=p.monitor.retrain_on_drift)
    return Completed(name=DRIFTED, message=drift.summary(result))


@task(name="score", retries=0, task_run_name="score", cache_policy=NO_CACHE, persist_result=False)
def score_images(name: str, folder: Path, p: Params) -> State[Any]:
    """Predicts the images; what an earlier run has predicted is not done again."""
    try:
        model = deployment.resolve_model(name, get_run_logger().warning)
        images = Path(p.data.images)
        return Completed(
            message=score.score(model, folder, images, MONITORED, p.monitor.batch_size, p.compute)
        )
    except DarkroomError as error:
        return failed_by(error)


@task(name="compare", retries=0, task_run_name="compare", cache_policy=NO_CACHE, persist_result=False)
def compare(p: Params) -> State[Any]:
    """Compares them with those that the model was made with, and adds what it finds to the run."""
    try:
        result = drift.compare(MONITORED, p.monitor)
    except DarkroomError as error:
        return failed_by(error)
    lines = [f"- {'✗' if check['drifted'] else '✓'} {check['why']}" for check in result["checks"]]
    create_markdown_artifact("\n".join(lines), key="drift", description=drift.summary(result))
    create_link_artifact(address(MONITORED / drift.PAGE), key="drift-report", link_text="Drift report")
    return Completed(message=drift.summary(result))


def main(run: Run) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "folder", type=cli.given, nargs="?", metavar="FOLDER", help="images; default monitor.images"
    )
    parser.add_argument(
        "--model",
        type=cli.given,
        metavar="MODEL",
        help="an artifact of export/, or a stage; default monitor.model",
    )
    parser.add_argument(server.ALONE, action="store_true", help="report to no server that is there")
    given = parser.parse_args()
    with server.reporting(run.server), run.by_hand():
        state = monitor(given.folder, given.model, return_state=True)
    if state.is_completed():
        console.say(f"monitor: {state.message}; {MONITORED / drift.PAGE} shows it")
    return int(state.name == DRIFTED) or outcome.report_failure(state, prefix="monitor: ")


if __name__ == "__main__":
    cli.command(partial(main, run))
