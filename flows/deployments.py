"""What `make serve` keeps up to date in Prefect: work pool, deployments of prefect.yaml, automations."""

import ast
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from httpx import codes
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import State
from prefect.client.schemas.responses import DeploymentResponse
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
DEPLOYMENTS = Path("prefect.yaml")
AUTOMATIONS = Path("automations.yaml")
PULL_STEP = "prefect.deployments.steps.set_working_directory"
ANSWER = re.compile(r" - Response: (\{.*\})(?: - |$)", re.MULTILINE)  # as its client tells what a server said
WIDE = "500"  # columns, so that it breaks no line
AT_WORK = ["PENDING", "RUNNING", "CANCELLING"]  # states in which a run has a process
PLANNING = 15  # seconds that the server has to plan its next runs


def deploy() -> None:
    """Makes work pool, deployments and automations what the files say, and removes those they had before.

    Raises:
        DarkroomError: prefect.yaml or automations.yaml has a slip, or another working copy is served.
    """
    with get_client(sync_client=True) as client:
        check_unserved(client)
        listed = deployments()
        wanted = list(automations(client))
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        for one in wanted:
            create_or_update(client, one)
        remove_automations(client, {one.name for one in wanted})
        if listed:
            deploy_all()
        remove_deployments(client, {str(one["name"]): one for one in listed})


def deployments() -> list[dict[str, Any]]:
    """What prefect.yaml lists, but for what has no name, which Prefect passes over.

    Raises:
        DarkroomError: it can't be read, or two have one name, or two schedules of one.
    """
    parts = "name, entrypoint and work_pool"
    listed = [one for one in entries(DEPLOYMENTS, "deployments", parts) if one.get("name") is not None]
    refuse_twins(str(DEPLOYMENTS), (one["name"] for one in listed))
    for one in listed:
        slugs = (each["slug"] for each in schedules(one) if isinstance(each, dict) and each.get("slug"))
        refuse_twins(f"{DEPLOYMENTS}: {one['name']}.schedules", slugs)
    return listed


def refuse_twins(place: str, names: Iterable[Any]) -> None:
    """Sees that no name is there twice: the one would be made, and the other be made of it."""
    twice = [name for name, count in Counter(map(str, names)).items() if count > 1]
    if twice:
        raise DarkroomError(f"{place} names {twice[0]} twice; give each a name of its own, or remove one")


def deploy_all() -> None:
    """Has Prefect make or update the deployments of prefect.yaml."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        check=False,
        text=True,
        env=os.environ | {"COLUMNS": WIDE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise DarkroomError(f"{DEPLOYMENTS} can't be deployed: {complaint(done.stdout)}")


def remove_deployments(client: SyncPrefectClient, listed: Mapping[str, Mapping[str, Any]]) -> None:
    """Removes what prefect.yaml has no more: deployments of this folder, and schedules of those it has.

    Args:
        listed: what it has, by name. Where a name is a template, nobody here knows what is another's.

    Raises:
        DarkroomError: a flow has no such parameter as it is to be given.
    """
    if "{{" in str(list(listed)):
        return
    for known in filter(runs_here, client.read_deployments()):
        if known.name in listed:
            check_parameters(known, listed[known.name])
            remove_schedules(client, known, schedules(listed[known.name]))
        elif known.work_pool_name == POOL:  # else somebody's own
            client.delete_resource_owned_automations(f"prefect.deployment.{known.id}")  # of its triggers
            client.delete_deployment(known.id)
            console.say(f"serve: {known.name} isn't in {DEPLOYMENTS}; removed")


def check_parameters(known: DeploymentResponse, entry: Mapping[str, Any]) -> None:
    """Sees that the flow has the parameters that it is to be given; Prefect's runs end by a traceback else.

    Raises:
        DarkroomError: it has no such one.
    """
    there = (known.parameter_openapi_schema or {}).get("properties", {})
    for giver in (entry, *schedules(entry), *(entry.get("triggers") or ())):
        given = giver.get("parameters") if isinstance(giver, dict) else None
        unknown = [name for name in given if name not in there] if isinstance(given, dict) else []
        if unknown:
            raise DarkroomError(
                f"{DEPLOYMENTS}: {known.name}: the flow has no parameter {unknown[0]!r}; "
                f"it has {', '.join(there) or 'none'}"
            )


def schedules(entry: Mapping[str, Any]) -> Any:
    """What an entry of prefect.yaml lists below `schedules`, or has below `schedule`, as it was called."""
    return entry.get("schedules") or [one for one in [entry.get("schedule")] if one]


def remove_schedules(client: SyncPrefectClient, known: DeploymentResponse, listed: Any) -> None:
    """Removes a deployment's schedules whose slugs aren't listed; where one has none, Prefect has done so."""
    if "{{" in str(listed):  # nobody here knows what Prefect makes of a template
        return
    slugs = {one.get("slug") for one in listed}
    for one in known.schedules:
        if one.slug and one.slug not in slugs:
            client.delete_deployment_schedule(known.id, one.id)
            console.say(f"serve: {known.name}'s schedule {one.slug} isn't in {DEPLOYMENTS}; removed")


def remove_automations(client: SyncPrefectClient, names: set[str]) -> None:
    """Removes those that an earlier automations.yaml of this folder had, by the tag that it gave them."""
    for known in client.read_automations():
        if mark() in known.tags and known.name not in names:
            client.delete_automation(known.id)
            console.say(f"serve: {known.name} isn't in {AUTOMATIONS}; removed")


def mark() -> str:
    """The tag of automations that come from this folder's file; a user's have none, nor have triggers."""
    return str(AUTOMATIONS.resolve())


def complaint(said: str) -> str:
    """What Prefect's command has against a deployment, with its name where that isn't told."""
    cause = said.rpartition("╯")[2].partition("For further")[0]  # below the frame of a summary
    if "Traceback" not in cause:
        return brief(cause)
    names = re.findall(r"│ Deploying (.+?) +│", said)
    answers = ANSWER.findall(cause)
    why = refusal(ast.literal_eval(answers[-1])) if answers else server.last_error(cause)
    return ": ".join([*names[-1:], why])


def check_unserved(client: SyncPrefectClient) -> None:
    """Sees that no other working copy is served: its deployments, of the same names, would become ours.

    Raises:
        DarkroomError: one is, by this server or with its database.
    """
    for known in client.read_deployments():
        for folder in folders(known):
            if folder != Path.cwd().resolve() and is_locked(folder / SERVICE_LOCK):
                raise DarkroomError(
                    f"{known.name} is served from {folder}; end that, or set PREFECT_HOME and another port"
                )


def folders(known: DeploymentResponse) -> Iterator[Path]:
    """The working copies that a deployment runs in: one, or none if it gets its code otherwise."""
    for step in known.pull_steps or ():
        if directory := (step.get(PULL_STEP) or {}).get("directory"):
            yield Path(str(directory)).resolve()


def runs_here(known: DeploymentResponse) -> bool:
    """Whether a deployment runs in this working copy."""
    return Path.cwd().resolve() in folders(known)


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
        raise DarkroomError(f"{AUTOMATIONS}: {wanted.name}: {refusal(error.response.json())}") from None


def refusal(answer: dict[str, Any]) -> str:
    """What Prefect's server finds wrong with what it was sent."""
    try:
        return brief(slip(answer["exception_detail"]))
    except (LookupError, TypeError):  # it says so otherwise
        return brief(answer.get("detail", answer))


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
        listed = entries(AUTOMATIONS, "automations", "name, trigger and actions")
        refuse_twins(str(AUTOMATIONS), (one["name"] for one in listed if "name" in one))
        for number, one in enumerate(listed, 1):
            name = str(one.get("name") or f"number {number}")
            for action in one.get("actions") or ():
                if isinstance(action, dict) and (block := action.get("block_document_id")):
                    action["block_document_id"] = block_id(client, str(block))
            automation = AutomationCore.model_validate(one)
            yield automation.model_copy(update={"tags": [*automation.tags, mark()]})
    except ValidationError as error:
        raise DarkroomError(f"{AUTOMATIONS}: {name}: {slip(error.errors())}") from None
    except (AttributeError, TypeError, KeyError) as error:
        raise DarkroomError(f"{AUTOMATIONS}: {name} can't be used: {brief(error)}") from None


def entries(file: Path, key: str, parts: str) -> list[dict[str, Any]]:
    """What a file lists below `key`, each with these parts.

    Raises:
        DarkroomError: it can't be read, or has another form.
    """
    try:
        content = YAML(typ="safe").load(file)
    except (OSError, ValueError, YAMLError) as error:
        raise DarkroomError(f"{file} can't be used: {brief(error)}") from None
    listed = content.get(key) if isinstance(content, dict) else None
    if isinstance(listed, list) and all(isinstance(one, dict) for one in listed):
        return listed
    raise DarkroomError(f"{file} must have `{key}:` and below it a list, each with {parts}; give [] for none")


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


def end_runs(state: State[Any], spared: Collection[str] = ()) -> None:
    """Gives a last state to the runs of this folder's deployments that Prefect takes for being at work.

    Args:
        spared: ids of runs that are.
    """
    with get_client(sync_client=True) as client:
        here = [one.id for one in client.read_deployments() if runs_here(one)]
        runs = client.read_flow_runs(
            deployment_filter=DeploymentFilter.model_validate({"id": {"any_": here}}),
            flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": AT_WORK}}}),
        )
        for run in runs:
            if str(run.id) not in spared:
                client.set_flow_run_state(run.id, state, force=True)


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
