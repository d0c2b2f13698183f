"""What others may want to hear of, as Prefect events; an automation makes a message or a run of them.

darkroom.run.failed     a run of a flow failed or crashed
darkroom.run.rejected   a gate or an artifact's check said no
darkroom.drift          new pictures are not what the model was made with
"""

from __future__ import annotations

from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event

FAILED, REJECTED, DRIFT = "darkroom.run.failed", "darkroom.run.rejected", "darkroom.drift"


def tell(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A state hook: says that a run ended badly, and why, in a payload of `name`, `state` and `message`."""
    event = REJECTED if state.name == "Rejected" else FAILED
    said = {"flow": flow.name, "run": flow_run.name, "state": state.name, "message": state.message}
    _emit(event, f"darkroom.flow-run.{flow_run.id}", flow_run.name, said)


def _emit(event: str, resource: str, name: str, payload: dict[str, Any], **labels: str) -> None:
    emit_event(
        event,
        resource={"prefect.resource.id": resource, "prefect.resource.name": name} | labels,
        payload=payload,
    )
