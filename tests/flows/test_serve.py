"""What `make serve` reads is taken as it is meant, and a slip in it is told in one line."""

import asyncio
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import UUID

import pytest
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Pending, Running, Scheduled

from flows import deployments, serve, server, working_copy
from tasks.core.base.errors import DarkroomError
from tests.live import free_ports
from tests.project import FIRST_COMMIT
from tests.structure import ROOT

pytestmark = pytest.mark.usefixtures("prefect_server")

TELL = """
  - name: tell
    trigger: {type: event, posture: Reactive, expect: [darkroom.drift], threshold: 1, within: 0}
    actions:
      - {type: send-notification, block_document_id: custom-webhook/team, subject: Darkroom, body: text}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This project's automations.yaml, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    deployments.AUTOMATIONS.write_text((ROOT / deployments.AUTOMATIONS).read_text("utf-8"))
    return deployments.AUTOMATIONS


def names() -> list[str]:
    with get_client(sync_client=True) as client:
        return [one.name for one in deployments.automations(client)]


@pytest.mark.usefixtures("file")
def test_what_comes_with_the_project_can_be_read() -> None:
    assert names() == ["darkroom-lost-runs"]


def test_a_block_is_named_by_its_type_and_name(file: Path) -> None:
    file.write_text(file.read_text("utf-8") + TELL)
    with pytest.raises(DarkroomError, match="names the block custom-webhook/team, but there is none"):
        names()
    facts = {"name": "team", "url": "http://127.0.0.1:1/", "json_data": {"text": "{{body}}"}}
    block = CustomWebhookNotificationBlock.model_validate(facts)
    identifier = block.save("team")
    with get_client(sync_client=True) as client:
        (_, automation) = deployments.automations(client)
    assert automation.actions[0].model_dump()["block_document_id"] == identifier
    file.write_text(file.read_text("utf-8").replace("custom-webhook/team", str(identifier)))
    assert names() == ["darkroom-lost-runs", "tell"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("state: CRASHED", "state: CRASH", "darkroom-lost-runs: .*ChangeFlowRunState.state is 'CRASH'"),
        ("automations:", "automation:", "automations"),
        ("posture: Proactive", "posture: [", "can't be used"),
        ("type: change-flow-run-state", "type: no-such-thing", "'no-such-thing'"),
    ],
)
def test_a_slip_is_told_with_its_place(file: Path, old: str, new: str, words: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(DarkroomError, match=words) as told:
        names()
    assert "\n" not in str(told.value)


FORM = "automations.yaml must have `automations:` and below it a list"
TRIGGER = "trigger: {type: event, posture: Reactive, expect: [a], threshold: 1, within: 0}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", FORM),
        ("- a\n", FORM),
        ("automations: [abc]\n", FORM),
        ("automations: {name: x}\n", FORM),
        (f"automations: [{{name: x, {TRIGGER}}}]", "automations.yaml: x: actions: Field required"),
        (
            f"automations: [{{name: x, {TRIGGER}, actions: [cancel-flow-run]}}]",
            "automations.yaml: x: actions.0",
        ),
        (f"automations: [{{{TRIGGER}, actions: []}}]", "automations.yaml: number 1: name: Field required"),
    ],
)
def test_a_file_of_another_form_is_told_what_is_expected(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(DarkroomError) as told:
        names()
    assert str(told.value).startswith(said)


def test_an_automation_that_the_server_refuses_is_named(file: Path) -> None:
    """Templates are looked at there alone."""
    zero = "00000000-0000-0000-0000-000000000000"
    action = (
        f"{{type: send-notification, block_document_id: {zero}, subject: '{{{{ event.event }}', body: x}}"
    )
    with get_client(sync_client=True) as client:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deployments, "block_id", lambda *_: zero)
            file.write_text(f"automations: [{{name: tell, {TRIGGER}, actions: [{action}]}}]")
            (wanted,) = deployments.automations(client)
        with pytest.raises(DarkroomError, match=r"^automations\.yaml: tell: .*subject.*template") as told:
            deployments.create_or_update(client, wanted)
    assert "\n" not in str(told.value)


def test_the_deployments_of_a_working_copy_that_is_served_are_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow
    def nothing() -> None: ...

    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    monkeypatch.chdir(other)
    with get_client(sync_client=True) as client:
        steps = [{deployments.PULL_STEP: {"directory": str(one)}}]
        made = client.create_deployment(client.create_flow(nothing), "nightly", pull_steps=steps)
        deployments.check_unserved(client)
        lock = one / working_copy.SERVICE_LOCK
        with working_copy.lock(lock):
            with pytest.raises(
                DarkroomError, match=f"nightly is served from {one}; end that, or set PREFECT_HOME"
            ):
                deployments.check_unserved(client)
            monkeypatch.chdir(one)
            deployments.check_unserved(client)
            monkeypatch.chdir(other)
        assert lock.exists()
        deployments.check_unserved(client)
        client.delete_deployment(made)


WORK = """
from prefect import flow

@flow
def work(only_if_there: bool = False) -> None: ...
"""


@pytest.fixture
def copy(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy with a flow of its own to deploy, and automations.yaml."""
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    Path("work.py").write_text(WORK)
    return file.resolve().parent


def write_deployments(copy: Path, **parts: str) -> None:
    """Writes a prefect.yaml of deployments with these parts beyond those that all have."""
    entries = [
        f"  - {{name: {name}, entrypoint: 'work.py:work', work_pool: {{name: darkroom}}{part}}}"
        for name, part in parts.items()
    ]
    pull = f"pull: [{{{deployments.PULL_STEP}: {{directory: '{copy}'}}}}]"
    deployments.DEPLOYMENTS.write_text("\n".join([pull, "deployments:", *entries]))


def schedules(*slugs: str) -> str:
    return ", schedules: [" + ", ".join(f"{{cron: 0 0 1 1 *, slug: {slug}}}" for slug in slugs) + "]"


def test_what_the_files_have_no_more_is_removed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trigger = ", triggers: [{name: by-event, type: event, expect: [darkroom.a]}]"
    write_deployments(copy, nightly=schedules("one", "two"), weekly=schedules("three") + trigger)
    ours = {"by-event", "darkroom-lost-runs"}
    with get_client(sync_client=True) as client:
        (lost,) = deployments.automations(client)
        client.create_automation(lost.model_copy(update={"tags": []}))  # as it was before they had tags
        deployments.deploy()
        theirs = [client.create_automation(lost.model_copy(update={"name": "theirs", "tags": ["a"]}))]
        assert ours < {one.name for one in client.read_automations()}
        nightly = client.read_deployment_by_name("work/nightly")
        paused = next(one for one in nightly.schedules if one.slug == "one")
        client.update_deployment_schedule(nightly.id, paused.id, active=False)
        other = [{deployments.PULL_STEP: {"directory": str(copy / "other")}}]
        theirs.append(client.create_deployment(nightly.flow_id, "weekly2", pull_steps=other))
        deployments.AUTOMATIONS.write_text("automations: []")
        write_deployments(copy, nightly=schedules("one"))
        capsys.readouterr()
        deployments.deploy()
        assert capsys.readouterr().out.splitlines() == [
            "serve: darkroom-lost-runs isn't in automations.yaml; removed",
            "serve: nightly's schedule two isn't in prefect.yaml; removed",
            "serve: weekly isn't in prefect.yaml; removed",
        ]
        assert {one.name for one in client.read_automations()} & (ours | {"theirs"}) == {"theirs"}
        known = {one.name: one for one in client.read_deployments()}
        assert {"nightly", "weekly", "weekly2"} & set(known) == {"nightly", "weekly2"}
        left = [(one.slug, one.active) for one in known["nightly"].schedules]
        assert left == [("one", False)], "still paused"
        deployments.DEPLOYMENTS.write_text("deployments: []")
        deployments.deploy()
        assert "nightly" not in {one.name for one in client.read_deployments()}
        client.delete_automation(theirs[0])
        client.delete_deployment(theirs[1])


def test_a_name_that_is_there_twice_is_refused_before_anything_is_made(copy: Path) -> None:
    write_deployments(copy, nightly=schedules("one"))
    text = deployments.DEPLOYMENTS.read_text()
    deployments.DEPLOYMENTS.write_text(text + "\n" + text.splitlines()[-1])
    with pytest.raises(DarkroomError, match=r"^prefect\.yaml names nightly twice; give each"):
        deployments.deploy()
    with get_client(sync_client=True) as client:
        assert "nightly" not in {one.name for one in client.read_deployments()}
    write_deployments(copy, nightly=schedules("one", "one"))
    with pytest.raises(DarkroomError, match=r"^prefect\.yaml: nightly\.schedules names one twice"):
        deployments.deploy()
    write_deployments(copy, nightly=schedules("one"))
    text = deployments.AUTOMATIONS.read_text()
    deployments.AUTOMATIONS.write_text(text + text.partition("automations:")[2])
    with pytest.raises(DarkroomError, match=r"^automations\.yaml names darkroom-lost-runs twice"):
        deployments.deploy()


def test_runs_whose_process_is_gone_have_crashed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @flow
    def nothing() -> None: ...

    with get_client(sync_client=True) as client:
        made = []
        for folder in (copy, copy / "other"):
            steps = [{deployments.PULL_STEP: {"directory": str(folder)}}]
            name = f"of-{folder.name}"
            made.append(client.create_deployment(client.create_flow(nothing), name, pull_steps=steps))

        def run(deployment: UUID, state: State[Any]) -> UUID:
            identifier = client.create_flow_run_from_deployment(deployment).id
            client.set_flow_run_state(identifier, state, force=True)
            return identifier

        states: list[State[Any]] = [Running(), Pending(), Running(), Completed(), Scheduled()]
        runs = [run(made[0], state) for state in states]
        runs.append(run(made[1], Running()))
        code = "print(flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {serve.RUN_ID: str(runs[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout
            process.stdout.readline()
            deployments.end_runs(Crashed(message="gone"), serve.at_work())
            process.kill()
        found = [client.read_flow_run(one).state_name for one in runs]
        assert found == ["Crashed", "Crashed", "Running", "Completed", "Scheduled", "Running"]
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_ports()[0]}/api")
        began = time.monotonic()
        serve.tell_end()
        assert time.monotonic() - began < 3, "a server that is gone isn't waited for"
        monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
        serve.tell_end()
        ended = client.read_flow_run(runs[2]).state
        assert ended and ended.name == "Cancelled" and "`make serve` was ended" in str(ended.message)
        for one in made:
            client.delete_deployment(one)


def test_what_a_deployment_can_not_be_given_is_told_to_its_end(copy: Path) -> None:
    given = {"parameters": {"only_if_ther": True}}
    said = r"^prefect\.yaml: nightly: the flow has no parameter 'only_if_ther'; it has only_if_there$"
    write_deployments(copy, nightly=", parameters: {only_if_ther: true}" + schedules("one"))
    with pytest.raises(DarkroomError, match=said):
        deployments.deploy()
    with get_client(sync_client=True) as client:
        known = client.read_deployment_by_name("work/nightly")
    for entry in ({"schedules": [given]}, {"schedule": given}, {"triggers": [given]}):
        with pytest.raises(DarkroomError, match=said):
            deployments.check_parameters(known, entry)
    for named in ({"only_if_there": True}, None, "{{ $GIVEN }}"):
        deployments.check_parameters(known, {"parameters": named})
    write_deployments(copy, nightly=", schedules: [{cron: 0 1 1 1 *}]")
    with pytest.raises(DarkroomError, match=r"^prefect\.yaml can't be deployed: Please provide a slug"):
        deployments.deploy()


FRAME = """
╭───────────────────╮
│ Deploying monitor │
╰───────────────────╯
"""
TRACEBACK = """
Traceback (most recent call last):
  File "prefect/flows.py", line 3003, in load_flow_from_entrypoint
    raise MissingFlowError(
prefect.exceptions.MissingFlowError: Flow function with name 'monitr' not found in 'flows/monitor.py'.
An exception occurred.
"""


REFUSED = f"""
Traceback (most recent call last):
prefect.exceptions.PrefectHTTPStatusError: Client error '422 ...' for url '{"x" * 200}' - Response: """


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            TRACEBACK,
            "monitor: prefect.exceptions.MissingFlowError: Flow function with name 'monitr' not found",
        ),
        ("\nNo such file\nFor further information ...", "No such file"),
        (f"{REFUSED}{{'detail': \"it isn't a boolean\"}} - For more", "monitor: it isn't a boolean"),
        (
            f"{REFUSED}{{'exception_detail': [{{'type': 'gt', 'loc': ['body', 'limit'], 'msg': 'too low', "
            "'input': -1}], 'request_body': {}} - For more",
            "monitor: body.limit: too low",
        ),
    ],
)
def test_what_prefect_has_against_a_deployment_is_told_in_a_line(text: str, said: str) -> None:
    assert deployments.complaint(FRAME + text).startswith(said)


def test_an_address_that_is_not_of_an_api_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    server.SETTINGS.write_text('[api]\nurl = "http://127.0.0.1:4300"\n')
    with pytest.raises(
        DarkroomError, match=r"^api\.url in prefect\.toml is .*; give http://127\.0\.0\.1:4300/api$"
    ):
        serve.own_address()
    server.SETTINGS.unlink()
    server.profiles().write_text('active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://127.0.0.1:4300/"\n')
    with pytest.raises(DarkroomError, match=r"^PREFECT_API_URL in .*profiles\.toml is http"):
        serve.own_address()
    monkeypatch.setenv("PREFECT_API_URL", "http://localhost:4300/")
    with pytest.raises(DarkroomError, match=r"^PREFECT_API_URL is .*; give http://localhost:4300/api$"):
        serve.own_address()


@pytest.mark.parametrize(("git", "said"), [(False, "is in no git repository"), (True, "has no .dvc/config")])
def test_a_folder_without_a_project_is_refused_and_left_as_it_was(
    git: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setattr("sys.argv", ["flows/serve.py"])
    if git:
        subprocess.run(["git", "init", "-q"], check=True)
        subprocess.run(FIRST_COMMIT, check=True)
    with pytest.raises(DarkroomError, match=said):
        serve.main()
    assert not Path(".dvc").exists()


def test_a_port_that_another_program_has_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            DarkroomError, match=f"port {port} is another program's.*another by PREFECT_API_URL"
        ):
            serve.start_server(f"http://127.0.0.1:{port}/api", "PREFECT_API_URL")


@contextmanager
def answering(response: bytes) -> Iterator[str]:
    """The URL of an API where a program is that sends the same to everything it is asked."""

    class Program(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(response)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Program) as program:
        threading.Thread(target=program.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{program.server_address[1]}/api"
        program.shutdown()


@pytest.mark.parametrize(
    ("response", "is_prefect"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\ntrue", True),
        (b"HTTP/1.0 401 Unauthorized\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>an app</html>", False),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.6\r\n", False),
    ],
)
def test_only_prefect_is_taken_for_its_server(response: bytes, is_prefect: bool) -> None:
    """A page for every path comes from any web app in development, some of which have port 4200 too."""
    with answering(response) as url:
        assert server.is_up(url) == is_prefect


def test_a_borrowed_server_that_stays_away_ends_what_is_served_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("INTERVAL", 0), ("OUTAGE", 1)):
        monkeypatch.setattr(serve, name, seconds)
    with answering(b"HTTP/1.0 200 OK\r\n\r\ntrue") as url:
        borrowed = serve.Borrowed(url, seen=time.monotonic() - 2)
        borrowed.check()
    borrowed.check()  # it may come back
    borrowed.seen -= 2
    with pytest.raises(
        DarkroomError, match=f"server at {url.removesuffix('/api')}, .* is gone; `make serve`"
    ):
        serve.watch([], borrowed)


def test_a_proxy_that_the_user_has_does_not_keep_the_client_from_its_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """httpx asks for a package of its own as soon as ALL_PROXY names SOCKS, wherever it is to connect to."""
    for name in ("ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "socks5h://127.0.0.1:9")
    with get_client(sync_client=True) as client:
        assert client.api_healthcheck() is None, "the tests' server answers"


def test_a_server_that_is_gone_before_a_run_begins_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look for it and the run's first word, which Prefect then fails by another exception."""
    url = f"http://127.0.0.1:{free_ports()[0]}/api"
    monkeypatch.setattr(server, "is_up", lambda _: True)
    monkeypatch.setenv("PREFECT_API_URL", url)
    said = "failed on the way .* run it again when the server is back, or with --no-server"

    @flow
    def nothing() -> None: ...

    with (
        temporary_settings({PREFECT_API_URL: url}),
        pytest.raises(DarkroomError, match=said),
        server.reporting(None),
    ):
        nothing()


OURS = ["http://127.0.0.1:4200", "http://localhost:4200", "https://proxy.example"]


@pytest.mark.parametrize(
    ("host", "origin", "is_let_in"),
    [
        ("127.0.0.1:4200", None, True),
        ("localhost:4200", "http://localhost:4200", True),
        ("127.0.0.1:4200", "http://localhost:4200", True),
        ("proxy.example", "https://proxy.example", True),
        ("127.0.0.1:4200", "https://elsewhere.example", False),
        ("127.0.0.1:4200", "null", False),
        ("127.0.0.1:4200", "http://127.0.0.1:8000", False),
        ("elsewhere.example:4200", None, False),
        (None, None, False),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_pages_of_other_origins_are_not_let_in(
    kind: str, host: str | None, origin: str | None, is_let_in: bool
) -> None:
    headers = {b"host": host, b"origin": origin}
    scope = {"type": kind, "headers": [(key, value.encode()) for key, value in headers.items() if value]}
    reached, sent = [], []

    async def application(*_: Any) -> None:
        reached.append(True)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(server._keep_to_this_machine(application, OURS)(scope, None, send))
    assert bool(reached) is is_let_in
    refusals = {"http": [403, None], "websocket": [None]}
    assert [message.get("status") for message in sent] == ([] if is_let_in else refusals[kind])


def test_reports_are_given_to_this_machines_names_alone_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/index.html").write_text("the report")
    address = serve.serve_reports()
    with urlopen(address) as answer:
        assert answer.read() == b"the report"
        assert "script-src 'none'" in answer.headers["Content-Security-Policy"]
    with pytest.raises(HTTPError, match="403"):
        urlopen(Request(address, headers={"Host": f"elsewhere.example:{urlsplit(address).port}"}))
