"""Running many downloads at once, on a pool of threads."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .context import Context
from .pool.threads import Threads
from .pool.window import Downloads, Plan, Window, iterate
from .waiting.cancellation import Cancellation, current

if TYPE_CHECKING:
    import asyncio

    from .pool.aio import AsyncPlans

__all__ = ["BACKLOG", "CONCURRENT", "Batch", "Plan", "PlanIterator"]

CONCURRENT = 4
"""How many downloads run at once by default."""

BACKLOG = 1024
"""How many downloads are taken from the iterable and not yet handed back, at most, by default."""

_SHUT_DOWN = "the batch was shut down"
_names = itertools.count(1)


class PlanIterator(Iterator[Plan], AsyncIterator[Plan]):
    """The plans of a batch, in the order in which they are completed.

    For ``for``, and in async code for ``async for``. The iterable of downloads is only ever
    advanced by the thread that iterates here, and at most as far as the backlog allows: a consumer
    that is slow slows the batch.
    """

    def __init__(self, window: Window) -> None:
        """Make an iterator; a batch does.

        Args:
            window: Where the plans come from.
        """
        self._window = window
        self._async: AsyncPlans | None = None
        # What belongs to the call of __next__() that is being made, if there is one.
        self._turn: dict[None, object] = {}

    def __iter__(self) -> Self:
        window = self._window
        if not isinstance(window.downloads, Iterable) and not window.is_stopped():
            iterate(window.downloads)  # which raises
        return self

    def __next__(self) -> Plan:
        window, mine, turn = self._window, object(), self._turn
        # A signal may come at each call in here. So the plan counts as handed back by the last
        # step before the return, and the turn is given back by steps that are no calls.
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

    def __aiter__(self) -> AsyncIterator[Plan]:
        if self._async is None:
            if self._window.source is not None:
                raise RuntimeError("the batch is already iterated by `for`, not `async for`")
            from .pool.aio import AsyncPlans  # noqa: PLC0415 - asyncio takes long to import

            self._async = AsyncPlans(self._window)
        return self._async

    def __anext__(self) -> Awaitable[Plan]:
        return aiter(self).__anext__()

    def interrupt(self) -> None:
        """Have an ``async for`` look again, from any thread: the batch was shut down."""
        if self._async is not None:
            self._async.interrupt()

    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks to wait for after :meth:`interrupt`: that of an async iterable."""
        return [] if self._async is None else self._async.tasks()


class Batch:
    """Runs downloads on a pool of threads.

    ::

        with Batch(downloads) as batch:
            for plan in batch():
                try:
                    plan.result()
                except DownloadError as error:
                    print(error)

    Leaving the ``with``, by an exception or Ctrl-C too, shuts the batch down. All downloads get the
    batch's context and share sessions, connections and tokens by it. Each runs in a copy of the
    ``contextvars`` context in which it was taken from the iterable.

    In code that runs by asyncio it is the same with ``async with`` and ``async for``. The downloads
    still run on the pool of threads; the event loop isn't blocked. The downloads may come from an
    async iterable there, which runs in one task of its own: in a copy of the ``contextvars``
    context in which the iteration began. An ``async for`` that is cancelled loses no plan.

    Attributes:
        downloads (Iterable[Download] | AsyncIterable[Download]): The downloads.
        concurrent (int): How many run at once.
        backlog (int): How many may be taken from the iterable and not yet handed back.
        context (Context): What the downloads share.
        iterator (PlanIterator): The plans.
    """

    def __init__(
        self,
        downloads: Downloads,
        concurrent: int = CONCURRENT,
        backlog: int = BACKLOG,
        context: Context | None = None,
    ) -> None:
        """Make a batch.

        Args:
            downloads: Any iterable of downloads, lazy and endless ones included. It is only ever
                advanced by the thread that iterates the plans. An async iterable is for
                ``async for`` only.
            concurrent: How many run at once; 1 or more.
            backlog: How many may be taken from the iterable and not yet handed back; no fewer than
                ``concurrent``.
            context: What the downloads share. By default one of the batch's own, which ends with
                it.

        Raises:
            ValueError: A number is too small.
            TypeError: The downloads can't be iterated.
        """
        for name, number in (("concurrent", concurrent), ("backlog", backlog)):
            if not isinstance(number, int):
                raise ValueError(  # noqa: TRY004 - as for any other number that can't be
                    f"{name}: must be a whole number, not {number!r}"
                )
        if concurrent < 1:
            raise ValueError(f"concurrent: must be 1 or more, not {concurrent}")
        if backlog < concurrent:
            raise ValueError(
                f"backlog: must be no fewer than concurrent ({concurrent}), not {backlog}"
            )
        if not isinstance(downloads, Iterable | AsyncIterable):
            raise TypeError(f"downloads: must be an iterable, not {type(downloads).__name__}")
        self.downloads = downloads
        self.concurrent = concurrent
        self.backlog = backlog
        self.context = Context() if context is None else context
        self._owns_context = context is None
        # A batch that is run by a handler of another batch stops with that one.
        self._cancellation = Cancellation(current())
        self._engine = Threads(concurrent, f"batch-{next(_names)}", self._cancellation)
        self.iterator = PlanIterator(
            Window(downloads, self._start, self._finish, self._cancellation.is_cancelled, backlog)
        )
        self._is_started = False

    @property
    def is_shutdown(self) -> bool:
        """Whether it was shut down, or has come to its end."""
        return self._cancellation.is_cancelled()

    def download(self) -> PlanIterator:
        """Start the batch.

        Returns:
            The one iterator of plans, in the order in which they are completed.

        Raises:
            RuntimeError: The batch was shut down before it was started.
        """
        if self.is_shutdown and not self._is_started:
            raise RuntimeError("a batch can't be started after it was shut down")
        self._is_started = True
        return self.iterator

    def __call__(self) -> PlanIterator:
        """Start the batch; the same as :meth:`download`."""
        return self.download()

    def shutdown(self) -> None:
        """End the batch: start nothing new, stop what runs, and wait until it has stopped.

        What waits and what runs ends with DownloadFailed, and nothing partial is left. A download
        is stopped at once, also in the middle of a read or a back-off; only the look-up of a name
        and a connection that is being made can't be cut short. The wait is bounded by them: by the
        resolver's own limit, and ``timeout.connect`` seconds for each address of the host. Called
        by a handler of one of its downloads, it doesn't wait. It can be called again. A signal
        handler may call it.

        It blocks its thread. So in async code leave the ``async with`` instead, which lets the
        event loop run meanwhile.
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

    def _start(self, plan: Plan, complete: Callable[[Plan], object]) -> None:
        plan.download.context = self.context
        self._engine.start(plan, complete)

    def _finish(self) -> None:
        """Stop the threads at the end of the iteration; they are idle."""
        self._cancellation.cancel("the batch has come to its end")
        self._engine.stop()
        self._engine.join()
        self._end()

    def _end(self) -> None:
        self._cancellation.close()
        if self._owns_context:
            self.context.close()
