"""Runs many downloads in parallel on a pool of threads."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

from .context import Context
from .engine.attempt import record_of
from .pool.executors import has_threads, lend
from .pool.threads import Engine, Threads
from .pool.window import D_co, Downloads, Plan, Window, iterate
from .settings import Limits
from .waiting.cancellation import Cancellation, current

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Executor

    from .engine.tracing import Tracing
    from .pool.aio import AsyncPlans

__all__ = ["BACKLOG", "CONCURRENT", "Batch", "Plan", "PlanIterator"]

CONCURRENT = 4
"""The default number of downloads that run in parallel."""

BACKLOG = 1024
"""The default of ``backlog``: downloads taken from the iterable and not yet returned as plans."""

_SHUT_DOWN = "the batch was shut down"
_names = itertools.count(1)


class PlanIterator(Iterator[Plan[D_co]], AsyncIterator[Plan[D_co]]):
    """Yields the plans of a batch in the order of completion, by ``for`` or ``async for``.

    Only the thread that iterates over the plans takes downloads from the iterable, and never more
    than the backlog allows. So a slow consumer slows the batch down (back-pressure).
    """

    def __init__(self, window: Window[D_co]) -> None:
        """Store the window. A batch creates its iterator itself.

        Args:
            window: The source of the plans.
        """
        self._window = window
        self._async: AsyncPlans[D_co] | None = None
        # Works as a lock: the running call of __next__() has put its object here.
        self._turn: dict[None, object] = {}

    def __iter__(self) -> Self:
        window = self._window
        if not isinstance(window.downloads, Iterable) and not window.is_stopped():
            iterate(window.downloads)  # which raises
        return self

    def __next__(self) -> Plan[D_co]:
        window, mine, turn = self._window, object(), self._turn
        # A signal handler may raise KeyboardInterrupt at any call in here. So the last statement
        # before the return marks the plan as returned, and the ``finally`` block makes no calls.
        try:
            if turn.setdefault(None, mine) is not mine:
                raise RuntimeError("the batch is being iterated already, by another thread")
            while (plan := window.poll()) is None:
                if not window.outstanding:
                    raise RuntimeError("the batch is already iterated by `async for`, not `for`")
                window.wait()
            window.given = plan
            return plan
        finally:
            try:
                if turn[None] is mine:
                    del turn[None]
            except KeyError:
                pass

    def __aiter__(self) -> AsyncIterator[Plan[D_co]]:
        if self._async is None:
            if self._window.source is not None:
                raise RuntimeError("the batch is already iterated by `for`, not `async for`")
            from .pool.aio import AsyncPlans  # noqa: PLC0415 - asyncio takes long to import

            self._async = AsyncPlans(self._window)
        return self._async

    def __anext__(self) -> Awaitable[Plan[D_co]]:
        return aiter(self).__anext__()

    def interrupt(self) -> None:
        """Wake an ``async for`` after the batch was shut down. Any thread may call this."""
        if self._async is not None:
            self._async.interrupt()

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return the task that advances an async iterable, to wait for after :meth:`interrupt`."""
        return [] if self._async is None else self._async.tasks()


class Batch(Generic[D_co]):
    """Runs downloads on a pool of threads.

    ::

        with Batch(downloads) as batch:
            for plan in batch():
                try:
                    plan.result()
                except DownloadError as error:
                    print(error)

    The end of the ``with`` block shuts the batch down, also after an exception or Ctrl-C. The batch
    sets its context on each download, so that the downloads share sessions, connections and tokens.
    Each download runs in a copy of the ``contextvars`` context in which it was taken from the
    iterable.

    With asyncio use ``async with`` and ``async for``. The downloads still run on the pool of
    threads, and don't block the event loop. ``downloads`` may be an async iterable then. One task
    advances it, in a copy of the ``contextvars`` context in which the iteration began. Cancelling
    the task that runs the ``async for`` loses no plan.

    Attributes:
        downloads (Iterable[Download] | AsyncIterable[Download]):
            The downloads.
        concurrent (int):
            The number of downloads that run in parallel.
        backlog (int):
            The most downloads that were taken from the iterable and not yet returned.
        context (Context):
            The state that the downloads share.
        limits (Limits | None):
            The limits that the downloads share.
        tracing (Tracing | None):
            What traces the downloads: see
            :func:`~pulpcore.plugin.download.futures.telemetry.instrument`.
        iterator (PlanIterator):
            The plans.
    """

    def __init__(
        self,
        downloads: Downloads[D_co],
        concurrent: int = CONCURRENT,
        backlog: int | None = None,
        context: Context | None = None,
        executor: Executor | None = None,
        limits: Limits | None = None,
        pipeline: int | None = None,
    ) -> None:
        """Check the arguments. No download starts before the iteration begins.

        Args:
            downloads: Any iterable of downloads, also a lazy or endless one. Only the thread that
                iterates over the plans advances it. An async iterable needs ``async for``.
            concurrent: The number of downloads that run in parallel, at least 1.
            backlog: The most downloads that were taken from the iterable and not yet returned as
                plans, at least ``concurrent``. By default ``BACKLOG``, or with worker processes
                what fills two chunks for each worker.
            context: The state that the downloads share. By default the batch creates a context, and
                closes it at its end.
            executor: Runs the downloads; None for threads of the batch's own. The threads of a
                ``ThreadPoolExecutor``, or the workers of any other executor, such as a
                ``ProcessPoolExecutor`` or Dask's ``client.get_executor()``. Each worker runs
                ``concurrent`` downloads in parallel. The batch doesn't shut the executor down.
            limits: The limits that the downloads share. They hold beside those that a download has
                itself. Batches with the same object share its limits.
            pipeline: How many requests for small files may be sent on one connection before the
                first is answered. By default up to 8, to hosts that are far away; 1 for no
                pipelining.

        Raises:
            ValueError: A number is too small, the executor isn't supported, or ``context`` was
                given for worker processes, with which it can't be shared.
            TypeError: The downloads can't be iterated, the executor is none, or the limits are no
                Limits.
        """
        is_remote = executor is not None and not has_threads(executor)
        if is_remote and context is not None:
            raise ValueError("context: can't be shared with the worker processes of an executor")
        self._is_growing = is_remote and backlog is None
        if backlog is None:
            backlog = max(BACKLOG, concurrent) if isinstance(concurrent, int) else BACKLOG
        _check(downloads, concurrent, backlog, 1 if pipeline is None else pipeline)
        self._pipeline = pipeline
        self.limits = None if limits is None else Limits.of(limits)
        self.downloads = downloads
        self.concurrent = concurrent
        self.backlog = backlog
        self.context = Context() if context is None else context
        self._owns_context = context is None
        # A handler of another batch may run this batch. The other's shutdown then stops it, too.
        self._cancellation = Cancellation(current())
        self._engine = self._engine_of(executor, f"batch-{next(_names)}")
        self._window = Window(
            downloads, self._start, self._finish, self._cancellation.is_cancelled, backlog
        )
        self.iterator = PlanIterator(self._window)
        self.tracing: Tracing | None = None
        self._is_started = False

    @property
    def is_shutdown(self) -> bool:
        """Whether the batch was shut down, or all its plans were returned."""
        return self._cancellation.is_cancelled()

    def download(self) -> PlanIterator[D_co]:
        """Start the batch.

        Returns:
            The iterator of plans, in the order of completion. Each call returns the same one.

        Raises:
            RuntimeError: The batch was shut down before it was started.
        """
        if self.is_shutdown and not self._is_started:
            raise RuntimeError("a batch can't be started after it was shut down")
        self._is_started = True
        return self.iterator

    def __call__(self) -> PlanIterator[D_co]:
        """Start the batch; the same as :meth:`download`."""
        return self.download()

    def shutdown(self) -> None:
        """Start no more downloads, cancel the running ones, and wait for their threads to end.

        Downloads that run or wait fail with DownloadFailed, and leave no partial files. Connecting,
        reading and a back-off are cancelled at once. Only a name look-up can't be cancelled, so
        this method may block for as long as the system's resolver takes.

        This method can be called more than once, and by a signal handler. It doesn't wait if a
        handler of one of the batch's downloads calls it. It blocks the calling thread, so in async
        code leave the ``async with`` block instead.
        """
        self._cancellation.cancel(_SHUT_DOWN)
        self.iterator.interrupt()
        here = current()
        is_inside = here is not None and here.within(self._cancellation)
        self._engine.stop()
        if not is_inside:
            self._engine.join()
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        from .pool.aio import finish  # noqa: PLC0415 - asyncio takes long to import

        await finish(self.shutdown, self.iterator.tasks())

    def __repr__(self) -> str:
        return f"<Batch concurrent={self.concurrent} backlog={self.backlog}>"

    def _engine_of(self, executor: Executor | None, name: str) -> Engine:
        """Return the engine that executes the plans."""
        token, concurrent = self._cancellation, self.concurrent
        if executor is None:
            return Threads(concurrent, name, token, None, self._pipeline)
        if has_threads(executor):
            return Threads(concurrent, name, token, lend(executor, token.cancel), self._pipeline)
        from .engine.spec import Packer  # noqa: PLC0415 - few batches need it
        from .pool.chunks import Chunks  # noqa: PLC0415 - few batches need multiprocessing
        from .pool.executors import processes  # noqa: PLC0415 - few batches need it

        backlog = None if self._is_growing else self.backlog
        packer = Packer(self.limits)
        return Chunks(
            processes(executor),
            concurrent,
            name,
            token,
            packer,
            backlog,
            self._resize,
            self._pipeline,
        )

    def _resize(self, backlog: int) -> None:
        self.backlog = self._window.backlog = backlog

    def _start(self, plan: Plan[Any], complete: Callable[[Plan[Any]], object]) -> None:
        plan.download.context = self.context
        if self.limits is not None:
            record_of(plan.download).limits = self.limits
            plan.is_limited = True
        if self.tracing is not None:
            record_of(plan.download).tracing = self.tracing
        self._engine.start(plan, complete)

    def _finish(self) -> None:
        """Stop the threads at the end of the iteration. All of them are idle then."""
        self._cancellation.cancel("the batch has come to its end")
        self._engine.stop()
        self._engine.join()
        self._end()

    def _end(self) -> None:
        self._cancellation.close()
        if self._owns_context:
            self.context.close()


def _check(downloads: object, concurrent: int, backlog: int, pipeline: int) -> None:
    """Check the arguments of a batch."""
    numbers = {"concurrent": concurrent, "backlog": backlog, "pipeline": pipeline}
    for name, number in numbers.items():
        if not isinstance(number, int):
            raise ValueError(  # noqa: TRY004 - as for any other number that can't be
                f"{name}: must be a whole number, not {number!r}"
            )
        if number < 1 and name != "backlog":
            raise ValueError(f"{name}: must be 1 or more, not {number}")
    if backlog < concurrent:
        raise ValueError(f"backlog: must be no fewer than concurrent ({concurrent}), not {backlog}")
    if not isinstance(downloads, Iterable | AsyncIterable):
        raise TypeError(f"downloads: must be an iterable, not {type(downloads).__name__}")
