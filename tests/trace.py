"""Runs all that there is on small images, and says what it has reached of the network.

  python -m tests.trace [COMMIT ...]

Of this working copy, or of each commit. strace records every `connect` and whatever is sent, by every process
that is started, in a terminal and with nothing set that says that this is CI: some packages call home only
then. Exit 1 if something beyond loopback was reached, or a name was looked up.
"""

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import psutil

from tasks.core.base import cli, console
from tasks.core.base.errors import DarkroomError
from tests.images import write_classes
from tests.live import free_ports, until
from tests.project import Project
from tests.terminal import Terminal, terminal

# Seconds. ONNX Runtime looks for its host at once and 6, 14 and 36 s later, Prefect's client sends after 10.
WATCH = 60
STRACE = ("strace", "-f", "--seccomp-bpf", "-qqq", "-yy", "-s256", "-etrace=connect,sendto,sendmsg,sendmmsg")
DNS = 53
FOLDERS = ("home", "config", "cache", "data", "state", "runtime", "tmp")  # for what is written elsewhere
KEPT = ("PATH", "LANG", "LC_ALL", "TERM", "TZ", "LD_LIBRARY_PATH")  # of the environment
ARTIFACTS = (
    "saved_model",
    "model.h5",
    "model.tflite",
    "model_fp16.tflite",
    "model_dynamic.tflite",
    "model_int8.tflite",
    "model.onnx",
)

# As a notebook does it: imports all that we use, and has a model of each runtime for a while. By way of the
# stages and commands, whose names stay, so that earlier commits can be run too, where `detect` is `kind`.
HOLD = """
import sys, time
from pathlib import Path
from tasks import predict, train
import cleanlab, dask, distributed, dvc.api, dvclive, great_expectations, gto.api, onnx, prefect, tf2onnx
detect = getattr(predict.runtimes, "detect", None) or predict.runtimes.kind
held = [detect(path)(path) for path in map(Path, sys.argv[2:])]
time.sleep(float(sys.argv[1]))
"""

ADDRESS = re.compile(
    r'sin_port=htons\((?P<port>\d+)\), sin_addr=inet_addr\("(?P<host>[^"]+)"\)'
    r'|sin6_port=htons\((?P<port6>\d+)\).*?inet_pton\(AF_INET6, "(?P<host6>[^"]+)"'
)
QUERY = re.compile(r':53\]>, .*?"((?:[^"\\]|\\.)*)"')  # what is sent to a name server
SERVICE = re.compile(r'sun_path="([^"]*(?:io\.systemd\.Resolve|nscd/socket))"\}, \d+\) = 0')  # looks up names


@dataclass(frozen=True)
class Reached:
    """What a step has asked of the network."""

    step: str
    what: str


def asked(log: Path) -> set[str]:
    """Every address that strace has recorded, and every name that was looked up."""
    found = set()
    for line in log.read_text(errors="replace").splitlines():
        if address := ADDRESS.search(line):
            found.add(f"{address['host'] or address['host6']}:{address['port'] or address['port6']}")
        if query := QUERY.search(line):
            found.add(f"the name {_asked_name(query[1])}")
        if service := SERVICE.search(line):
            found.add(f"a name, by {service[1]}")
    return found


def is_here(what: str) -> bool:
    """Whether it is this machine; a name server counts as another wherever it is."""
    host, _, port = what.rpartition(":")
    try:
        address = ip_address(host)
    except ValueError:  # a name
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return (address.is_loopback or address.is_unspecified) and int(port) != DNS


def _asked_name(text: str) -> str:
    """The name in a DNS query, as strace prints it: after 12 bytes its labels, each after its length."""
    data = text.encode().decode("unicode_escape").encode("latin-1")[12:]
    labels = []
    while data and data[0]:
        labels.append(data[1 : data[0] + 1].decode(errors="replace"))
        data = data[data[0] + 1 :]
    return ".".join(labels)


@dataclass
class Story:
    """All that there is, in a checkout of its own beside empty folders for what programs write elsewhere.

    commit: another one than the working copy.
    settings: of the environment.
    """

    top: Path
    commit: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    found: set[Reached] = field(default_factory=set)

    def prepare(self) -> None:
        """Makes the checkout, with images and a backbone small enough for it."""
        for name in FOLDERS:
            (self.top / name).mkdir(parents=True)
        write_classes(self.top / "pictures", count=24)
        self.project = Project.small(self.top, self.commit)
        (self.project.folder / ".venv").symlink_to(sys.prefix)
        (self.project.folder / ".git/info/exclude").write_text(".venv\n")

    def environment(self) -> dict[str, str]:
        """As a user's shell has it, but for the folders: nothing is switched off beforehand."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        xdg = {f"XDG_{name.upper()}_HOME": name for name in ("config", "cache", "data", "state")}
        folders = {"HOME": "home", "TMPDIR": "tmp", "XDG_RUNTIME_DIR": "runtime"} | xdg
        own = {name: str(self.top / folder) for name, folder in folders.items()}
        own["PATH"] = f"{self.project.folder}/.venv/bin{os.pathsep}{os.environ['PATH']}"
        return kept | own | self.settings

    def log(self, step: str) -> Path:
        return self.top / f"{step}.strace"

    @contextmanager
    def started(self, step: str, *words: str) -> Iterator[Terminal]:
        """Starts `python WORDS` in a terminal, under strace; waits until it and all that it has started end.

        Raises:
            DarkroomError: it did not end with exit code 0.
        """
        log = self.log(step)
        python = str(self.project.folder / ".venv/bin/python")
        command = [*STRACE, "-o", str(log), python, *words]
        with terminal(command, self.environment(), self.project.folder) as running:
            yield running
        if code := running.process.returncode:
            raise DarkroomError(f"{step}: exit code {code}\n{running.text()[-4000:]}")
        self.found |= {Reached(step, what) for what in asked(log) if not is_here(what)}

    def run(self, step: str, *words: str) -> None:
        """Runs `python -m WORDS`."""
        with self.started(step, "-m", *words):
            pass
        console.say(f"trace: {step}")

    def tell(self) -> None:
        """Runs all of it."""
        images = str(self.top / "pictures")
        self.run("check", "tasks.check")
        self.run("stages", "dvc", "repro")
        self.project.git("add", "--all")
        self.project.git("commit", "--quiet", "--message", "A model")
        artifacts = [f"export/{name}" for name in ARTIFACTS]
        with self.started("hold", "-c", HOLD, str(WATCH), *artifacts):
            self.run("flow", "flows.pipeline")
            for name in artifacts:
                self.run(f"predict {Path(name).name}", "tasks.predict", name, f"{images}/red")
            words = ("export/model.onnx", f"{images}/red/000.png", "--explain", "why")
            self.run("explain", "tasks.predict", *words)
            self.run("backbones", "tasks.backbones")
            self.run("cluster", "tasks.cluster", images, "--k", "3")
            self.run("monitor", "flows.monitor", images)
            self.run("promotion", "flows.promote", "--to", "production", "--dry-run")
            self.run("report of a change", "tasks.ci_report")
            self.serve()
            self.spread()
            self.run("suggest", "tasks.validate", "--suggest")

    def serve(self) -> None:
        """The service with a run of one of its deployments."""
        (port,) = free_ports()
        settings = self.project.folder / "prefect.toml"
        before = settings.read_text("utf-8")
        settings.write_text(before.replace(":1/", f":{port}/"))
        with self.started("service", "-m", "flows.serve") as service:
            until(lambda: "ctrl-c ends it" in service.text() or service.process.poll() is not None, 300)
            self.run("deployment", "prefect", "deployment", "run", "pipeline/nightly", "--watch")
            interrupt(service)
        settings.write_text(before)

    def spread(self) -> None:
        """Scoring on a Dask cluster."""
        (port,) = free_ports()
        address = f"tcp://127.0.0.1:{port}"
        self.project.set(scheduler=address)
        serve = ("-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        work = ("-m", "dask", "worker", address, "--no-dashboard")
        with self.started("Dask scheduler", *serve) as scheduler:
            with self.started("Dask worker", *work) as worker:
                self.run("score", "tasks.score", "export/model.onnx", str(self.top / "pictures"))
                interrupt(worker)
            interrupt(scheduler)

    def left(self, *folders: str) -> list[str]:
        """Files and empty folders that programs have left in the folders that are beside the checkout."""
        return sorted(
            str(path.relative_to(self.top))
            for folder in folders
            for path in (self.top / folder).rglob("*")
            if not path.is_dir() or not any(path.iterdir())
        )


def interrupt(running: Terminal) -> None:
    """Interrupts the Python that strace has started."""
    (python,) = psutil.Process(running.process.pid).children()
    python.send_signal(signal.SIGINT)


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("commits", metavar="COMMIT", nargs="*", help="default: this working copy")
    if not shutil.which("strace"):
        raise DarkroomError("strace is not here, which records what is reached; install it, on Linux")
    clean = True
    for commit in parser.parse_args().commits or [None]:
        with tempfile.TemporaryDirectory() as folder:
            story = Story(Path(folder).resolve(), commit)
            story.prepare()
            story.tell()
            print(f"\n{commit or 'this working copy'} has reached:")
            for one in sorted(story.found, key=str):
                print(f"  {one.step:<20} {one.what}")
            if not story.found:
                print("  nothing but loopback")
            print("and left:")
            for name in story.left(*FOLDERS):
                print(f"  {name}")
            clean &= not story.found
    return 0 if clean else 1


if __name__ == "__main__":
    cli.command(main)
