"""What others may want to hear of, as Prefect events; an automation makes a message or a run of them.

darkroom.run.failed     a run of a flow failed or crashed
darkroom.run.rejected   a gate or an artifact's check said no
darkroom.drift          new images are not what the model was made with
"""

import os
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect._internal import analytics
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event

from tasks.core.base.paths import PAGE

REPORTS_URL = "DARKROOM_REPORTS_URL"  # where reports/ can be looked at, if it is served somewhere
FAILED, REJECTED, DRIFT = "darkroom.run.failed", "darkroom.run.rejected", "darkroom.drift"

# Prefect tells its makers of a first flow in a terminal. DO_NOT_TRACK keeps it from that, but not from
# writing the id of a device into the user's home.
analytics.try_mark_milestone = lambda milestone: False  # noqa: ARG005 (it is called by that name)


def emit_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A state hook: says that a run ended badly, in a payload of `flow`, `run`, `state` and `message`."""
    emit_event(
        REJECTED if state.name == "Rejected" else FAILED,
        resource={
            "prefect.resource.id": f"darkroom.run.{flow_run.id}",
            "prefect.resource.name": flow_run.name,
        },
        payload={"flow": flow.name, "run": flow_run.name, "state": state.name, "message": state.message},
    )


def emit_drift(folder: Path, result: dict[str, Any], retrain: bool) -> None:
    """Says that the images of a folder have drifted.

    Args:
        result: of `tasks.drift`; the payload has its `pictures` and, as `message`, what has drifted.
        retrain: a label of the event, which the trigger of the deployment `nightly` looks for.
    """
    causes = [check["why"] for check in result["checks"] if check["drifted"]]
    emit_event(
        DRIFT,
        resource={
            "prefect.resource.id": f"darkroom.pictures.{folder}",
            "prefect.resource.name": folder.name,
            "darkroom.retrain": str(retrain).lower(),
        },
        payload={"folder": str(folder), "pictures": result["pictures"], "message": "; ".join(causes)},
    )


def address(page: Path) -> str:
    """Where a page of reports/ can be read: where that is served, else the file on this machine."""
    base = os.environ.get(REPORTS_URL)
    return f"{base.rstrip('/')}/{page.relative_to(PAGE.parent)}" if base else page.resolve().as_uri()
