"""`make serve` runs what is deployed, loses nothing when a process of it is killed, and leaves nothing.

The tests share one service, but for that which ends it. Those that kill a part of it, and see it work again,
are the last.
"""

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.browser import in_a_browser
from tests.live import free_ports, held_stage, until, working
from tests.project import Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="relies on the kernel to end children"),
]

STAGES = """
stages:
  first:
    cmd: echo first >> ran.txt; cp source.txt first.txt
    deps: [source.txt]
    outs: [first.txt]
  second:
    cmd: python second.py
    deps: [first.txt]
    outs: [second.txt]
"""
# Where SQLite is locked Prefect's server answers 503, and its clients wait longer from try to try.
PATIENCE = 180  # seconds
SECOND = held_stage("first.txt", "second.txt", "ran.txt", "second\n")


@dataclass
class Service:
    """`flows.serve` in a checkout of two quick stages, of which the second waits while `hold` is there."""

    project: Project
    process: subprocess.Popen[bytes]
    url: str
    log: Path
    renewed: int = 0
    read: int = 0  # characters of the log that are another test's

    @property
    def folder(self) -> Path:
        return self.project.folder

    def prefect(self, *words: str) -> str:
        """What a command of Prefect's prints, which must end well."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *words],
            cwd=self.folder,
            env=environment(self.project),
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def until(self, come: Callable[[], object], seconds: int = PATIENCE) -> None:
        """Waits for something to come; if it doesn't, says what service and server have said."""
        server = self.folder / ".dvc/tmp/server.log"
        until(come, seconds, lambda: f"{self.said()}\n\n{server.read_text()[-3000:]}")

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        request = Request(
            f"{self.url}/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urlopen(request, timeout=10) as response:
            return json.load(response)

    def run(self, identifier: str) -> tuple[str, str]:
        """State and message of a flow run."""
        (found,) = self.ask("flow_runs/filter", {"flow_runs": {"id": {"any_": [identifier]}}})
        return found["state"]["name"], found["state"]["message"] or ""

    def kept(self, identifier: str) -> str:
        """The name of a flow run's state, when the server has ended, in its database."""
        home = environment(self.project)["PREFECT_HOME"]
        with closing(sqlite3.connect(Path(home) / "prefect.db")) as database:
            asked = "SELECT state_name FROM flow_run WHERE replace(id, '-', '') = replace(?, '-', '')"
            return str(database.execute(asked, [identifier]).fetchone()[0])

    def runs(self) -> set[str]:
        """The runs of `nightly` that no schedule has made."""
        found = self.ask("flow_runs/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
        return {one["id"] for one in found if not one["auto_scheduled"]}

    def start(self, deployment: str) -> str:
        """Has a deployment run; returns the run's id."""
        said = self.prefect("deployment", "run", deployment)
        (identifier,) = [line.split()[-1] for line in said.splitlines() if "UUID:" in line]
        return identifier

    def held(self) -> str:
        """Has `nightly` run into its second stage, and stay there; returns the run's id."""
        (self.folder / "hold").touch()
        run = self.start("pipeline/nightly")
        self.until((self.folder / "started").exists)
        return run

    def child(self, words: str) -> psutil.Process:
        """The process that has these words in its command line."""
        everyone = psutil.Process(self.process.pid).children(recursive=True)
        return next(one for one in everyone if words in " ".join(one.cmdline()))

    def renew(self) -> None:
        """Makes the folder what it was before the first run, once no run is at work there."""
        assert self.process.poll() is None, self.log.read_text()
        (self.folder / "hold").unlink(missing_ok=True)
        self.until(lambda: not working(self.folder, "prefect.engine"))
        for name in ("started", "ran.txt", "first.txt", "second.txt", "dvc.lock"):
            (self.folder / name).unlink(missing_ok=True)
        self.renewed += 1  # so that no run, done or failed, is known of what is there now
        (self.folder / "source.txt").write_text(f"{self.renewed}\n")
        (self.folder / "second.py").write_text(SECOND)
        self.read = len(self.log.read_text())

    def said(self) -> str:
        """What the service has said since then."""
        return self.log.read_text()[self.read :]

    def ran(self) -> list[str]:
        return (self.folder / "ran.txt").read_text().split()


def environment(project: Project) -> dict[str, str]:
    return {name: value for name, value in project.environment().items() if name != "PREFECT_API_URL"}


@contextmanager
def served(top: Path) -> Iterator[Service]:
    project = Project.copy(top / "project")
    (port,) = free_ports()
    settings = project.folder / "prefect.toml"
    settings.write_text(settings.read_text("utf-8").replace(":1/", f":{port}/"))
    deployments = project.folder / "prefect.yaml"
    once_a_year = re.sub('cron: "[^"]*"', 'cron: "0 0 1 1 *"', deployments.read_text("utf-8"))
    deployments.write_text(once_a_year, "utf-8")  # a run by the clock would do the work of a test's
    (project.folder / "dvc.yaml").write_text(STAGES)
    (project.folder / "data/digits").mkdir(parents=True, exist_ok=True)
    log = top / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.serve"],
            cwd=project.folder,
            env=environment(project),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    service = Service(project, process, f"http://127.0.0.1:{port}/api", log)
    try:
        until(lambda: "ctrl-c ends it" in log.read_text() or process.poll() is not None, 120)
        assert process.poll() is None, log.read_text()
        yield service
    finally:
        everyone = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
        _, left = psutil.wait_procs(everyone, timeout=10)
        for one in left:
            one.kill()
    assert code == 0, log.read_text()
    assert not left, "ctrl-c ends all of it"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("shared")) as service:
        yield service


@pytest.fixture
def service(shared: Service) -> Service:
    """The one that is shared, with a pipeline that has not run."""
    shared.renew()
    return shared


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """One for a test that ends it."""
    with served(tmp_path) as service:
        service.renew()
        yield service


def test_a_run_whose_worker_was_killed_ends_with_the_service(own_service: Service) -> None:
    service = own_service
    run = service.held()
    service.child("prefect worker start").kill()
    service.until(lambda: "the worker has ended" in service.said())
    waiting = service.start("pipeline/nightly")  # for the end of the other, with a worker
    service.until(lambda: service.run(waiting)[0] == "Running")
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(60) == 0
    service.until(lambda: not working(service.folder), 30)
    assert service.kept(run) in ("Cancelled", "Crashed"), "the last is what it may have said itself"
    assert service.kept(waiting) == "Cancelled"


def test_a_deployment_runs_and_a_second_serve_finds_it_served(service: Service) -> None:
    """The address and the next runs are told; nothing of ours listens beyond loopback."""
    text = service.log.read_text()
    assert service.url.removesuffix("/api") in text
    assert all(f"{name} runs next on" in text for name in ("nightly", "on-new-data", "monitor"))
    assert "Completed" in service.prefect("deployment", "run", "pipeline/nightly", "--watch")
    assert service.ran() == ["first", "second"]
    assert service.project.run("dvc", "status", "--quiet").returncode == 0
    ours = [service.process.pid, *(one.pid for one in psutil.Process(service.process.pid).children(True))]
    sockets = [one for one in psutil.net_connections("tcp") if one.pid in ours and one.status == "LISTEN"]
    assert {str(one.laddr).split("'")[1] for one in sockets} == {"127.0.0.1"}
    assert status_for(service, service.url.removesuffix("/api")) == 200
    assert status_for(service, "https://elsewhere.example") == 403, "no page of another's may start a run"
    events = service.url.replace("http:", "ws:") + "/events/in"
    with connect(events, origin=Origin(service.url.removesuffix("/api"))):
        pass
    with (
        pytest.raises(InvalidStatus, match="403"),
        connect(events, origin=Origin("https://elsewhere.example")),
    ):
        pass
    again = subprocess.run(
        [sys.executable, "-m", "flows.serve"],
        cwd=service.folder,
        env=environment(service.project),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (again.returncode, again.stderr) == (0, "")
    assert f"served already, by process {service.process.pid}" in again.stdout


def status_for(service: Service, origin: str) -> int:
    """What a page of `origin` gets for a question that it posts."""
    headers = {"Origin": origin, "Content-Type": "application/json"}
    try:
        with urlopen(Request(f"{service.url}/deployments/filter", b"{}", headers), timeout=10) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code


@in_a_browser
def test_a_browser_that_looks_at_the_ui_is_sent_nowhere_else(service: Service, browser: Any) -> None:
    """V1 asks nobody on the pages that are looked at most; where it does, as V2 and /docs do, it may not."""

    def asked_elsewhere(path: str, waits_for: str | None = None) -> list[Any]:
        found: list[Any] = []
        page = browser.new_page()
        page.on("request", lambda one: found.append(one))  # noqa: PLW0108 (Playwright marks what it is given)
        with page.expect_event(waits_for, timeout=60_000) if waits_for else nullcontext():
            page.goto(f"{service.url.removesuffix('/api')}/{path}", wait_until="networkidle")
        here = ("127.0.0.1", "localhost", None)
        elsewhere = [one for one in found if urlsplit(one.url).hostname not in here]
        for one in elsewhere:
            one.response()  # waits for its end
        return elsewhere

    for path in ("dashboard", "runs", "flows", "deployments", "work-pools", "automations", "settings"):
        assert asked_elsewhere(path) == [], path
    assert {one.failure for one in asked_elsewhere("blocks/catalog", "requestfailed")} == {"csp"}, "its logos"
    for path in ("v2/dashboard", "docs"):
        assert {one.failure for one in asked_elsewhere(path)} <= {"csp"}, path


def test_a_run_that_failed_says_so_in_a_line(service: Service) -> None:
    (service.folder / "second.py").write_text("import sys; sys.exit('second: no good')")
    run = service.start("pipeline/nightly")
    service.until(lambda: service.run(run)[0] == "Failed")
    assert service.run(run)[1] == "second: no good"
    service.until(lambda: not working(service.folder, "prefect.engine"))
    assert "Traceback" not in service.said()


def test_a_run_that_is_cancelled_ends_its_stage(service: Service) -> None:
    run = service.held()
    service.prefect("flow-run", "cancel", run)
    service.until(lambda: service.run(run)[0] == "Cancelled")
    assert not working(service.folder, "second.py")
    (service.folder / "hold").unlink()
    assert service.project.run("dvc", "repro").returncode == 0, "no lock is left"
    assert service.ran() == ["first", "second", "second"]


def test_what_finds_nothing_new_costs_little(service: Service) -> None:
    """No task is made for it; benchmarks measure its CPU time."""
    first = service.start("pipeline/nightly")
    service.until(lambda: service.run(first)[0] == "Completed")
    run = service.start("pipeline/on-new-data")
    service.until(lambda: service.run(run)[0] == "Skipped")
    assert service.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}}) == []


def test_drift_starts_the_pipeline_if_it_is_to(service: Service) -> None:
    """The events are the real ones, and so is the automation that prefect.yaml makes of the last."""
    tell = (
        "from pathlib import Path; from flows import events\n"
        "for retrain in (False, False, True):\n"
        "    events.emit_drift(Path('new'), {'pictures': 1, 'checks': []}, retrain=retrain)"
    )
    before = service.runs()
    subprocess.run(
        [sys.executable, "-c", tell], cwd=service.folder, env=environment(service.project), check=True
    )
    service.until((service.folder / "second.txt").exists)
    well = ("Completed", "every stage is up to date (2 completed)")
    service.until(lambda: well in [service.run(one) for one in service.runs() - before])
    assert len(service.runs() - before) == 1, "none by the two events that the server got earlier"


def test_a_killed_worker_costs_nothing(service: Service) -> None:
    """Its run goes on without it, and another worker takes the next one."""
    run = service.held()
    service.child("prefect worker start").kill()
    service.until(lambda: "the worker has ended" in service.said())
    (service.folder / "hold").unlink()
    service.until(lambda: service.run(run)[0] == "Completed")
    assert service.ran() == ["first", "second"]
    again = service.start("pipeline/nightly")
    service.until(lambda: service.run(again)[0] == "Completed")
    assert service.run(again)[1] == "every stage is up to date (2 cached)"


def test_a_run_that_died_with_its_worker_is_picked_up(service: Service) -> None:
    """As when a machine loses its power: what DVC has is not done again, and no lock is left."""
    run = service.held()
    worker, flow = service.child("prefect worker start"), service.child("prefect.engine")
    for one in (worker, flow):
        one.kill()
    service.until(lambda: not working(service.folder, "second.py"))
    (service.folder / "hold").unlink()
    assert service.run(run)[0] == "Running", "nobody has told the server"
    again = service.start("pipeline/on-new-data")
    service.until(lambda: service.run(again)[0] == "Completed")
    assert service.run(again)[1] == "every stage is up to date (1 cached, 1 completed)"
    assert service.ran() == ["first", "second", "second"]


def test_a_killed_server_comes_back_and_the_run_with_it(service: Service) -> None:
    run = service.held()
    service.child("flows.server:app").kill()
    service.until(lambda: "the server has ended" in service.said())
    service.until(lambda: _answers(service))
    (service.folder / "hold").unlink()
    service.until(lambda: service.run(run)[0] == "Completed")
    assert service.ran() == ["first", "second"]


def _answers(service: Service) -> bool:
    try:
        with urlopen(f"{service.url}/health", timeout=5):
            return True
    except OSError:
        return False
