"""The engine of a batch on an executor whose workers are other processes.

The engine sends plans in chunks of about a second's work, two for each worker: one runs, and one
waits. One thread packs the chunks, submits them to the executor, and reads the reports. The
consumer's thread and the callbacks of futures only wake that thread. So there are no locks, and
KeyboardInterrupt in the main thread can't lose a plan.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

from .. import redact
from ..download import Download
from ..engine.attempt import record_of
from ..engine.report import Report
from ..engine.run import Wait
from ..engine.spec import Packer, blocks, check
from ..error import DownloadFailed
from ..event import Event, Failed, Succeeded
from ..waiting.cancellation import Cancellation
from ..waiting.threads import Workers
from ..waiting.timer import Alarm, timer
from .executors import Processes, broken
from .folder import Folder
from .pending import Item, Pending
from .portions import LINGER, Portions
from .threads import EXITING, forget, open_engines, stop_at_exit
from .window import Plan
from .worker import STOPPED, Reply, work

log = logging.getLogger(__name__)

_LOOK = 1.0
"""How often the engine reads early reports of the running chunks (seconds)."""

_LAST = 5.0
"""How long a shutdown waits for the running chunks (seconds)."""


@dataclass(eq=False)
class _Sent:
    """A chunk that was submitted to the executor.

    Attributes:
        number (int): Its number.
        items (dict[int, Item]): The downloads that were not reported yet, by their index in it.
        folder (Folder): The batch's folder.
        is_retry (bool): Whether it is a single download that is sent again after its worker died
            or refused it.
        offset (int): How much of its early reports was read (bytes).
        is_shown (bool): A progress monitor knows that a worker runs it.
        future (Future): The future of the executor.
    """

    number: int
    items: dict[int, Item]
    folder: Folder
    is_retry: bool
    future: Future[Any] = field(init=False)
    offset: int = 0
    is_shown: bool = False

    @property
    def is_begun(self) -> bool:
        """Whether a worker has begun it. False, too, if they share no file system."""
        return self.folder.is_begun(self.number)

    def show_begun(self) -> None:
        """Tell a progress monitor that a worker runs the chunk, so that others don't only wait."""
        if not self.is_shown and self.is_begun:
            self.is_shown = True
            for item in itertools.islice(self.items.values(), 1):
                _show(item, None)

    def show(self, waits: dict[int, Wait]) -> None:
        """Tell progress monitors what the downloads wait for.

        Args:
            waits: The waits by the index of the download, as their worker has reported them. They
                end so many seconds from now. The other downloads get on.
        """
        now = time.monotonic()
        for index, item in self.items.items():
            wait = waits.get(index)
            _show(item, None if wait is None else wait.moved(now))

    def given_up(self, is_begun: bool | None = None) -> Iterable[Item]:
        """Return the downloads whose outcome will not be reported any more.

        If a worker had begun the chunk, they count as executed, so that they send Failed.

        Args:
            is_begun: Whether a worker had begun it; None to check.
        """
        is_begun = self.is_begun if is_begun is None else is_begun
        for plan, _ in self.items.values():
            plan.executed = plan.executed or is_begun
        return self.items.values()


class _Reminder:
    """A timer that wakes the engine's thread."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._alarm: Alarm | None = None
        # When the alarm rings (``time.monotonic()``).
        self._due = float("-inf")

    def set(self, seconds: float) -> None:
        """Wake the thread after so many seconds, or earlier if an earlier time is set already."""
        now = time.monotonic()
        if now < self._due <= now + seconds:
            return
        self.cancel()
        self._due = now + seconds
        with contextlib.suppress(RuntimeError):
            self._alarm = timer.set(seconds, self._wake)

    def cancel(self) -> None:
        """Cancel the timer."""
        if self._alarm is not None:
            timer.cancel(self._alarm)


@dataclass(eq=False)
class _Call:
    """A call that is asked for.

    Attributes:
        is_begun (bool): The thread has begun it.
    """

    is_begun: bool = False


class _Bell:
    """Calls a function in the engine's thread, once for all requests before the call begins."""

    def __init__(self, workers: Workers, function: Callable[[], object]) -> None:
        self._workers, self._function = workers, function
        self._latest = _Call(is_begun=True)

    def ring(self) -> None:
        """Ask for the call. Only one thread may do so.

        Raises:
            RuntimeError: The system can't start a thread.
        """
        if not self._latest.is_begun:
            return
        call = _Call()
        self._workers.run(functools.partial(self._begin, call))
        # Set this last: an interrupt may cut run() short.
        self._latest = call

    def _begin(self, call: _Call) -> None:
        call.is_begun = True
        self._function()


class Chunks:
    """Executes plans in the worker processes of an executor."""

    def __init__(
        self,
        executor: Processes,
        concurrent: int,
        name: str,
        cancellation: Cancellation,
        packer: Packer,
        backlog: int | None,
        resize: Callable[[int], object],
        pipeline: int | None = None,
    ) -> None:
        """Create an engine; :meth:`start` starts its thread.

        Args:
            executor: The executor.
            concurrent: The number of downloads that a worker runs in parallel.
            name: The prefix of the thread's name.
            cancellation: The token that stops the plans.
            packer: Pickles the downloads of the batch.
            backlog: The most plans that are started and not returned; None for two chunks a worker.
            resize: Called with the backlog when it changes.
            pipeline: How many requests a worker sends together; None for the default.
        """
        self.cancellation = cancellation
        # The thread that iterates over the batch; None before it starts.
        self.consumer: int | None = None
        self._executor = executor
        self._settings = executor.is_local, concurrent, pipeline
        self._is_growing = backlog is None
        self._resize = resize
        self._workers = Workers(1, name)
        self._new: deque[tuple[Plan, Callable[[Plan], object]]] = deque()
        self._is_woken = False
        self._bell = _Bell(self._workers, self._step)
        self._complete: Callable[[Plan], object]
        # Only the engine's thread uses the attributes below.
        self._batch = uuid.uuid4().hex
        self._folder: Folder | None = None
        self._packer = packer
        self._pending = Pending()
        # Downloads whose worker died or refused them. They are sent one by one, before all others.
        self._suspects: deque[Item] = deque()
        self._sent: dict[int, _Sent] = {}
        self._number = 0
        self._portions = Portions(concurrent, backlog)
        self._reminder = _Reminder(self.wake)
        # When the early reports were last read (``time.monotonic()``).
        self._looked = float("-inf")
        stop_at_exit(self)
        cancellation.attach(self)

    def start(self, plan: Plan, complete: Callable[[Plan], object]) -> None:
        """Execute a plan in a worker.

        If it is called twice with the same plan, the plan runs once.

        Args:
            plan: The plan.
            complete: Called with the plan when it has ended.
        """
        self.consumer = threading.get_ident()
        self._new.append((plan, complete))
        try:
            self._bell.ring()
        except RuntimeError as error:
            # The system can't start a thread.
            if plan.claim():
                plan.error = error
                complete(plan)

    def stop(self) -> None:
        """Stop the workers' chunks, and end the engine's thread. See :meth:`join`."""
        with contextlib.suppress(RuntimeError):
            self._workers.run(self._end)
        self._workers.stop()

    def join(self, seconds: float = float("inf")) -> None:
        """Wait for the end, after :meth:`stop`.

        Args:
            seconds: The time-out (seconds).
        """
        self._workers.join(seconds)
        self.cancellation.detach(self)
        forget(self)

    def wake(self, *_: object) -> None:
        """Have the engine's thread receive replies and send chunks. Any thread may call this."""
        self._is_woken = True
        with contextlib.suppress(RuntimeError):
            self._workers.run(self._step)

    def _step(self) -> None:
        """Receive replies and send chunks. Return at once if an earlier call has done it."""
        if not self._new and not self._is_woken:
            return
        self._is_woken = False
        try:
            self._take()
            self._receive()
            if not self.cancellation.is_cancelled():
                self._send()
        except Exception as error:  # noqa: BLE001 - the plans must end, also with a bug
            # Only once, because a cancellation wakes this thread again.
            if not self.cancellation.is_cancelled():
                self.cancellation.cancel(broken(error))
        if self.cancellation.is_cancelled():
            self._end()

    def _take(self) -> None:
        """Take the plans that the batch has started."""
        while self._new:
            plan, self._complete = self._new.popleft()
            if not plan.claim():
                continue
            try:
                self._pending.add([(plan, check(plan.download))])
            except Exception as error:  # noqa: BLE001 - a property of a plugin's class may raise
                self._fail(plan, error)

    # Sending.

    def _send(self) -> None:
        """Send as many chunks as the workers should have."""
        workers = self._executor.workers()
        if self._is_growing:
            self._resize(self._portions.backlog(workers))
        # A suspect runs alone: if several ran and their worker died again, nobody could tell which
        # of them killed it.
        while self._suspects and not self._sent:
            self._send_chunk([self._suspects.popleft()], is_retry=True)
        if self._suspects or any(sent.is_retry for sent in self._sent.values()):
            self._reminder.set(_LOOK)
            return
        soon = _LOOK
        pending = self._pending
        while size := self._portions.next(pending.count, pending.waited, len(self._sent), workers):
            self._send_chunk(pending.take(size))
        if size is None:
            soon = LINGER
        if self._pending.count or self._sent:
            self._reminder.set(soon)

    def _send_chunk(self, items: list[Item], is_retry: bool = False) -> None:
        if not items:
            return
        try:
            data = self._packer.pack([spec for _, spec in items])
        except ValueError as error:
            if len(items) == 1:
                self._fail(items[0][0], error)
                return
            # Find out which of them can't be pickled, and fail only those.
            good = [item for item in items if self._is_portable(item)]
            for part in [good] if len(good) < len(items) else [[item] for item in good]:
                self._send_chunk(part)
            return
        self._number += 1
        try:
            if self._folder is None:
                self._folder = Folder.create(self._batch)
            sent = _Sent(self._number, dict(enumerate(items)), self._folder, is_retry)
            sent.future = self._executor.submit(
                work, self._batch, sent.number, self._folder.path, *self._settings, data
            )
        except Exception:
            self._pending.add(items)
            raise
        self._sent[sent.number] = sent
        sent.future.add_done_callback(self.wake)

    def _is_portable(self, item: Item) -> bool:
        plan, spec = item
        try:
            self._packer.pack([spec])
        except ValueError as error:
            self._fail(plan, error)
            return False
        return True

    # Receiving.

    def _receive(self) -> None:
        if is_time := time.monotonic() - self._looked >= _LOOK:
            self._looked = time.monotonic()
            self._executor.look()
        for sent in list(self._sent.values()):
            if sent.future.done():
                self._finish(sent)
            elif is_time:
                sent.show_begun()
                self._read_early(sent)

    def _finish(self, sent: _Sent) -> None:
        """Take the reply to a chunk, or handle its failure."""
        self._read_early(sent)
        is_begun = sent.is_begun
        del self._sent[sent.number]
        sent.folder.clear(sent.number)
        try:
            reply = Reply(*sent.future.result())
            self._apply(sent, reply.reports)
        except BaseException as error:  # noqa: BLE001 - also CancelledError
            may_go_on = self._executor.ends_all and not is_begun
            if not may_go_on and self._executor.is_broken(error):
                # This has no effect if the batch was cancelled before.
                self.cancellation.cancel(broken(error))
            if may_go_on or self.cancellation.is_cancelled():
                self._pending.add(sent.given_up(is_begun))
            else:
                self._lose(sent, redact.text(f"{type(error).__name__}: {error}"))
            return
        if reply.problem:
            self._lose(sent, reply.problem, is_refused=True)
        elif reply.is_lost:
            self._lose(sent, "its worker process died")
        else:
            if reply.is_late:
                # This has no effect if the batch has ended. Otherwise no worker could run anything.
                self.cancellation.cancel(_unseen(sent.folder))
            self._portions.learn(reply.rate, self._executor.workers())
            self._pending.add(sent.items.values())

    def _read_early(self, sent: _Sent) -> None:
        """Read the early reports of a chunk, and send again what its worker has given back."""
        for (data, given_back, waits), offset in sent.folder.reports(sent.number, sent.offset):
            sent.offset = offset
            # If it can't be unpickled, the reply of the chunk has the same reports, and the error
            # is handled there.
            with contextlib.suppress(Exception):
                self._apply(sent, data)
            self._pending.add(
                [sent.items.pop(index) for index in given_back if index in sent.items]
            )
            sent.show(waits)

    def _apply(self, sent: _Sent, data: bytes) -> None:
        reports: Iterator[tuple[int, tuple[Any, ...]]]
        reports = itertools.chain.from_iterable(blocks(data))
        for index, report in reports:
            item = sent.items.pop(index, None)
            if item is None:
                continue  # it was reported early
            _settle(item[0], Report(*report), self.cancellation, sent.folder)
            self._portions.done += 1
            self._complete(item[0])

    def _lose(self, sent: _Sent, reason: str, is_refused: bool = False) -> None:
        """Send the downloads of a chunk once more, one by one. Fail a download that was alone."""
        if not (len(sent.items) == 1 if is_refused else sent.is_retry):
            self._suspects.extend(sent.items.values())
            return
        for plan, _ in sent.items.values():
            if is_refused:
                text = f"{plan.download} can't be run by another process: {reason}"
                self._fail(plan, ValueError(text))
            else:
                plan.executed = True
                text = f"two workers failed at it: {reason}"
                self._fail(plan, DownloadFailed(plan.download, text))

    # Ending.

    def _fail(self, plan: Plan, error: Exception) -> None:
        plan.error = error
        if plan.executed:
            _tell_later(plan)
        self._complete(plan)

    def _end(self) -> None:
        """Stop the workers' chunks, wait for them, and fail what is left."""
        self._take()
        if self._folder is not None:
            self._folder.stop()
        # Future.cancel() of Dask succeeds although the function runs on. So a chunk that has begun
        # is waited for: its worker soon sees that the batch has ended.
        wait(
            [
                sent.future
                for sent in self._sent.values()
                if sent.is_begun or not sent.future.cancel()
            ],
            _LAST,
        )
        # The plans that are left must end even if this raises.
        with contextlib.suppress(Exception):
            self._receive()
        left = [item for sent in self._sent.values() for item in sent.given_up()]
        self._sent.clear()
        left += [*self._suspects, *self._pending.take(self._pending.count)]
        self._suspects.clear()
        for plan, _ in left:
            self._fail(plan, DownloadFailed(plan.download, self.cancellation.reason or ""))
        if self._folder is not None:
            self._folder.remove()
            self._folder = None
        self._reminder.cancel()


def _unseen(folder: Folder) -> str:
    """Return the reason why plans fail if a worker can't see the batch's folder."""
    return (
        f"a worker process can't see {folder.path}: somebody has removed it, or the process runs "
        "as another user"
    )


def _show(item: Item, wait: Wait | None) -> None:
    try:
        record_of(item[0].download).show(wait)
    except Exception:
        log.exception("A monitor could not show what %s waits for", item[0].download)


def _settle(plan: Plan, report: Report, cancellation: Cancellation, folder: Folder) -> None:
    """Apply the outcome that a worker has reported to a plan."""
    plan.executed = report.executed
    try:
        plan.error = report.apply(plan.download)
    except Exception as error:  # noqa: BLE001 - a property of a plugin's class may raise
        plan.error = error
    if isinstance(plan.error, DownloadFailed) and plan.error.reason == STOPPED:
        # Nothing happens if the batch was cancelled before. Otherwise its folder is gone.
        cancellation.cancel(_unseen(folder))
        plan.error.reason = cancellation.reason or ""
    if report.executed:
        _tell_later(plan)


def _tell_later(plan: Plan) -> None:
    """Let the consumer's thread call the handlers of the last event, Succeeded or Failed."""
    name = Event.SUCCEEDED if plan.error is None else Event.FAILED
    if name in plan.download.router:
        plan.deliver = functools.partial(_tell, plan.download, plan.error)


def _tell(download: Download, error: BaseException | None) -> None:
    """Send the last event of a run that another process executed."""
    download.router.send(Succeeded(download) if error is None else Failed(download, error))


def _end_open() -> None:
    """Cancel the batches whose consumer's thread has ended, or is the exiting main thread."""
    others = {thread.ident for thread in threading.enumerate()} - {threading.main_thread().ident}
    for engine in open_engines():
        if isinstance(engine, Chunks) and engine.consumer not in others:
            engine.cancellation.cancel(EXITING)


# An atexit function would run too late: before it, concurrent.futures waits for the running chunks.
# These functions are called in reverse order of registration, so this one comes before that of
# concurrent.futures.
with contextlib.suppress(RuntimeError):
    getattr(threading, "_register_atexit", atexit.register)(_end_open)
