"""`python -m tests.fuzz [KIND ...] --count 1000 --seed 1`: tries inputs, and tells each that isn't one line.

`--only 17` tries one input again, and shows its traceback. An input has 10 seconds and 2 GB.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tasks.core.base.errors import DarkroomError
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS

SECONDS, MEMORY = 10, 2 << 30


class TooLongError(BaseException):
    """Nobody catches this by accident."""


def make(kind: str, seed: int, number: int) -> bytes:
    """The input of a seed and a number."""
    random, target = Random(f"{kind} {seed} {number}"), TARGETS[kind]
    return mutate(random.choice(target.sound), target.sound, target.words, random)


def fault(kind: str, data: bytes) -> str | None:
    """What is wrong with how an input is read; none if there is a result, or one line that says why not."""

    def ring(*_: Any) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, ring)
    with tempfile.TemporaryDirectory() as folder:
        signal.alarm(SECONDS)
        try:
            TARGETS[kind].read(data, Path(folder))
        except DarkroomError as error:
            return f"more than a line: {error}" if "\n" in str(error) else None
        except TooLongError:
            return f"took more than {SECONDS} seconds"
        except BaseException as error:  # of every kind: that is what is looked for
            place = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
    return None


def try_some(kind: str, seed: int, numbers: range) -> Iterator[tuple[int, str]]:
    """Tries inputs in a process of its own, and goes on after one that ends it."""
    assert TARGETS[kind].sound, "made before that process is forked"
    context = multiprocessing.get_context("fork")
    while numbers:
        here, there = context.Pipe()
        worker = context.Process(target=_work, args=(there, kind, seed, numbers))
        worker.start()
        there.close()
        at, tried = numbers.start, False
        while True:
            try:
                at, found = here.recv()
            except EOFError:
                break
            tried = True
            if found:
                yield at, found
        worker.join()
        at += tried
        if at == numbers.stop:
            return
        yield at, f"ended its process: exit code {worker.exitcode}"
        numbers = range(at + 1, numbers.stop)


def _work(there: Any, kind: str, seed: int, numbers: range) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders have to say
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for number in numbers:
        there.send((number, fault(kind, make(kind, seed, number))))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(TARGETS))
    parser.add_argument("--count", type=int, default=1000, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the number of one input")
    options = parser.parse_args()
    faults = 0
    for kind in options.kinds or TARGETS:
        if options.only is not None:
            data = make(kind, options.seed, options.only)
            print(data[:2000])
            with tempfile.TemporaryDirectory() as folder:
                print(TARGETS[kind].read(data, Path(folder)))
            continue
        start, own = time.perf_counter(), 0
        for number, found in try_some(kind, options.seed, range(options.count)):
            print(f"{kind!r} --seed {options.seed} --only {number}: {found}", flush=True)
            own += 1
        print(
            f"{kind}: {options.count:,} inputs, {own} faults, {time.perf_counter() - start:.0f} s", flush=True
        )
        faults += own
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
