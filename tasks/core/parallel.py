"""Work on many things at once: in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from tasks.core.errors import WorkerError
from tasks.core.params import LOCAL, Compute

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 3
FEW = 2000  # pictures that are read sooner than processes start


def suited(compute: Compute, pictures: int) -> Compute:
    """No processes for a few pictures."""
    return replace(compute, workers=1) if pictures < FEW else compute


def each(work: Callable[[Item], Result], items: Iterable[Item], compute: Compute) -> Iterator[Result]:
    """Runs `work` on every item and gives the results in order, with few of them in memory at a time.

    The items of a worker process that dies are given to another one. Dask does so by itself.

    Args:
        work: a function of a module: processes find it by its name.

    Raises:
        WorkerError: workers died again and again, or no cluster answers.
    """
    waiting: deque[Item] = deque()

    def noted(items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            waiting.append(item)
            yield item

    rest = iter(items)
    for _ in range(TRIES):
        begun = list(waiting)
        waiting.clear()
        with _engine(compute) as parallel:
            try:
                for result in parallel(joblib.delayed(work)(item) for item in noted(chain(begun, rest))):
                    waiting.popleft()
                    yield result
                return
            except TerminatedWorkerError:
                continue
    raise WorkerError(
        f"processes were killed {TRIES} times over the same work, as it happens when memory runs out; "
        "set compute.workers to a smaller number"
    )


@contextmanager
def _engine(compute: Compute) -> Iterator[Any]:
    settings = {"return_as": "generator", "batch_size": 1}
    if compute.scheduler == LOCAL:
        yield joblib.Parallel(n_jobs=compute.workers or joblib.cpu_count(), **settings)
        return
    with _client(compute.scheduler) as client:
        with joblib.parallel_config("dask", client=client):
            parallel = joblib.Parallel(n_jobs=-1, **settings)
        yield parallel


def _client(address: str) -> Any:
    distributed: Any = importlib.import_module("distributed")  # a second, for those who have a cluster

    try:
        return distributed.Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise WorkerError(
            f"compute.scheduler is {address!r}, where no Dask scheduler answers ({error}); "
            f"start one there, or set it to {LOCAL!r} for processes of this machine"
        ) from None
