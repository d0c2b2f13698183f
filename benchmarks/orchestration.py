"""What the flow costs over `dvc repro`: cold, with nothing to do, with and without a server; and a schedule.

It works in clones of the last commit, and wants an idle machine for ten minutes:
python -m benchmarks.orchestration
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil

from flows import server
from tasks.core.base.files import write_json

RESULTS = Path(__file__).with_name("orchestration.json").absolute()
ROOT = Path(__file__).parents[1]
ROUNDS, COLD_ROUNDS = 9, 2
REPRO, FLOW, ALONE = ("dvc", "repro"), ("flows.pipeline",), ("flows.pipeline", "--no-server")


def clone(folder: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def seconds(folder: Path, words: tuple[str, ...], **more: str) -> float:
    """How long a command takes there, which must end well."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=environment(folder) | more,
            stdout=said,
            stderr=said,
            check=False,
        )
        if done.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode())
    return time.perf_counter() - start


def environment(folder: Path) -> dict[str, str]:
    """With a cache of the clone's own, and a Prefect home of the benchmark's."""
    own = {"PREFECT_HOME": str(folder.parent / "prefect"), "DARKROOM_CACHE": f"{folder}-cache"}
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    left = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return left | own | {"PATH": path}


def cold(top: Path) -> dict[str, Any]:
    """Whole runs with empty caches, one way and the other in turn."""
    made = seconds(clone(top / "first"), (*ALONE, "digits"))  # Prefect makes its database, once for a user
    again = seconds(top / "first", (*ALONE, "digits"))
    times: dict[tuple[str, ...], list[float]] = {REPRO: [], ALONE: []}
    for place in range(COLD_ROUNDS):
        for words in (REPRO, ALONE) if place % 2 == 0 else (ALONE, REPRO):
            times[words].append(seconds(clone(top / f"{words[0]}-{place}"), words))
    repro, flow = (statistics.mean(each) for each in times.values())
    return {"repro_s": repro, "flow_s": flow, "ratio": flow / repro, "aim": 1.05, "database_s": made - again}


def idle(folder: Path, flow_words: tuple[str, ...], aim: float, **more: str) -> dict[str, Any]:
    """Medians with nothing to do, in turn."""
    pairs = [(seconds(folder, REPRO), seconds(folder, flow_words, **more)) for _ in range(ROUNDS)]
    repro, flow = (statistics.median(each) for each in zip(*pairs, strict=True))
    return {"repro_s": repro, "flow_s": flow, "ratio": flow / repro, "aim": aim}


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`make serve` in a clone, on a port of its own; gives its address and process."""
    address = f"http://127.0.0.1:{server.free_port()}/api"
    child = subprocess.Popen(
        [sys.executable, "-m", "flows.serve"],
        cwd=folder,
        env=environment(folder) | {"PREFECT_API_URL": address},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for line in child.stdout or []:
            if "ctrl-c ends it" in line:
                break
        yield address, psutil.Process(child.pid)
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate()


def schedule(address: str, service: psutil.Process) -> dict[str, Any]:
    """Seconds of CPU, of server, worker and run, for a run of `on-new-data` that finds nothing new."""

    def ask(path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"{address}/{path}", data, {"content-type": "application/json"})) as answer:
            return json.load(answer)

    def spent() -> float:
        return sum(sum(child.cpu_times()[:4]) for child in service.children())

    time.sleep(20)  # until what comes with a start is over
    deployment = ask("deployments/name/pipeline/on-new-data")["id"]
    before, start = spent(), time.perf_counter()
    run = ask(f"deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]
    while (state := ask(f"flow_runs/{run}")["state"])["type"] != "COMPLETED":
        time.sleep(0.5)
    time.sleep(1)  # its process is not quite done yet
    used, lasted = spent() - before, time.perf_counter() - start
    before, start = spent(), time.perf_counter()
    time.sleep(20)
    waiting = (spent() - before) / (time.perf_counter() - start)
    return {
        "state": state["name"],
        "cpu_s": used - waiting * lasted,
        "waiting_cpu_s_a_minute": 60 * waiting,
        "aim": 5,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = cold(Path(folder))
        finished = Path(folder) / f"{FLOW[0]}-0"
        alone = idle(finished, ALONE, aim=4)
        with served(finished) as (address, service):
            beside = idle(finished, FLOW, aim=2, PREFECT_API_URL=address)
            nothing_new = schedule(address, service)
    result = {"cold": whole, "idle": alone, "idle_with_a_server": beside, "schedule": nothing_new}
    write_json(RESULTS, {"cores": os.cpu_count()} | result)
    for name in ("cold", "idle", "idle_with_a_server"):
        fact = result[name]
        print(f"flow | dvc repro, {name.replace('_', ' ')}: {fact['ratio']:.2f} (aim: {fact['aim']})")
    print(f"a schedule that finds nothing new: {nothing_new['cpu_s']:.1f} s of CPU (aim: 5)")


if __name__ == "__main__":
    main()
