"""Work on many things at once: in processes of this machine, or on a Dask cluster."""

import asyncio
import importlib.util
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any, TypeVar

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from tasks.core.base.errors import WorkerError
from tasks.core.data.config import LOCAL, Processes

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 3
ANSWER = 5  # seconds that a scheduler has for its answer, and its workers to be there
AHEAD = 4  # items for each process that are given out before the first of them is back
MIN_SHARED_WORK = 2000  # small images; fewer are read sooner than processes start
BYTES_PER_WORK = 30_000  # bytes; reading an image takes as long again for each so many of them


def limit_workers(compute: Processes, sizes: Iterable[int]) -> Processes:
    """No processes for what is read sooner than they start.

    Args:
        sizes: bytes of each image; no more are asked for than it takes to see that there are enough.
    """
    effort = 0.0
    for size in sizes:
        effort += 1 + size / BYTES_PER_WORK
        if effort >= MIN_SHARED_WORK:
            return compute
    return replace(compute, workers=1)


def each(
    work: Callable[[Item], Item | Result],
    items: Iterable[Item],
    compute: Processes,
    is_done: Callable[[Item], bool] = lambda _: False,
) -> Iterator[Any]:
    """Runs `work` on every item and gives the results in order, with few of them in memory at a time.

    What a worker that dies had in hand is given to another one.

    Args:
        work: a function of a module: processes find it by its name.
        is_done: tells an item that is its own result. No process is started before another one comes.

    Raises:
        WorkerError: workers died again and again, or no cluster answers, or it is lost.
    """
    assert work.__module__ != "__main__", "of a stage that was started, whose names no process finds"
    if compute.scheduler != LOCAL:
        pool: _Processes | _Cluster = _Cluster(compute.scheduler)
    elif (workers := compute.workers or joblib.cpu_count()) > 1:
        pool = _Processes(workers)
    else:
        yield from (item if is_done(item) else work(item) for item in items)
        return
    begun: deque[Any] = deque()
    try:
        for item in items:
            begun.append(_finish(item) if is_done(item) else pool.submit(work, item))
            if len(begun) >= pool.ahead:
                yield pool.result(begun)
        while begun:
            yield pool.result(begun)
    finally:
        pool.close(begun)


def _finish(item: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(item)
    return future


class _Processes:
    """Processes of this machine. When one dies, the others are ended, and new ones go on with their work."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.ahead = AHEAD * workers
        self.given: dict[Future[Any], tuple[Any, Any]] = {}

    def submit(self, work: Any, item: Any) -> Future[Any]:
        future: Future[Any]
        try:
            future = get_reusable_executor(self.workers).submit(work, item)  # new ones, if one has died
        except TerminatedWorkerError as error:  # in this very moment
            future = Future()
            future.set_exception(error)
        self.given[future] = (work, item)
        return future

    def result(self, begun: deque[Future[Any]]) -> Any:
        """Takes the first result, and waits for it."""
        for _ in range(TRIES):
            try:
                result = begun[0].result()
            except TerminatedWorkerError:
                for place, future in enumerate(begun):
                    if future.done() and isinstance(future.exception(), TerminatedWorkerError):
                        begun[place] = self.submit(*self.given.pop(future))
            else:
                self.given.pop(begun.popleft(), None)
                return result
        raise WorkerError(
            f"processes were killed {TRIES} times over the same work, as it happens when memory runs out; "
            "set compute.workers to a smaller number"
        )

    def close(self, begun: deque[Future[Any]]) -> None:
        """Leaves the processes to those who come next, unless they are in the middle of something."""
        if begun and self.given:
            get_reusable_executor(self.workers).shutdown(kill_workers=True)


class _Cluster:
    """A Dask cluster, by its own futures: joblib would do in this process what is for a single worker."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client: Any = None
        self.ahead = 1

    def submit(self, work: Any, item: Any) -> Any:
        if self.client is None:
            self.client = _client(self.address)
            self.ahead = AHEAD * sum(self.client.ncores().values())
        return self.client.submit(work, item, pure=False)

    def result(self, begun: deque[Any]) -> Any:
        distributed = _import_distributed()
        try:
            return begun.popleft().result()
        except distributed.KilledWorker:
            raise WorkerError(
                f"workers of {self.address} died again and again over the same work, as it happens when "
                "memory runs out; give them more, or start fewer on a machine"
            ) from None
        except (CancelledError, distributed.comm.CommClosedError):
            raise WorkerError(
                f"compute.scheduler {self.address!r} was lost; start it and its workers"
            ) from None

    def close(self, _begun: deque[Any]) -> None:
        if self.client is not None:
            self.client.close()


def _import_distributed() -> Any:
    distributed = importlib.import_module("distributed")  # a second, for those who have a cluster
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised
    return distributed


def _client(address: str) -> Any:
    distributed = _import_distributed()
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
