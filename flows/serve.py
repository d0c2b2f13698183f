"""Serves the pipeline on this machine: Prefect's server and UI, the deployments of prefect.yaml, a worker.

  make serve

Ctrl-c ends it all. Nothing listens beyond loopback. A server that is there already is used as it is.
"""

from flows import server

if __name__ == "__main__":
    server.check_settings()  # first: all imports that follow need them

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urljoin, urlsplit

import psutil
import zc.lockfile
from httpx import HTTPError
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from prefect.states import Cancelled, Crashed

from flows import working_copy
from flows.children import start
from flows.deployments import POOL, deploy, end_runs, print_next_runs
from flows.events import REPORTS_URL
from tasks.core.base import cli, console, process
from tasks.core.base.errors import DarkroomError
from tasks.core.base.paths import PAGE
from tasks.core.validation import preflight

LOG = Path(".dvc/tmp/server.log")  # which DVC keeps out of git
REPORTS_PORT = 4201
SHORT_LIFE = 20  # seconds
MAX_SHORT_LIVES = 3  # in a row, before it all ends
INTERVAL = 5  # seconds between two looks at a server that isn't ours
OUTAGE = 60  # seconds that it may be away, as when it is started again
GRACE = 30  # seconds that a worker has to end its runs
HASTE = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 2.0}  # seconds, of a server at the end
WORKER = "the worker"
RUN_ID = "PREFECT__FLOW_RUN_ID"  # in the environment of a run's processes


@dataclass
class Child:
    """A process that is started again when it ends."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]
    since: float
    short_lives: int = 0  # in a row


@dataclass
class Borrowed:
    """A server that another program has started, and may end."""

    address: str
    seen: float  # when it has last answered
    looked: float = 0  # when it was last asked

    def check(self) -> None:
        """Asks it now and then.

        Raises:
            DarkroomError: it has not answered for some time, so that there is nothing to serve with.
        """
        now = time.monotonic()
        if now - self.looked < INTERVAL:
            return
        self.looked = now
        if server.is_up(self.address):
            self.seen = now
        elif now - self.seen > OUTAGE:
            raise DarkroomError(
                f"the server at {ui(self.address)}, which another program had started, is gone; "
                "`make serve` starts one here"
            )


def main() -> int:
    cli.parser(__doc__).parse_args()
    address = own_address()
    check_project()
    # What a worker that is ended leaves in its temporary folder goes with ours.
    with (
        exclusive_service(address),
        TemporaryDirectory(prefix="darkroom-") as folder,
        child_processes() as children,
    ):
        reports = serve_reports()
        named_by = server.named_by()  # before it is the environment
        os.environ |= {server.URL: address, REPORTS_URL: reports, "PWD": str(Path.cwd())}
        key = server.key()
        LOG.unlink(missing_ok=True)
        borrowed = None
        if server.is_up(address):
            borrowed = Borrowed(address, time.monotonic())
            console.say(f"serve: {ui(address)} is there already, and used as it is")
        else:
            start_child(children, "the server", partial(start_server, address, named_by))
        with temporary_settings({PREFECT_API_URL: address, PREFECT_API_AUTH_STRING: key}):
            end_runs(Crashed(message="its process is gone; the next run goes on from here"), at_work())
            deploy()
            worker = f"{socket.gethostname()}-{Path.cwd().name}"
            words = ("prefect", "worker", "start", "--pool", POOL, "--name", worker)
            start_child(children, WORKER, partial(start, *words, env=os.environ | {"TMPDIR": folder}))
            console.say(f"serve: the UI is at {ui(address)}, the reports at {reports}")
            print_next_runs()
        console.say("serve: ctrl-c ends it")
        return watch(children, borrowed)


def own_address() -> str:
    """Where to serve; another machine's server is refused."""
    address = server.url() or "http://127.0.0.1:4200/api"
    if urlsplit(address).hostname not in server.LOOPBACK:
        raise DarkroomError(
            f"{address} is not on this machine, which is all that is served here; for that server's work "
            f"`prefect deploy --all`, then `prefect worker start --pool {POOL}`"
        )
    if not address.endswith("/api"):  # else nothing that is asked for there is found
        raise DarkroomError(f"{server.named_by()} is {address}; give {urljoin(address, '/api')}")
    return address


def check_project() -> None:
    """Looks for what every run needs, before the lock makes a folder .dvc.

    Raises:
        DarkroomError: there is no repository of git's, or none of DVC's.
    """
    preflight.check_repository()
    if not Path(".dvc/config").exists():
        raise DarkroomError(
            f"{Path.cwd()} has no .dvc/config; start it in the project's folder, or `dvc init`"
        )


def ui(address: str) -> str:
    return address.removesuffix("/api")


def exclusive_service(address: str) -> AbstractContextManager[Any]:
    """Lets one of us into a working copy; another one has nothing to do, and says so."""
    try:
        return working_copy.lock(working_copy.SERVICE_LOCK)
    except zc.lockfile.LockError:
        number = working_copy.SERVICE_LOCK.read_text().strip()
        console.say(f"serve: this folder is served already, by process {number}: {ui(address)}")
        sys.exit(0)


@contextmanager
def child_processes() -> Iterator[list[Child]]:
    """Gives a list for child processes, and ends them: the one that came last goes first."""
    children: list[Child] = []
    try:
        yield children
    finally:
        process.ignore_signals()
        for child in reversed(children):
            end(child.process)
            end_orphans()
            if child.name == WORKER:  # while the server is there
                tell_end()


def tell_end() -> None:
    """Tells the server that the runs have ended, which nobody else does; one that is gone is left alone."""
    settings = {PREFECT_API_URL: os.environ[server.URL], PREFECT_API_AUTH_STRING: server.key()}
    with suppress(HTTPError, RuntimeError), temporary_settings(settings | HASTE):
        end_runs(Cancelled(message="`make serve` was ended; the next run goes on from here"))


def start_child(children: list[Child], name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
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


def at_work() -> set[str]:
    """The ids of runs that have a process; one whose worker was killed goes on."""
    found = set()
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            found.add(one.environ().get(RUN_ID, ""))
    return found


def start_server(address: str, named_by: str) -> subprocess.Popen[bytes]:
    """Starts the server, and waits until it answers.

    Raises:
        DarkroomError: its port is another program's, or it can't start.
    """
    port = urlsplit(address).port or 80
    with socket.socket() as one, suppress(OSError):
        one.connect(("127.0.0.1", port))
        raise DarkroomError(
            f"port {port} is another program's, and no Prefect server; name another by {named_by}"
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


def serve_reports() -> str:
    """Serves reports/ as files, for as long as this process lives; returns the address."""
    handler = partial(_Quiet, directory=str(PAGE.parent.absolute()))
    try:
        reports = ThreadingHTTPServer(("127.0.0.1", REPORTS_PORT), handler)
    except OSError:  # another's port
        reports = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=reports.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{reports.server_port}"


class _Quiet(SimpleHTTPRequestHandler):
    def parse_request(self) -> bool:
        """Refuses a host of another name, which is one that somebody has pointed here."""
        if not super().parse_request():
            return False
        port = self.connection.getsockname()[1]
        if self.headers.get("Host") in [f"{host}:{port}" for host in server.LOOPBACK]:
            return True
        self.send_error(HTTPStatus.FORBIDDEN)
        return False

    def end_headers(self) -> None:
        """Says that no page of ours has a script, whatever a file's or a class's name might bring in."""
        self.send_header("Content-Security-Policy", "script-src 'none'; object-src 'none'; base-uri 'none'")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing of who has looked at what."""


def watch(children: list[Child], borrowed: Borrowed | None) -> int:
    """Waits for a ctrl-c, and starts again what ends before, unless that ends as soon as it is started.

    Raises:
        DarkroomError: it does, or a server that isn't ours is gone.
    """
    try:
        while True:
            time.sleep(0.5)
            if borrowed:
                borrowed.check()
            for child in children:
                code = child.process.poll()
                if code is None:
                    continue
                was_short = time.monotonic() - child.since < SHORT_LIFE
                child.short_lives = child.short_lives + 1 if was_short else 0
                if child.short_lives == MAX_SHORT_LIVES:
                    raise DarkroomError(f"{child.name} ends as soon as it starts (exit code {code})")
                console.say(f"serve: {child.name} has ended (exit code {code}), and is started again")
                child.process, child.since = child.start(), time.monotonic()
    except KeyboardInterrupt:
        console.say("serve: ending")
        return 0


if __name__ == "__main__":
    cli.command(main)
