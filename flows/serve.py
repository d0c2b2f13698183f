"""Serves the pipeline on this machine: Prefect's server and UI, the deployments of prefect.yaml, a worker.

  make serve

Ctrl-c ends it all. Nothing listens beyond loopback. A server that is there already is used as it is.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psutil
import zc.lockfile
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows import repo, server
from flows.children import started
from flows.events import REPORTS_URL
from tasks.core.base import cli, console, process
from tasks.core.base.errors import DarkroomError, brief
from tasks.core.base.paths import PAGE

POOL = "darkroom"
AUTOMATIONS = Path("automations.yaml")
LOCK, LOG = Path(".dvc/tmp/serve.lock"), Path(".dvc/tmp/server.log")  # DVC keeps them out of git
PLANNING = 15  # seconds that the server has to plan its next runs
REPORTS_PORT = 4201
SOON, TRIES = 20, 3  # seconds of a short life, and how many of them end it all
GRACE = 30  # seconds that a worker has to end its runs


@dataclass
class Child:
    """A process that is started again when it ends."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]
    since: float
    short_lives: int = 0  # in a row


def main() -> int:
    cli.parser(__doc__).parse_args()
    address = own_address()
    # What a worker that is ended leaves in its temporary folder goes with ours.
    with alone(address), TemporaryDirectory(prefix="darkroom-") as folder, ended() as children:
        reports = served_reports()
        os.environ |= {server.URL: address, REPORTS_URL: reports, "PWD": str(Path.cwd())}
        key = server.key()
        LOG.unlink(missing_ok=True)
        if server.is_up(address):
            console.say(f"serve: {ui(address)} is there already, and used as it is")
        else:
            begin(children, "the server", partial(started_server, address))
        with temporary_settings({PREFECT_API_URL: address, PREFECT_API_AUTH_STRING: key}):
            prepare()
            words = ("prefect", "worker", "start", "--pool", POOL, "--name", worker_name())
            begin(children, "the worker", partial(started, *words, env=os.environ | {"TMPDIR": folder}))
            console.say(f"serve: the UI is at {ui(address)}, the reports at {reports}")
            tell_next_runs()
        console.say("serve: ctrl-c ends it")
        return watch(children)


def own_address() -> str:
    """Where to serve.

    Raises:
        DarkroomError: the server that is named is another machine's.
    """
    address = server.url() or "http://127.0.0.1:4200/api"
    if urlsplit(address).hostname not in server.LOOPBACK:
        raise DarkroomError(
            f"{address} is not on this machine, which is all that is served here; for that server's work "
            f"`prefect deploy --all`, then `prefect worker start --pool {POOL}`"
        )
    return address


def ui(address: str) -> str:
    return address.removesuffix("/api")


def worker_name() -> str:
    return f"{socket.gethostname()}-{Path.cwd().name}"


@contextmanager
def alone(address: str) -> Iterator[None]:
    """Lets one of us into a working copy; another one has nothing to do, and says so."""
    try:
        lock = repo.locked(LOCK)
    except zc.lockfile.LockError:
        console.say(
            f"serve: this folder is served already, by process {LOCK.read_text().strip()}: {ui(address)}"
        )
        sys.exit(0)
    try:
        yield
    finally:
        lock.close()


@contextmanager
def ended() -> Iterator[list[Child]]:
    """Gives a place for child processes, and ends them: the one that came last goes first."""
    children: list[Child] = []
    try:
        yield children
    finally:
        process.ignore_signals()
        for child in reversed(children):
            end(child.process)
            end_orphans()  # while the server is there, to be told


def begin(children: list[Child], name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
    children.append(Child(name, start, start(), time.monotonic()))


def end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)


def end_orphans() -> None:
    """Ends runs whose worker was killed, and which went on."""
    runs = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            ours = one.environ().get(server.URL) == os.environ[server.URL] and one.cwd() == str(Path.cwd())
            if ours and "prefect.engine" in one.cmdline():
                one.terminate()
                runs.append(one)
    for one in psutil.wait_procs(runs, GRACE)[1]:
        one.kill()


def started_server(address: str) -> subprocess.Popen[bytes]:
    """Starts the server, and waits until it answers.

    Raises:
        DarkroomError: its port is another program's, or it can't start.
    """
    port = urlsplit(address).port or 80
    with socket.socket() as one, suppress(OSError):
        one.connect(("127.0.0.1", port))
        raise DarkroomError(
            f"port {port} is another program's, and no Prefect server; name another in prefect.toml, api.url"
        )
    with LOG.open("ab") as file:
        child = server.launch(port, file)
    console.say(f"serve: starting Prefect's server on port {port}; {LOG} has what it says")
    try:
        server.wait(address, child, lambda: LOG.read_text(errors="replace"))
    except BaseException:
        end(child)
        raise
    return child


def prepare() -> None:
    """Makes the work pool, the deployments and the automations, or brings them up to date.

    Raises:
        DarkroomError: prefect.yaml or automations.yaml has a slip.
    """
    with get_client(sync_client=True) as client:
        make_pool(client)
        for wanted in automations(client):
            make_automation(client, wanted)
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        cause = done.stdout.rpartition("╯")[2].partition("For further")[0]  # below the frame of a summary
        raise DarkroomError(f"prefect.yaml can't be deployed: {brief(cause)}")


def make_pool(client: SyncPrefectClient) -> None:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))


def automations(client: SyncPrefectClient) -> Iterator[AutomationCore]:
    """Reads automations.yaml.

    Raises:
        DarkroomError: it has a slip, or names a block that is not there.
    """
    name = "it"
    try:
        for one in YAML(typ="safe").load(AUTOMATIONS)["automations"]:
            name = one["name"]
            for action in one["actions"]:
                if block := action.get("block_document_id"):
                    action["block_document_id"] = block_id(client, str(block))
            yield AutomationCore.model_validate(one)
    except ValidationError as error:
        # All that an action may be says what it lacks; of use is what the type named there says.
        others = {one["loc"][:-1] for one in error.errors() if one["type"] == "literal_error"}
        first = next((one for one in error.errors() if one["loc"][:-1] not in others), error.errors()[0])
        place = ".".join(str(part) for part in first["loc"])
        value = f" is {first['input']!r}" if isinstance(first["input"], str) else ""
        raise DarkroomError(f"{AUTOMATIONS}: {name}: {place}{value}: {first['msg']}") from None
    except (OSError, AttributeError, TypeError, KeyError, YAMLError) as error:
        raise DarkroomError(f"{AUTOMATIONS}: {name} can't be used: {brief(error)}") from None


def block_id(client: SyncPrefectClient, block: str) -> str:
    """The id of a block that is named by TYPE/NAME, as `prefect block ls` does it, or by its id.

    Raises:
        DarkroomError: there is none.
    """
    kind, _, name = block.partition("/")
    try:
        found = (
            client.read_block_document_by_name(name, kind)
            if name
            else client.read_block_document(UUID(block))
        )
    except (ObjectNotFound, ValueError):
        raise DarkroomError(
            f"{AUTOMATIONS} names the block {block}, but there is none; see `prefect block ls`"
        ) from None
    return str(found.id)


def make_automation(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Makes an automation, or updates the one of its name."""
    known = client.read_automations_by_name(wanted.name)
    if known:
        client.update_automation(known[0].id, wanted)
    else:
        client.create_automation(wanted)


def served_reports() -> str:
    """Serves reports/ as files, for as long as this process lives; returns the address."""
    handler = partial(_Quiet, directory=str(PAGE.parent.absolute()))
    try:
        reports = ThreadingHTTPServer(("127.0.0.1", REPORTS_PORT), handler)
    except OSError:  # another's port
        reports = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=reports.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{reports.server_port}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing of who has looked at what."""


def tell_next_runs() -> None:
    """Says when each deployment runs next; the server needs a moment to plan that."""
    planned = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"after_": datetime.now(UTC)}),
    )
    end = time.monotonic() + PLANNING
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            if deployment.paused or not any(one.active for one in deployment.schedules):
                continue
            ours = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
            soonest = partial(
                client.read_flow_runs,
                deployment_filter=ours,
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


def watch(children: list[Child]) -> int:
    """Waits for a ctrl-c, and starts again what ends before.

    Raises:
        DarkroomError: one ends as soon as it is started.
    """
    try:
        while True:
            time.sleep(0.5)
            for child in children:
                code = child.process.poll()
                if code is None:
                    continue
                was_short = time.monotonic() - child.since < SOON
                child.short_lives = child.short_lives + 1 if was_short else 0
                if child.short_lives == TRIES:
                    raise DarkroomError(f"{child.name} ends as soon as it starts (exit code {code})")
                console.say(f"serve: {child.name} has ended (exit code {code}), and is started again")
                child.process, child.since = child.start(), time.monotonic()
    except KeyboardInterrupt:
        console.say("serve: ending")
        return 0


if __name__ == "__main__":
    cli.command(main)
