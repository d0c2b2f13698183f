"""Work on many things at once: in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
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
ANSWER = 5  # seconds that a scheduler has for its answer, and its workers to be there
AHEAD = 4  # items for each core of a cluster that are given out before the first of them is back
FEW = 2000  # pictures that are read sooner than processes start


def suited(compute: Compute, pictures: int) -> Compute:
    """No processes for a few pictures."""
    return replace(compute, workers=1) if pictures < FEW else compute


def each(work: Callable[[Item], Result], items: Iterable[Item], compute: Compute) -> Iterator[Result]:
    """Runs `work` on every item and gives the results in order, with few of them in memory at a time.

    What a worker that dies had in hand is given to another one.

    Args:
        work: a function of a module: processes find it by its name.

    Raises:
        WorkerError: workers died again and again, or no cluster answers, or it is lost.
    """
    if compute.scheduler == LOCAL:
        yield from _in_processes(work, items, compute.workers or joblib.cpu_count())
    else:
        yield from _on_cluster(work, items, compute.scheduler)


def _in_processes(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    waiting: deque[Item] = deque()

    def noted(items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            waiting.append(item)
            yield item

    rest = iter(items)
    for _ in range(TRIES):
        begun = list(waiting)
        waiting.clear()
        parallel = joblib.Parallel(workers, return_as="generator", batch_size=1)
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


def _on_cluster(work: Callable[[Item], Result], items: Iterable[Item], address: str) -> Iterator[Result]:
    """Through Dask's own futures: joblib's way to Dask leaves the work of a single worker to this process."""
    distributed: Any = importlib.import_module("distributed")  # a second, for those who have a cluster
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised
    with _client(distributed, address) as client:
        ahead = AHEAD * sum(client.ncores().values())
        begun: deque[Any] = deque()
        try:
            for item in items:
                begun.append(client.submit(work, item, pure=False))
                if len(begun) >= ahead:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        except distributed.KilledWorker:
            raise WorkerError(
                f"workers of {address} died again and again over the same work, as it happens when memory "
                "runs out; give them more, or start fewer on a machine"
            ) from None
        except (CancelledError, distributed.comm.CommClosedError):
            raise WorkerError(f"compute.scheduler {address!r} was lost; start it and its workers") from None


def _client(distributed: Any, address: str) -> Any:
    try:
        asyncio.run(asyncio.wait_for(_greet(distributed, address), 2 * ANSWER))
        client = distributed.Client(address, timeout=ANSWER, set_as_default=False)
    except Exception as error:  # of every kind: what answers may be anything
        raise WorkerError(
            f"compute.scheduler is {address!r}, where no Dask scheduler answers ({str(error) or 'silence'}); "
            f"start one there, or set it to {LOCAL!r} for processes of this machine"
        ) from None
    try:
        client.wait_for_workers(1, timeout=ANSWER)
        found = client.run(importlib.util.find_spec, "tasks")  # or its first item would end a worker
    except distributed.TimeoutError:
        found = {}
    if not found or None in found.values():
        client.close()
        lack = "a worker that does not find our code" if found else "no workers"
        raise WorkerError(
            f"compute.scheduler is {address!r}, which has {lack}; "
            f"start them from this folder: python -m dask worker {address}"
        )
    return client


async def _greet(distributed: Any, address: str) -> None:
    """Sees whether Dask answers: a client that finds nothing keeps on trying, and fails once more at exit."""
    security = distributed.security.Security().get_connection_args("client")
    comm = await distributed.comm.connect(address, timeout=ANSWER, **security)
    await comm.close()
