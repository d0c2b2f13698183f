"""Changes one thing in the code at random, and runs the tests that should notice: make mutants N=20

A mutant is a comparison, a condition, an operator or a number that is another; it is killed if a fast test of
its room fails. Each is told by seed and number. One that lives is a test that is missing, code that isn't
needed, or a change that makes no difference: which of them, a person says.
"""

import argparse
import ast
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tqdm import tqdm

from tests.structure import ROOT

PATIENCE = 900  # seconds for the tests of a room; a mutant may never end
OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """A file with one change: what stands at a place, and what in its place."""

    file: Path
    line: int
    was: str
    becomes: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.was}  ->  {self.becomes}"


def mutants(file: Path) -> Iterator[Mutant]:
    """All that a file of code may become."""
    text = (ROOT / file).read_text("utf-8")
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    data = text.encode()
    for node in _walk(ast.parse(text)):
        for was, becomes in _changes(node):
            start = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
            end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
            changed = data[:start] + f"({becomes})".encode() + data[end:]
            yield Mutant(file, node.lineno, was, becomes, changed.decode())  # type: ignore[attr-defined]


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, but for those within an f-string, whose places Python 3.11 doesn't know."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.JoinedStr):
            yield from _walk(child)


def _changes(node: ast.AST) -> Iterator[tuple[str, str]]:
    """What an expression may become."""
    if not isinstance(node, (ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Constant)):
        return
    was = ast.unparse(node)
    copy = ast.parse(was, mode="eval").body
    if isinstance(copy, ast.Compare) and type(copy.ops[0]) in OTHER:
        copy.ops[0] = OTHER[type(copy.ops[0])]()  # type: ignore[call-overload]
        yield was, ast.unparse(copy)
    elif isinstance(copy, (ast.BoolOp, ast.BinOp)) and type(copy.op) in OTHER:
        copy.op = OTHER[type(copy.op)]()  # type: ignore[assignment]
        yield was, ast.unparse(copy)
    elif isinstance(copy, ast.UnaryOp) and isinstance(copy.op, ast.Not):
        yield was, ast.unparse(copy.operand)
    elif isinstance(copy, ast.Constant) and isinstance(copy.value, bool):
        yield was, str(not copy.value)
    elif isinstance(copy, ast.Constant) and isinstance(copy.value, (int, float)):
        yield was, repr(copy.value + 1)


def tests_of(file: Path) -> str:
    """The tests of the room that a file lies in; of a stage or a command, those of the room of its name."""
    room = (
        file.parts[2] if file.parts[:2] == ("tasks", "core") else "flows" if file.parts[0] == "flows" else ""
    )
    named = {"validate": "validation", "build": "data", "train": "training", "evaluate": "evaluation"}
    named |= {"gate": "evaluation", "export": "artifacts", "latency": "artifacts", "report": "reporting"}
    named |= {"verdict": "evaluation", "predict": "inference", "cluster": "inference", "check": "validation"}
    return f"tests/{room or named.get(file.stem, 'base')}"


def outcome(mutant: Mutant, clone: Path) -> str:
    """What becomes of a mutant: killed, lives, or without an end."""
    place = clone / mutant.file
    before = place.read_bytes()
    place.write_text(mutant.text, "utf-8")
    try:
        return "lives" if do_pass(_nearest_first(mutant.file), clone) else "killed"
    except subprocess.TimeoutExpired:
        return "without an end"
    finally:
        place.write_bytes(before)


def _nearest_first(file: Path) -> list[str]:
    """The test files of a module's room, first those that name it: most mutants die in one of them."""
    room = ROOT / tests_of(file)
    tests = sorted(room.rglob("test_*.py"), key=lambda test: (file.stem not in test.read_text("utf-8"), test))
    return [str(test.relative_to(ROOT)) for test in tests]


def do_pass(tests: list[str], clone: Path) -> bool:
    """Whether all fast ones of some tests pass."""
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    done = subprocess.run([*words, *tests], cwd=clone, check=False, capture_output=True, timeout=PATIENCE)
    return done.returncode == 0


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    arguments.add_argument("-n", type=int, default=20, help="how many")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--in", dest="within", default="tasks", help="a folder, such as tasks/core/data")
    given = arguments.parse_args()
    files = sorted(path.relative_to(ROOT) for path in (ROOT / given.within).rglob("*.py"))
    everything = [mutant for file in files for mutant in mutants(file)]
    chosen = Random(given.seed).sample(everything, min(given.n, len(everything)))
    found: dict[str, list[Mutant]] = {"killed": [], "lives": [], "without an end": []}
    with tempfile.TemporaryDirectory(prefix="mutants-") as top:
        clone = Path(top) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for folder in ("flows", "tasks", "tests"):  # as they are now, and stay while others are edited
            shutil.copytree(ROOT / folder, clone / folder, dirs_exist_ok=True)
        (clone / ".venv").symlink_to(sys.prefix)
        for mutant in tqdm(chosen, "mutants", disable=None, leave=False):
            become = outcome(mutant, clone)
            found[become].append(mutant)
            if become != "killed":
                print(f"{become}: {mutant}", flush=True)
        # Tests that fail without a mutant would kill every one. Where one lives, all have passed.
        rooms = {tests_of(mutant.file) for mutant in chosen}
        broken = [
            room
            for room in sorted(rooms - {tests_of(mutant.file) for mutant in found["lives"]})
            if not do_pass([room], clone)
        ]
        shutil.rmtree(clone)
    counts = ", ".join(f"{len(mutants)} {become}" for become, mutants in found.items())
    print(f"{counts}, of {len(everything):,} that there are")
    for room in broken:
        print(f"{room} fails without a mutant too, so that nothing is shown of it")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
