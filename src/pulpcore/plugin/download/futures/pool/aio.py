"""Plans for ``async for``: how to wait on an event loop for what happens in threads.

It is for asyncio, and event loops made for it such as uvloop's; not for trio.
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

from ..download import Download
from .window import Downloads, NotYet, Plan, Window, iterate

log = logging.getLogger(__name__)

_TURN = 0.01
"""Seconds that a task keeps the event loop at a time."""

_PATIENCE = 1.0
"""Seconds that an async iterable has to end before it is cancelled once more."""

_TRIES = 5


class AsyncPlans(AsyncIterator[Plan]):
    """The plans of a batch, for ``async for``. One task at a time may wait for a plan."""

    def __init__(self, window: Window) -> None:
        """Make an iterator; a batch does.

        Args:
            window: Where the plans come from.
        """
        self._window = window
        self._bell = Bell()
        self._turn = _Turn()
        self._feed: _Feed | None = None
        self._is_waiting = False
        window.bell = self._bell.ring

    async def __anext__(self) -> Plan:
        if self._is_waiting:
            raise RuntimeError("another task is waiting for a plan of this batch")
        self._is_waiting = True
        try:
            plan = self._window.given = await self._next()
            return plan
        finally:
            self._is_waiting = False

    def interrupt(self) -> None:
        """End an async iterable, and have whoever waits look again. From any thread."""
        if self._feed is not None:
            self._feed.end()
        self._bell.ring()

    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks that :meth:`interrupt` ends, but doesn't wait for."""
        return [] if self._feed is None else [self._feed.task]

    async def _next(self) -> Plan:
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
                # And look again, for what came before anybody listened.
                rung = self._bell.listen()
                continue
            await rung
            self._turn.begin()

    def _poll(self) -> Plan | None:
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

    def _open(self, window: Window) -> Iterator[Download]:
        downloads = window.downloads
        # What can be iterated both ways does it here in the way that doesn't block the loop.
        if isinstance(downloads, AsyncIterable):
            self._feed = _Feed(downloads, window, self._bell, self._turn)
            return self._feed
        return _Turns(downloads, self._turn)


class Bell:
    """Wakes a task, from threads: once for each time that it listens, however often it is rung."""

    def __init__(self) -> None:
        """Make a bell that nobody hears."""
        # What is popped is nobody else's: so no thread takes a newer future for the one it saw.
        self._listening: deque[asyncio.Future[None]] = deque(maxlen=1)

    def listen(self) -> asyncio.Future[None]:
        """Return what is done when the bell is rung after this."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listening.append(future)
        return future

    def ring(self) -> None:
        """Wake the task, from any thread. Nothing happens where its loop was closed."""
        with contextlib.suppress(IndexError):
            future = self._listening.pop()
            _on_loop_of(future, _set, future)

    def ring_here(self) -> None:
        """Wake the task, from the thread of its loop."""
        with contextlib.suppress(IndexError):
            _set(self._listening.pop())


class _Turn:
    """How long a task has kept the event loop.

    Attributes:
        number (int): The number of the turn.
    """

    def __init__(self) -> None:
        self.number = 0
        self._began = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the other tasks are to have theirs."""
        return time.monotonic() - self._began >= _TURN

    def begin(self) -> None:
        self.number += 1
        self._began = time.monotonic()

    async def pass_on(self) -> None:
        await asyncio.sleep(0)
        self.begin()


class _Turns(Iterator[Download]):
    """Downloads of an iterable, as many as a turn is long: a large window isn't filled in one."""

    def __init__(self, downloads: Downloads, turn: _Turn) -> None:
        self._downloads = downloads
        self._turn = turn
        self._source: Iterator[Download] | None = None
        # The turn in which one was given last: each has one, however short it is.
        self._number = -1

    def __next__(self) -> Download:
        if self._source is None:
            self._source = iterate(self._downloads)
        if self._number == self._turn.number and self._turn.is_over:
            raise NotYet
        self._number = self._turn.number
        return next(self._source)


class _Feed(Iterator[Download]):
    """An async iterable of downloads, taken from by one task as far as it is told to.

    It is one task and not one for each download, so that an async generator may hold a time-out or
    a task group open, or set a context variable and reset it.

    As an iterator it has nothing to give: the task adds to the window what it takes. It only tells
    how the iterable ended.

    Attributes:
        task (asyncio.Task[None]): The task.
    """

    def __init__(
        self, downloads: AsyncIterable[Download], window: Window, bell: Bell, turn: _Turn
    ) -> None:
        self._window = window
        self._turn = turn
        self._wanted = asyncio.Event()
        self._is_ended = False
        self.task = asyncio.get_running_loop().create_task(self._take(downloads))
        self.task.add_done_callback(lambda _: bell.ring_here())

    def __next__(self) -> Download:
        if not self.task.done():
            raise NotYet
        # It raises what the iterable did.
        self.task.result()
        raise StopIteration

    def go_on(self) -> None:
        """Take as far as there is room, until there is a completed plan, which comes first."""
        self._wanted.set()

    def end(self) -> None:
        """Take no more, and end what the iterable waits for. From any thread."""
        if not self._is_ended:
            self._is_ended = True
            _on_loop_of(self.task, self.task.cancel)

    async def _take(self, downloads: AsyncIterable[Download]) -> None:
        window = self._window
        iterator = aiter(downloads)
        try:
            # Also an iterable that survives being cancelled is left when the batch has ended.
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
            # What the caller gave he may go on with. What was made here nobody else can close.
            close = getattr(iterator, "aclose", None)
            if close is not None and iterator is not downloads:
                await close()


async def finish(function: Callable[[], object], tasks: list[asyncio.Task[None]]) -> None:
    """Run a function that blocks in a thread of its own, and wait for it, and for tasks.

    It waits also when it is cancelled; the cancellation is raised then. A task that survives being
    cancelled is cancelled again, and left alone if that doesn't help either.

    Args:
        function: The function.
        tasks: The tasks. They are cancelled along with this one.

    Raises:
        Exception: What the function raised.
    """
    done, thread = _run_apart(function)
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
        # It has nothing left to do.
        thread.join()
    done.result()
    if cancelled is not None:
        raise asyncio.CancelledError(*cancelled)


def _run_apart(function: Callable[[], object]) -> tuple[asyncio.Future[None], threading.Thread]:
    """Run a function in a thread of its own; return a future of its end, and the thread."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - it is raised by the task
            _on_loop_of(done, done.set_exception, error)
        else:
            _on_loop_of(done, _set, done)

    # Not of the loop's own pool, whose threads may all be waiting for something.
    thread = threading.Thread(target=copy_context().run, args=(run,), name="batch-end")
    try:
        thread.start()
    except RuntimeError:
        # There is none to be had. It is no time to fail.
        run()
    return done, thread


def _on_loop_of(
    future: asyncio.Future[None], function: Callable[..., object], *arguments: object
) -> None:
    """Have a function called by the loop of a future, unless that was closed. From any thread."""
    with contextlib.suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(function, *arguments)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
