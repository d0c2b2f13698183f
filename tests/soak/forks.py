"""DVC, its stages and other commands as forks of one process, which has imported everything.

So a run takes seconds. What is left out is each program's start of Python. Processes and their groups,
signals, files, rights and locks are as they are with `dvc repro`. The flow starts as it does for its user.
"""

import atexit
import ctypes
import faulthandler
import gc
import importlib
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.structure import ROOT

OTHERS = (
    *("dvc.cli", "dvc.commands.repro", "dvc.repo", "dvc.repo.datasets", "dvc.scm", "dvc_data.hashfile.build"),
    *("great_expectations", "networkx", "pygit2", "tf2onnx.convert"),
    *("tasks.prune", "tasks.core.release.dvc_api"),
)
PR_CAPBSET_DROP, CAPABILITIES = 24, (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
CAPABILITY_VERSION = 0x20080522


def warm() -> None:
    """Imports what stages and DVC need."""
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    for name in (*(f"tasks.{stage}" for stage in stages), *OTHERS):
        importlib.import_module(name)
    gc.freeze()  # else each fork's first collection copies all that was imported


def start(folder: Path, log: Path, environment: dict[str, str], words: list[str], clock: float) -> int:
    """Starts a command in a folder, in a session of its own; gives the process id.

    Args:
        log: gets what it prints.
        words: `dvc` or a module of ours, and its arguments.
        clock: seconds that it takes time to be later.
    """
    if pid := os.fork():
        return pid
    _end(lambda: _begin(folder, log, environment, words, clock))
    raise AssertionError


def _begin(folder: Path, log: Path, environment: dict[str, str], words: list[str], clock: float) -> int:
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, file), (2, file)):
        os.dup2(source, stream)
    faulthandler.register(signal.SIGUSR1, file=os.dup(2))  # tells where it is, and where its stages are
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _heed_rights()
    if clock:
        seconds, nanoseconds = time.time, time.time_ns
        time.time = lambda: seconds() + clock
        time.time_ns = lambda: nanoseconds() + int(clock * 1e9)
    if words[0].startswith("flows."):
        os.execv(sys.executable, [sys.executable, "-m", *words])
    return _run_dvc(words[1:]) if words[0] == "dvc" else _work(*words)


def _run_dvc(words: list[str]) -> int:
    from dvc.cli import main
    from dvc.stage import run

    from tasks.core.base import mending

    sys.orig_argv = ["dvc", *words]
    mending.begin_dvc()  # as each Python of .venv does that is a dvc; what it does at its end, `_end` calls
    run._run = _run_stage
    return int(main(words))


def _heed_rights() -> None:
    """Has root meet with files that can't be read, as anybody else does."""
    if os.getuid():
        return
    libc = ctypes.CDLL(None)
    header, data = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    for capability in CAPABILITIES:
        libc.prctl(PR_CAPBSET_DROP, capability)
        for place in range(3):  # effective, permitted, inheritable
            data[place] &= ~(1 << capability)
    libc.capset(header, data)


def _run_stage(_executable: Any, cmd: str, **kwargs: Any) -> None:
    """Stands for DVC's own function, which runs a stage's command by way of a shell."""
    from dvc.stage.exceptions import StageCmdFailedError

    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        os.environ.update(kwargs["env"])
        os.chdir(kwargs["cwd"])
        _end(lambda: _work_as_stage(cmd.rpartition(" ")[2]))
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, status = os.waitpid(pid, 0)
    finally:
        signal.signal(signal.SIGINT, earlier)
    if code := os.waitstatus_to_exitcode(status):
        raise StageCmdFailedError(cmd, code)


def _work_as_stage(module: str) -> int:
    from tasks.core.base import process

    process.install_stage_handlers()
    return _work(module)


def _work(module: str, *arguments: str) -> int:
    sys.argv = [module.replace(".", "/") + ".py", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _end(work: Callable[[], int]) -> None:
    """Works, and ends this fork as a program of its own would end."""
    code: Any = 70
    try:
        code = work()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
