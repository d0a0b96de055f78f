"""The engine of a batch on an executor with workers in other processes.

Plans go out in chunks of about a second's work, two for each worker: one runs, and one waits. One
thread packs the chunks, sends them, and takes the reports. The consumer's thread and the futures'
callbacks only wake it, so neither needs a lock, and an interrupt in the main thread can't lose
anything.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
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
from ..engine.report import Report
from ..engine.spec import Packer, blocks, check
from ..error import DownloadFailed
from ..event import Event, Failed, Succeeded
from ..waiting.cancellation import Cancellation
from ..waiting.threads import Workers
from ..waiting.timer import Alarm, timer
from .executors import Processes, broken
from .folder import Folder
from .pending import LINGER, Item, Pending
from .portions import Portions
from .threads import EXITING, forget, open_engines, stop_at_exit
from .window import Plan
from .worker import Reply, work

_LOOK = 1.0
"""How often the engine looks for early reports of the chunks that run (seconds)."""

_LAST = 5.0
"""How long a shutdown waits for the chunks that run (seconds)."""


@dataclass(eq=False)
class _Sent:
    """A chunk that a worker has.

    Attributes:
        number (int): Its number.
        items (dict[int, Item]): The downloads that were not reported yet, by their index.
        folder (Folder): The batch's folder.
        is_retry (bool): It is one download, whose worker has died once.
        offset (int): How much of its early reports was read (bytes).
        future (Future): Its end.
    """

    number: int
    items: dict[int, Item]
    folder: Folder
    is_retry: bool
    future: Future[Any] = field(init=False)
    offset: int = 0

    @property
    def is_begun(self) -> bool:
        """Whether a worker has begun it, as far as that can be seen."""
        return self.folder.is_begun(self.number)

    def given_up(self, is_begun: bool | None = None) -> Iterable[Item]:
        """Return the downloads of which nothing will be heard. Those that had begun say Failed.

        Args:
            is_begun: Whether a worker had begun it; None to look.
        """
        is_begun = self.is_begun if is_begun is None else is_begun
        for plan, _ in self.items.values():
            plan.executed = plan.executed or is_begun
        return self.items.values()


class _Reminder:
    """Wakes the engine's thread after some time."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._alarm: Alarm | None = None
        # When the alarm rings (``time.monotonic()``).
        self._due = float("-inf")

    def set(self, seconds: float) -> None:
        """Wake it after so many seconds, or earlier if that was asked for before."""
        now = time.monotonic()
        if now < self._due <= now + seconds:
            return
        self.cancel()
        self._due = now + seconds
        with contextlib.suppress(RuntimeError):
            self._alarm = timer.set(seconds, self._wake)

    def cancel(self) -> None:
        """Wake it no more."""
        if self._alarm is not None:
            timer.cancel(self._alarm)


class Chunks:
    """Executes plans in the workers of an executor."""

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
        # The thread that takes the plans.
        self.consumer: int | None = None
        self._executor = executor
        self._settings = concurrent, pipeline
        self._is_growing = backlog is None
        self._resize = resize
        self._workers = Workers(1, name)
        self._new: deque[tuple[Plan, Callable[[Plan], object]]] = deque()
        self._is_woken = False
        self._complete: Callable[[Plan], object]
        # All below belongs to the engine's thread.
        self._batch = uuid.uuid4().hex
        self._folder: Folder | None = None
        self._packer = packer
        self._pending = Pending()
        # The downloads of workers that died. They are sent one by one, before all others.
        self._suspects: deque[Item] = deque()
        self._sent: dict[int, _Sent] = {}
        self._number = 0
        self._portions = Portions(concurrent, backlog)
        self._reminder = _Reminder(self.wake)
        # When the early reports were read (``time.monotonic()``).
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
            self._workers.run(self._step)
        except RuntimeError as error:
            # The system can't start a thread.
            if plan.claim():
                plan.error = error
                complete(plan)

    def stop(self) -> None:
        """End when the plans have ended, or at once if the batch was cancelled."""
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
        """Wake the engine's thread, which then looks what has changed. Any thread may call this."""
        self._is_woken = True
        with contextlib.suppress(RuntimeError):
            self._workers.run(self._step)

    def _step(self) -> None:
        """Receive replies and send chunks. It runs for each plan, mostly with nothing to do."""
        if not self._new and not self._is_woken:
            return
        self._is_woken = False
        try:
            self._take()
            self._receive()
            if not self.cancellation.is_cancelled():
                self._send()
        except Exception as error:  # noqa: BLE001 - the plans must end, also with a bug
            # Once: a cancellation wakes this thread.
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
        # Alone: a worker that dies takes all that it runs with it, and nobody could tell which
        # download killed it.
        while self._suspects and not self._sent:
            self._send_chunk([self._suspects.popleft()], is_retry=True)
        if self._suspects or any(sent.is_retry for sent in self._sent.values()):
            self._reminder.set(_LOOK)
            return
        soon = _LOOK
        pending = self._pending
        while size := self._portions.next(pending.count, pending.is_ripe, len(self._sent), workers):
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
            # It isn't known which of them can't be pickled.
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
        for sent in list(self._sent.values()):
            if sent.future.done():
                self._finish(sent)
            elif is_time:
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
                # Nothing happens if the batch was cancelled before.
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
            self._portions.learn(reply.rate)
            self._pending.add(sent.items.values())

    def _read_early(self, sent: _Sent) -> None:
        """Take what a worker has reported and given back before the end of its chunk."""
        for (data, given_back), offset in sent.folder.reports(sent.number, sent.offset):
            sent.offset = offset
            # If it can't be unpickled, the end of the chunk reports it again, and tells why.
            with contextlib.suppress(Exception):
                self._apply(sent, data)
            self._pending.add(
                [sent.items.pop(index) for index in given_back if index in sent.items]
            )

    def _apply(self, sent: _Sent, data: bytes) -> None:
        reports: Iterator[tuple[int, Report]] = itertools.chain.from_iterable(blocks(data))
        for index, report in reports:
            item = sent.items.pop(index, None)
            if item is None:
                continue  # it was reported early
            _settle(item[0], report)
            self._complete(item[0])

    def _lose(self, sent: _Sent, reason: str, is_refused: bool = False) -> None:
        """Send the downloads of a worker that has died or refused them once more, one by one."""
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
        # Dask cancels a future whose function runs on. It soon sees that the batch has ended.
        wait(
            [
                sent.future
                for sent in self._sent.values()
                if sent.is_begun or not sent.future.cancel()
            ],
            _LAST,
        )
        # Whatever goes wrong there, no plan may be lost.
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


def _settle(plan: Plan, report: Report) -> None:
    """Give a plan the outcome that a worker has reported."""
    plan.executed = report.executed
    try:
        plan.error = report.apply(plan.download)
    except Exception as error:  # noqa: BLE001 - a property of a plugin's class may raise
        plan.error = error
    if report.executed:
        _tell_later(plan)


def _tell_later(plan: Plan) -> None:
    """Have the handlers of the last event called by the consumer's thread."""
    name = Event.SUCCEEDED if plan.error is None else Event.FAILED
    if name in plan.download.router:
        plan.deliver = functools.partial(_tell, plan.download, plan.error)


def _tell(download: Download, error: BaseException | None) -> None:
    """Send the last event of a run that another process has made."""
    download.router.send(Succeeded(download) if error is None else Failed(download, error))


def _end_open() -> None:
    """Cancel the batches whose plans nobody will take, because their thread has ended."""
    others = {thread.ident for thread in threading.enumerate()} - {threading.main_thread().ident}
    for engine in open_engines():
        if isinstance(engine, Chunks) and engine.consumer not in others:
            engine.cancellation.cancel(EXITING)


# Earlier than atexit: there concurrent.futures has waited for the chunks that run. Functions are
# called in reverse order, and the one of concurrent.futures is registered already.
with contextlib.suppress(RuntimeError):
    getattr(threading, "_register_atexit", atexit.register)(_end_open)
