"""How much memory a piece of work takes at its peak: `python -m benchmarks.memory scan|validate FOLDER`.

It works in a process of its own, since a process never forgets its peak. Linux only: the kernel keeps count.
"""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def peak() -> float:
    """MB of memory that this process and those it has started held, each at its own peak."""
    children = " ".join(tasks.read_text() for tasks in Path("/proc/self/task").glob("*/children"))
    return sum(map(peak_of, ["self", *children.split()]))


def peak_of(process: str) -> float:
    """MB that a process held at its peak."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1000 if found else 0.0  # none of a process that has just ended


def measured(work: str, folder: Path) -> float:
    """MB that `scan` or `validate` takes at its peak, over the images of `folder`/pictures."""
    words = [sys.executable, "-m", "benchmarks.memory", work, str(folder)]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _validate(folder: Path) -> None:
    from benchmarks.sides import PARAMS
    from tasks.core.base.errors import Rejected
    from tasks.core.data.config import LOCAL, Processes
    from tasks.core.validation import schema
    from tasks.validate import validate

    os.chdir(folder)  # where the stage writes its outputs
    with contextlib.suppress(Rejected):
        labels = Path("labels.csv")
        validate(Path("pictures"), labels, schema.Schema(), None, PARAMS.validate, Processes(1, LOCAL))


def main() -> None:
    from benchmarks.sides import Work

    work, folder = sys.argv[1], Path(sys.argv[2])
    alone = Work(folder)
    alone.forget()
    if work == "scan":
        alone.scan()
    else:
        _validate(folder)
    print(peak())


if __name__ == "__main__":
    main()
