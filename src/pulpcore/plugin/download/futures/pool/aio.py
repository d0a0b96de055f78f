"""Iteration over plans with ``async for``, while the downloads run in threads.

It supports asyncio and event loops that implement its interface, such as uvloop; not trio.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextvars import copy_context

from .window import D_co, Downloads, NotYet, Plan, Window, iterate

log = logging.getLogger(__name__)

_TURN = 0.01
"""How long a task may occupy the event loop before it yields to other tasks (seconds)."""

_PATIENCE = 1.0
"""How long a cancelled async iterable may take to end before it is cancelled again (seconds)."""

_TRIES = 5


class AsyncPlans(AsyncIterator[Plan[D_co]]):
    """The async iterator over a batch's plans. Only one task at a time may wait for a plan."""

    def __init__(self, window: Window[D_co]) -> None:
        """Create the iterator; a batch does.

        Args:
            window: The window that the plans come from.
        """
        self._window = window
        self._bell = Bell()
        self._turn = _Turn()
        self._feed: _Feed[D_co] | None = None
        self._is_waiting = False
        window.bell = self._bell.ring

    async def __anext__(self) -> Plan[D_co]:
        if self._is_waiting:
            raise RuntimeError("another task is waiting for a plan of this batch")
        self._is_waiting = True
        try:
            plan = self._window.given = await self._next()
            return plan
        finally:
            self._is_waiting = False

    def interrupt(self) -> None:
        """Cancel the async iterable and wake the task that waits for a plan. Thread-safe."""
        if self._feed is not None:
            self._feed.end()
        self._bell.ring()

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return the tasks that :meth:`interrupt` cancels. It doesn't wait for them."""
        return [] if self._feed is None else [self._feed.task]

    async def _next(self) -> Plan[D_co]:
        rung: asyncio.Future[None] | None = None
        while True:
            if self._turn.is_over:
                await self._turn.pass_on()
            plan = self._poll()
            if plan is not None:
                return plan
            if self._turn.is_over:
                continue
            if rung is None or rung.done():
                # Poll again: a plan may have ended before the bell could wake this task.
                rung = self._bell.listen()
                continue
            await rung
            self._turn.begin()

    def _poll(self) -> Plan[D_co] | None:
        window = self._window
        if window.source is None and not window.is_stopped():
            window.source = self._open(window)
        feed = self._feed
        try:
            return window.poll()
        except StopIteration:
            raise StopAsyncIteration from None
        finally:
            if feed is not None:
                if window.is_stopped():
                    feed.end()
                else:
                    feed.go_on()

    def _open(self, window: Window[D_co]) -> Iterator[D_co]:
        downloads = window.downloads
        # A class may be both an iterable and an async iterable. Prefer the one that doesn't
        # block the event loop.
        if isinstance(downloads, AsyncIterable):
            self._feed = _Feed(downloads, window, self._bell, self._turn)
            return self._feed
        return _Turns(downloads, self._turn)


class Bell:
    """Wakes a task from other threads. One call of :meth:`listen` is woken at most once."""

    def __init__(self) -> None:
        """Create a bell that no task listens to."""
        # A deque, since its pop() is atomic: two threads never pop the same future.
        self._listening: deque[asyncio.Future[None]] = deque(maxlen=1)

    def listen(self) -> asyncio.Future[None]:
        """Return a future that is done after the next :meth:`ring`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listening.append(future)
        return future

    def ring(self) -> None:
        """Wake the task that listens. Thread-safe. It does nothing if the loop is closed."""
        with contextlib.suppress(IndexError):
            future = self._listening.pop()
            _on_loop_of(future, _set, future)

    def ring_here(self) -> None:
        """Wake the task that listens. Call it only in the thread of the event loop."""
        with contextlib.suppress(IndexError):
            _set(self._listening.pop())


class _Turn:
    """Measures how long a task has occupied the event loop.

    Attributes:
        number (int): The number of the turn. Each yield to other tasks begins a new turn.
    """

    def __init__(self) -> None:
        self.number = 0
        self._began = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the task must yield to other tasks."""
        return time.monotonic() - self._began >= _TURN

    def begin(self) -> None:
        self.number += 1
        self._began = time.monotonic()

    async def pass_on(self) -> None:
        await asyncio.sleep(0)
        self.begin()


class _Turns(Iterator[D_co]):
    """The downloads of a plain iterable. At the end of a turn it raises NotYet."""

    def __init__(self, downloads: Downloads[D_co], turn: _Turn) -> None:
        self._downloads = downloads
        self._turn = turn
        self._source: Iterator[D_co] | None = None
        # The turn of the last download. Each turn takes at least one, so that there is progress.
        self._number = -1

    def __next__(self) -> D_co:
        if self._source is None:
            self._source = iterate(self._downloads)
        if self._number == self._turn.number and self._turn.is_over:
            raise NotYet
        self._number = self._turn.number
        return next(self._source)


class _Feed(Iterator[D_co]):
    """Reads an async iterable of downloads in one task, whenever the window has room.

    It is one task, and not one for each download: an async generator may then keep a time-out or a
    task group open across its yields, or set a context variable and reset it.

    The task itself adds the downloads to the window. So as an iterator this object never returns
    one. It raises NotYet while the task runs, and then what the async iterable raised.

    Attributes:
        task (asyncio.Task[None]): The task.
    """

    def __init__(
        self, downloads: AsyncIterable[D_co], window: Window[D_co], bell: Bell, turn: _Turn
    ) -> None:
        self._window = window
        self._turn = turn
        self._wanted = asyncio.Event()
        self._is_ended = False
        self.task = asyncio.get_running_loop().create_task(self._take(downloads))
        self.task.add_done_callback(lambda _: bell.ring_here())

    def __next__(self) -> D_co:
        if not self.task.done():
            raise NotYet
        # This raises the exception of the async iterable, if there was one.
        self.task.result()
        raise StopIteration

    def go_on(self) -> None:
        """Let the task read until the window is full or a plan has completed."""
        self._wanted.set()

    def end(self) -> None:
        """Cancel the task, once. Thread-safe."""
        if not self._is_ended:
            self._is_ended = True
            _on_loop_of(self.task, self.task.cancel)

    async def _take(self, downloads: AsyncIterable[D_co]) -> None:
        window = self._window
        iterator = aiter(downloads)
        try:
            # An iterable may swallow its cancellation, so check here whether the batch has ended.
            while not window.is_stopped():
                await self._wanted.wait()
                self._wanted.clear()
                while window.has_room:
                    window.add(await anext(iterator))
                    if window.completed:
                        break
                    if self._turn.is_over:
                        await self._turn.pass_on()
        except StopAsyncIteration:
            return
        finally:
            # If aiter() created the iterator, nobody else can close it. If the caller passed an
            # iterator, the caller may still use it.
            close = getattr(iterator, "aclose", None)
            if close is not None and iterator is not downloads:
                await close()


async def finish(function: Callable[[], object], tasks: list[asyncio.Task[None]]) -> None:
    """Run a blocking function in a new thread, and wait for it and for some tasks.

    If the current task is cancelled, it cancels the tasks, keeps waiting, and raises CancelledError
    at the end. A task that doesn't end is cancelled again, and abandoned after several tries.

    Args:
        function: The blocking function.
        tasks: The tasks to wait for.

    Raises:
        asyncio.CancelledError: The current task was cancelled.
        Exception: The function raised it.
    """
    done, thread = _run_in_thread(function)
    cancelled: tuple[object, ...] | None = None
    tries = _TRIES
    while waiting := [future for future in (done, *tasks) if not future.done()]:
        try:
            ended, _ = await asyncio.wait(waiting, timeout=_PATIENCE)
        except asyncio.CancelledError as error:
            cancelled = error.args
        else:
            if ended or not done.done():
                continue
            tries -= 1
        for task in tasks:
            task.cancel()
        if not tries:
            log.warning("The async iterable of a batch goes on, though it was cancelled")
            break
    if thread.ident is not None:
        # The thread is about to end, so this hardly blocks.
        thread.join()
    done.result()
    if cancelled is not None:
        raise asyncio.CancelledError(*cancelled)


def _run_in_thread(function: Callable[[], object]) -> tuple[asyncio.Future[None], threading.Thread]:
    """Run a function in a new thread; return a future of its end, and the thread."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - done.result() raises it in the task
            _on_loop_of(done, done.set_exception, error)
        else:
            _on_loop_of(done, _set, done)

    # Not the loop's default executor: all its threads may be busy, maybe with this batch.
    thread = threading.Thread(target=copy_context().run, args=(run,), name="batch-end")
    try:
        thread.start()
    except RuntimeError:
        # The system can't start a thread. The clean-up matters more than a responsive loop.
        run()
    return done, thread


def _on_loop_of(
    future: asyncio.Future[None], function: Callable[..., object], *arguments: object
) -> None:
    """Call a function in the loop of a future, if the loop is open. Thread-safe."""
    with contextlib.suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(function, *arguments)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
