"""What `make serve` keeps up to date in Prefect: work pool, deployments of prefect.yaml, automations."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from httpx import Response, codes
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows import server
from flows.working_copy import SERVICE_LOCK, is_locked
from tasks.core.base import console
from tasks.core.base.errors import DarkroomError, brief

POOL = "darkroom"
AUTOMATIONS = Path("automations.yaml")
PULL_STEP = "prefect.deployments.steps.set_working_directory"
PLANNING = 15  # seconds that the server has to plan its next runs


def deploy() -> None:
    """Makes the work pool, the deployments and the automations, or brings them up to date.

    Raises:
        DarkroomError: prefect.yaml or automations.yaml has a slip, or another working copy is served.
    """
    with get_client(sync_client=True) as client:
        check_unserved(client)
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        for wanted in automations(client):
            create_or_update(client, wanted)
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise DarkroomError(f"prefect.yaml can't be deployed: {complaint(done.stdout)}")


def complaint(said: str) -> str:
    """What Prefect's command has against a deployment, with its name where that isn't told."""
    cause = said.rpartition("╯")[2].partition("For further")[0]  # below the frame of a summary
    if "Traceback" not in cause:
        return brief(cause)
    names = re.findall(r"│ Deploying (.+?) +│", said)
    return ": ".join([*names[-1:], server.last_error(cause)])


def check_unserved(client: SyncPrefectClient) -> None:
    """Sees that no other working copy is served: its deployments, of the same names, would become ours.

    Raises:
        DarkroomError: one is, by this server or with its database.
    """
    for known in client.read_deployments():
        for step in known.pull_steps or ():
            place = (step.get(PULL_STEP) or {}).get("directory") or "."
            folder = Path(str(place)).resolve()
            if folder != Path.cwd().resolve() and is_locked(folder / SERVICE_LOCK):
                raise DarkroomError(
                    f"{known.name} is served from {folder}; end that, or set PREFECT_HOME and another port"
                )


def create_or_update(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Brings one automation to the server.

    Raises:
        DarkroomError: the server knows better than its client what is wrong with it, as in a template.
    """
    try:
        if known := client.read_automations_by_name(wanted.name):
            client.update_automation(known[0].id, wanted)
        else:
            client.create_automation(wanted)
    except PrefectHTTPStatusError as error:
        if error.response.status_code != codes.UNPROCESSABLE_ENTITY:
            raise
        raise DarkroomError(f"{AUTOMATIONS}: {wanted.name}: {refusal(error.response)}") from None


def refusal(response: Response) -> str:
    """What Prefect's server finds wrong with what it was sent."""
    try:
        return brief(slip(response.json()["exception_detail"]))
    except (ValueError, LookupError, TypeError):  # it says so otherwise
        return brief(response.text)


def slip(errors: Sequence[Mapping[str, Any]]) -> str:
    """The place, the value and the message of the first of pydantic's errors that is of use.

    All that an action may be says what it lacks; of use is what the type named there says.
    """
    others = {tuple(one["loc"][:-1]) for one in errors if one["type"] == "literal_error"}
    first = next((one for one in errors if tuple(one["loc"][:-1]) not in others), errors[0])
    place = ".".join(str(part) for part in first["loc"])
    value = f" is {first['input']!r}" if isinstance(first["input"], str) else ""
    return f"{place}{value}: {first['msg']}"


def automations(client: SyncPrefectClient) -> Iterator[AutomationCore]:
    """Reads automations.yaml.

    Raises:
        DarkroomError: it has a slip, or names a block that is not there.
    """
    name = "it"
    try:
        for number, one in enumerate(entries(), 1):
            name = str(one.get("name") or f"number {number}")
            for action in one.get("actions") or ():
                if isinstance(action, dict) and (block := action.get("block_document_id")):
                    action["block_document_id"] = block_id(client, str(block))
            yield AutomationCore.model_validate(one)
    except ValidationError as error:
        raise DarkroomError(f"{AUTOMATIONS}: {name}: {slip(error.errors())}") from None
    except (OSError, AttributeError, TypeError, KeyError, YAMLError) as error:
        raise DarkroomError(f"{AUTOMATIONS}: {name} can't be used: {brief(error)}") from None


def entries() -> list[dict[str, Any]]:
    """What automations.yaml lists.

    Raises:
        DarkroomError: it has another form.
    """
    content = YAML(typ="safe").load(AUTOMATIONS)
    listed = content.get("automations") if isinstance(content, dict) else None
    if isinstance(listed, list) and all(isinstance(one, dict) for one in listed):
        return listed
    raise DarkroomError(
        f"{AUTOMATIONS} must have `automations:` and below it a list, each with name, trigger and actions; "
        "give [] for none"
    )


def block_id(client: SyncPrefectClient, block: str) -> str:
    """The id of a block that is named by TYPE/NAME, as `prefect block ls` does it, or by its id."""
    kind, _, name = block.partition("/")
    try:
        if name:
            return str(client.read_block_document_by_name(name, kind).id)
        return str(client.read_block_document(UUID(block)).id)
    except (ObjectNotFound, ValueError):
        raise DarkroomError(
            f"{AUTOMATIONS} names the block {block}, but there is none; see `prefect block ls`"
        ) from None


def print_next_runs() -> None:
    """Says when each deployment runs next; the server needs a moment to plan that."""
    facts = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"after_": datetime.now(UTC)}}
    planned = FlowRunFilter.model_validate(facts)
    end = time.monotonic() + PLANNING
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            if deployment.paused or not any(one.active for one in deployment.schedules):
                continue
            soonest = partial(
                client.read_flow_runs,
                deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [deployment.id]}}),
                flow_run_filter=planned,
                sort=FlowRunSort.EXPECTED_START_TIME_ASC,
                limit=1,
            )
            while not (runs := soonest()) and time.monotonic() < end:
                time.sleep(0.5)
            for run in runs:
                assert run.expected_start_time
                due = run.expected_start_time.astimezone()
                console.say(f"serve: {deployment.name} runs next on {due:%a %d %b, %H:%M}")
