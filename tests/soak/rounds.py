"""A round: a finished project, an edit, a fault at a random moment, and what must be true in the end."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import psutil
from ruamel.yaml import YAML

from tasks.core.base.leftovers import OF_DVC
from tests.images import write_classes
from tests.project import Project
from tests.soak import faults, forks
from tests.structure import ROOT

Files = dict[str, bytes]  # by their paths in the project
LONGEST = {"dvc": 9.0, "flows.pipeline": 45.0}  # seconds that a run takes, about
ROOM = {"dvc": 4 << 20, "flows.pipeline": 64 << 20}  # bytes of a small disk, beside the project
PATIENCE = 120  # seconds for a run
SOON = 10  # seconds, in which a stage whose DVC is gone has ended too
REPRO = ["dvc", "repro"]
KEPT = (0, 0.7, 0.8, 0.9, 0.9)  # of what DVC would restore, and not run: most rounds are to be short
PRUNED = 0.2  # of runs that are pruned before
LAST = 10_000  # characters of a log, which are told
AGAIN = 3  # runs without a fault, of which the last must end well
BAD = re.compile(r"Traceback|a fault of ours|core dumped|not done in", re.IGNORECASE)
STUCK = "you can manually remove"  # DVC of its lock, where another is at work, or nobody any more
OUTPUTS = ("data", "models", "reports", "export")
# What hangs on more than inputs: this machine's times; what has changed since the last run.
ELSE = ("export/export.json", "reports/index.html")


@dataclass
class Soak:
    """Where rounds are run, by which command, what undisturbed runs came to, and which faults were tried."""

    top: Path
    kinds: list[str]
    variants: dict[str, dict[str, bytes | None]]
    words: list[str]
    expected: dict[str, tuple[dict[str, str], Files]] = field(default_factory=dict)
    tried: Counter[str] = field(default_factory=Counter)

    @classmethod
    def prepare(cls, top: Path, words: list[str]) -> "Soak":
        """Makes the project that each round begins with; its backbone in a process apart, with TensorFlow."""
        write_classes(top / "pictures", count=20)
        make = (
            f"from pathlib import Path; from tests.project import Project; Project.small(Path({str(top)!r}))"
        )
        subprocess.run([sys.executable, "-c", make], cwd=ROOT, check=True)
        project = Project(top / "project")
        for name in ("pictures", "backbone"):
            shutil.move(top / name, project.folder / name)
        project.set(
            data__images="pictures", backbone="backbone", effort="quick", robustness="0", formats="[onnx]"
        )
        drop_digits(project.folder / "dvc.yaml")
        project.git("gc", "--quiet")  # one file of objects, where each round would copy 400
        (top / "disk").mkdir()
        can = faults.can_mount(top / "disk")
        kinds = [
            name
            for name, fault in faults.FAULTS.items()
            if (can or not fault.small) and not (fault.clock and words != REPRO)
        ]
        return cls(top, kinds, variants(project.folder), words)

    @property
    def size(self) -> int:
        """Bytes that the finished project takes."""
        return sum(file.stat().st_blocks * 512 for file in self.template.rglob("*"))

    @property
    def template(self) -> Path:
        return self.top / "project"

    def learn(self) -> None:
        """Runs each variant undisturbed, one after the other in one project, as its user would."""
        began = time.monotonic()
        for name in (*self.variants, next(iter(self.variants))):
            self.become(self.template, name)
            code, text = finish(begin(self.template, REPRO), self.template)
            assert code == 0, f"{name}, exit {code}: {text[-2000:]}"
            known = digests(self.template), outputs(self.template)
            assert self.expected.setdefault(name, known) == known, name
        print(f"{len(self.variants) + 1} undisturbed runs in {time.monotonic() - began:.0f} s", flush=True)

    def become(self, folder: Path, variant: str) -> None:
        """Edits inputs, each as an editor does: a new file in place of the old."""
        for name, content in self.variants[variant].items():
            path = folder / name
            if content is None:
                path.unlink(missing_ok=True)
            elif not path.is_file() or path.read_bytes() != content:
                new = path.with_name("edited")
                new.write_bytes(content)
                new.replace(path)

    def run(self, seed: int, number: int, talks: bool) -> bool:
        """A round; says what happened, and what is wrong, if anything is."""
        random = Random(f"{seed}/{number}")
        kind = random.choice(self.kinds)
        top = self.top / "disk" / "round"
        with ExitStack() as stack:
            if faults.FAULTS[kind].small:
                stack.enter_context(faults.small_disk(top.parent, self.size + ROOM[self.words[0]]))
            stack.callback(shutil.rmtree, top, ignore_errors=True)
            story = [f"round {number}: {kind}"]
            shutil.copytree(self.template, top / "project", symlinks=True)
            wrong = self._go(top / "project", faults.FAULTS[kind], random, story)
        self.tried[kind] += 1
        if wrong or talks:
            print("\n  ".join([*story, f"WRONG: {wrong}" if wrong else "as it must be"]), flush=True)
        return not wrong

    def _go(self, folder: Path, fault: faults.Fault, random: Random, story: list[str]) -> str | None:
        first, second = random.sample(list(self.variants), 2)
        self.become(folder, first)
        kept = random.choice(KEPT)
        for known in sorted((folder / ".dvc/cache/runs").glob("*/*")):
            if random.random() >= kept:
                shutil.rmtree(known)
        began = time.monotonic()
        pid = begin(folder, self.words, fault.clock)
        time.sleep(LONGEST[self.words[0]] * random.random() * (1.2 - kept))
        story.append(f"{first}, {time.monotonic() - began:.2f} s, {last_line(folder)}")
        if fault.edits:
            self.become(folder, second)
            story.append(f"edited: {second}")
        told, mend = fault.strike(faults.Target(folder, pid, random, partial(begin_beside, folder)))
        story.append(told)
        for run in range(AGAIN + 1):
            code, text = finish(pid, folder)
            story.append(f"exit {code}: {last_line(folder)}")
            if run == 0:
                mend()
                text = said(folder)
            if BAD.search(text) or (STUCK in text and (run or not fault.beside)):
                return text[-LAST:]
            if run and code == 0:
                return self._judge(folder, second if fault.edits else first)
            if run < AGAIN:
                if random.random() < PRUNED:
                    begin_beside(folder, ["tasks.prune", "--runs", "1"])()
                    story.append(f"pruned: {last_line(folder)}")
                    if BAD.search(said(folder)):
                        return said(folder)[-LAST:]
                pid = begin(folder, self.words)
        return f"{AGAIN} runs have failed\n{text[-LAST:]}"

    def _judge(self, folder: Path, variant: str) -> str | None:
        """What isn't as after an undisturbed run."""
        lock, files = self.expected[variant]
        for name, content in self.variants[variant].items():
            path = folder / name
            if (path.read_bytes() if path.is_file() else None) != content:
                return f"an input was lost: {name}"
        if changed := [name for name, digest in digests(folder).items() if digest != lock.get(name)]:
            return f"another dvc.lock: {changed}"
        found = outputs(folder)
        if different := {name for name in files | found if files.get(name) != found.get(name)}:
            return f"other bytes: {sorted(different)}"
        end = time.monotonic() + SOON
        while (left := left_over(folder)) and time.monotonic() < end:
            time.sleep(0.05)
        return f"left behind: {left}" if left else None


def drop_digits(file: Path) -> None:
    """Has the pipeline go without the built-in images, 1,797 files that each round would copy."""
    yaml = YAML()
    values = yaml.load(file.read_text("utf-8"))
    del values["stages"]["digits"]
    values["stages"]["validate"]["deps"].remove("data/digits")
    with file.open("w", encoding="utf-8") as stream:
        yaml.dump(values, stream)


def variants(folder: Path) -> dict[str, dict[str, bytes | None]]:
    """What the project's inputs may be: each has the content of all that some variant changes."""
    pictures, labels, settings = folder / "pictures", folder / "data/labels.csv", folder / "params.yaml"
    parameters = settings.read_text("utf-8")
    red = "pictures/red/019.png"
    new = (pictures / "red/003.png").read_bytes()
    rows = [f"{path.relative_to(pictures)},{path.parent.name}\n" for path in sorted(pictures.rglob("*.png"))]
    rows[0] = rows[0].replace(",blue", ",green")

    def set_to(pattern: str, text: str) -> dict[str, bytes | None]:
        changed, count = re.subn(pattern, text, parameters, count=1)
        assert count == 1
        return {"params.yaml": changed.encode()}

    changes: dict[str, dict[str, bytes | None]] = {
        "as it was": {},
        "other labels": {"data/labels.csv": (labels.read_text("utf-8") + "".join(rows)).encode()},
        "one picture less": {red: None},
        "another picture": {red: (pictures / "red/000.png").read_bytes()[:-12] + new[-12:]},
        "a new picture": {"pictures/red/new.png": new[:-12] + b"\0\0\0\0tEXt" + new[-8:]},
        "another seed": set_to(r"\ntrain:\n  seed: 123", "\ntrain:\n  seed: 7"),
        "another rule": set_to("majority, min: 0.0", "majority, min: 0.1"),
        "another page": set_to("mistakes: 12", "mistakes: 5"),
    }
    base: dict[str, bytes | None] = {"pictures/red/new.png": None}
    for name in ("params.yaml", "data/labels.csv", red):
        base[name] = (folder / name).read_bytes()
    return {name: base | change for name, change in changes.items()}


def begin(folder: Path, words: list[str], days: float = 0) -> int:
    """Starts the pipeline, with a log of its own."""
    (folder.parent / "log").unlink(missing_ok=True)
    return begin_another(folder, words, days)


def begin_beside(folder: Path, words: list[str]) -> faults.Mend:
    """Starts another command; gives what waits for its end."""
    pid = begin_another(folder, words)
    return lambda: finish(pid, folder) and None


def begin_another(folder: Path, words: list[str], days: float = 0) -> int:
    temporary = folder.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = Project(folder).environment() | {
        "DARKROOM_CACHE": str(folder / ".cache"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc/site"),
        "TMPDIR": str(temporary),
    }
    return forks.start(folder, folder.parent / "log", environment, words, days * faults.DAY)


def finish(pid: int, folder: Path) -> tuple[int, str]:
    """Waits for the end of a run; gives its exit code, and what it has printed."""
    end = time.monotonic() + PATIENCE
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGUSR1)
            time.sleep(1)  # in which each says where it is
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return 1, f"not done in {PATIENCE} seconds\n{said(folder)}"
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1]), said(folder)


def said(folder: Path) -> str:
    log = folder.parent / "log"
    return log.read_text("utf-8", "replace") if log.exists() else ""


def last_line(folder: Path) -> str:
    lines = [line for line in said(folder).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "nothing said"


def digests(folder: Path) -> dict[str, str]:
    """All that dvc.lock has of each stage, by stage and path."""
    stages = YAML(typ="safe").load((folder / "dvc.lock").read_text("utf-8"))["stages"]
    return {
        f"{name} {kind} {part['path']}": part["md5"]
        for name, entry in stages.items()
        for kind in ("deps", "outs")
        for part in entry.get(kind, ())
        if part["path"] not in ELSE
    }


def outputs(folder: Path) -> Files:
    """All that stages have written, but for what hangs on more than inputs, and what DVC will sweep."""
    found = (path for name in OUTPUTS for path in (folder / name).rglob("*") if path.is_file())
    files = [path for path in found if not OF_DVC.fullmatch(path.name)]
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if name not in ELSE}


def left_over(folder: Path) -> list[str]:
    """Temporary files, and processes that are at work in the project."""
    # DVC's are swept when they are some minutes old, which tests/base/test_cli.py looks at.
    found = [path for path in folder.rglob(".*.tmp") if not OF_DVC.fullmatch(path.name)]
    found += (folder.parent / "tmp").iterdir()
    names = [path.relative_to(folder.parent).as_posix() for path in found]
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            if each.status() != psutil.STATUS_ZOMBIE and each.cwd() == str(folder):
                names.append(f"process {each.pid}")
    return names
