"""Runs the small pipeline again and again, with a fault at a random moment: make soak ROUNDS=1000

Each round begins from the same finished project, edits an input, and runs `dvc repro`, or the flow; something
happens to it: a kill, a full disk, a right that is taken away, a damaged file, a clock that is wrong, another
edit, another command in the same project. What can't mend itself (a right, room, a damaged input) is mended,
and it runs again. Every run must end well, or with one line and an exit code; the last with the bytes of an
undisturbed run on the same inputs, and nothing left behind.

A round is told by seed and number: `python -m tests.soak --seed 1 --round 17` is the same one again, as far
as moments can be the same.
"""

import argparse
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from tests.soak import forks
from tests.soak.rounds import REPRO, Soak


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    arguments.add_argument("--rounds", type=int, default=300)
    arguments.add_argument("--first", type=int, default=0, help="the round to begin at, to go on with a seed")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--round", type=int, help="only this one, with all that is printed")
    arguments.add_argument(
        "--flow", action="store_true", help="by Prefect's flow, which takes five times as long"
    )
    given = arguments.parse_args()
    top = Path(tempfile.mkdtemp(prefix="soak-"))  # no context, which each fork would end
    try:
        soak = Soak.prepare(top, ["flows.pipeline", "--no-server"] if given.flow else REPRO)
        forks.warm()
        soak.learn()
        numbers = range(given.first, given.first + given.rounds) if given.round is None else [given.round]
        talks = given.round is not None
        failed = []
        with suppress(KeyboardInterrupt):  # thousands take hours, of which what was tried counts
            for number in tqdm(numbers, "soak", unit=" rounds", disable=None, leave=False):
                if not soak.run(given.seed, number, talks):
                    failed.append(number)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    for kind, count in sorted(soak.tried.items()):
        print(f"{count:5} {kind}")
    for number in failed:
        way = " --flow" if given.flow else ""
        print(f"failed: python -m tests.soak --seed {given.seed} --round {number}{way}")
    return 1 if failed or sum(soak.tried.values()) < len(numbers) else 0


if __name__ == "__main__":
    sys.exit(main())
