"""Runs a chunk of downloads in a worker process of the caller's executor.

:func:`work` is the only function that is submitted to an executor, so it must be importable in the
worker. It returns errors and doesn't raise them. It takes and returns plain values, because each
kind of executor pickles in its own way.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import redact
from ..context import Context
from ..download import Download
from ..engine.attempt import record_of
from ..engine.report import Report, portable
from ..engine.run import Wait
from ..engine.spec import BLOCK, unpack
from ..error import DownloadFailed
from ..waiting.cancellation import Cancellation
from ..waiting.timer import Alarm, timer
from .folder import Folder
from .threads import Threads
from .window import COALESCE, Plan

STOPPED = "the worker process saw that the batch had ended"
"""Why a worker stops downloads. The batch puts its own reason in the place of this one."""

PATIENCE = 2.0
"""After this time a worker starts no more downloads of a chunk, and reports what is done (s)."""

_POLL = 0.25
"""How often a worker checks whether the batch has ended (seconds)."""

_INSTANT = 0.001
"""The shortest time that a rate is computed with (seconds)."""

_AHEAD = 16
"""How many unpacked downloads a worker has waiting for each of its threads.

The rest of a chunk stays packed, where it costs neither memory nor a search for garbage.
"""

_PLENTY = 32
"""A worker collects several reports at once only while this many downloads wait for a thread."""

_KEPT = 10.0
"""How long a worker keeps the connections of a batch after its last chunk (seconds)."""


class Chunk(NamedTuple):
    """The arguments of :func:`work`.

    Attributes:
        batch (str): Identifies the batch.
        number (int): Identifies the chunk.
        folder (str): The batch's folder.
        is_local (bool): The worker sees the folder as long as the batch runs.
        concurrent (int): The number of downloads that run in parallel.
        pipeline (int | None): How many requests are sent together; None for the default.
        specs (bytes): The packed specs.
    """

    batch: str
    number: int
    folder: str
    is_local: bool
    concurrent: int
    pipeline: int | None
    specs: bytes


class Reply(NamedTuple):
    """The result of :func:`work`.

    Attributes:
        reports (bytes): The reports of the downloads that have ended, each with its index in the
            chunk, in pickled blocks. All other downloads were not started.
        rate (float): The speed without the slowest tenth (downloads a second). A few downloads
            that waited for a back-off must not make the next chunks small.
        problem (str): Why the chunk could not be run at all; '' if it was.
        is_lost (bool): Whether another worker had begun it before, and died.
        is_late (bool): Whether nothing was started, because the worker doesn't see that the batch
            still runs.
    """

    reports: bytes = b""
    rate: float = 0.0
    problem: str = ""
    is_lost: bool = False
    is_late: bool = False


class _Session:
    """The state that a worker process keeps between the chunks of a batch.

    These are connections, shared objects and threads.
    """

    def __init__(self) -> None:
        self.context = Context()
        # Those that no chunk uses now. An executor may run several chunks at a time in a process.
        self.engines: deque[Threads] = deque()
        self.twins: dict[int, Any] = {}
        self.is_shared = False
        self.users = 0
        # Closes the session while it has no users.
        self.alarm = Alarm(int)

    def engine(self, chunk: Chunk) -> Threads:
        """Return the engine that runs a chunk. Its threads cost as much as some downloads."""
        with contextlib.suppress(IndexError):
            return self.engines.pop()
        return Threads(chunk.concurrent, "chunk", Cancellation(), None, chunk.pipeline)

    def close(self) -> None:
        """End the threads, and close the connections."""
        for engine in self.engines:
            _end(engine)
        self.context.close()


def _end(engine: Threads) -> None:
    """End the threads of an engine, and what they run."""
    engine.cancellation.cancel(STOPPED)
    engine.stop()
    engine.join()
    engine.cancellation.close()


_sessions: dict[str, _Session] = {}
# Guards _sessions and the number of their users. Only threads of an executor's workers take it,
# where no signal handlers run.
_lock = threading.Lock()


@contextlib.contextmanager
def _session(batch: str) -> Any:
    """Use the session of a batch. Close it when no chunk has used it for :data:`_KEPT`."""
    with _lock:
        session = _sessions.setdefault(batch, _Session())
        session.users += 1
    timer.cancel(session.alarm)
    try:
        yield session
    finally:
        with _lock:
            session.users -= 1
            if not session.users:
                session.alarm = timer.set(_KEPT, lambda: close(batch))


def close(batch: str | None = None) -> None:
    """Close the connections that this process keeps for batches whose chunks it has run.

    Args:
        batch: The batch; None for all.
    """
    with _lock:
        idle = [
            key for key, session in _sessions.items() if batch in (None, key) and not session.users
        ]
        sessions = [_sessions.pop(key) for key in idle]
    for session in sessions:
        timer.cancel(session.alarm)
        session.close()


def work(*values: Any) -> tuple[Any, ...]:
    """Run a chunk. The executor calls this in a worker.

    Args:
        values: The fields of a :class:`Chunk`.

    Returns:
        The fields of a :class:`Reply`.
    """
    chunk = Chunk(*values)
    with _session(chunk.batch) as session:
        try:
            reply = _run(chunk, session)
        except Exception as error:  # noqa: BLE001 - the batch must learn of it, whatever it is
            reply = Reply(problem=_text(error))
    return tuple(reply)


def _run(chunk: Chunk, session: _Session) -> Reply:
    folder = Folder(chunk.folder, chunk.batch)
    if folder.is_running():
        session.is_shared = True
        if not folder.begin(chunk.number):
            return Reply(is_lost=True)
    elif chunk.is_local or session.is_shared or folder.exists():
        # The batch has ended before the worker could begin, or the worker can't see its folder.
        return Reply(is_late=True)
    return _Run(chunk, session, folder).run()


class _Run:
    """The run of one chunk."""

    def __init__(self, chunk: Chunk, session: _Session, folder: Folder) -> None:
        self._chunk = chunk
        self._folder = folder
        self._session = session
        self._began = time.monotonic()
        self._engine = session.engine(chunk)
        self._ahead = max(_AHEAD, chunk.pipeline or 0) * chunk.concurrent
        self._specs = unpack(chunk.specs, session.twins)
        self._problem = ""
        self._done: queue.SimpleQueue[Plan] = queue.SimpleQueue()
        # The newest reports. Earlier ones are in the pickled blocks.
        self._reports: list[tuple[int, Report]] = []
        self._blocks: list[bytes] = []
        # When each download ended, in seconds from the beginning.
        self._ends: list[float] = []
        self._given_back: list[int] = []
        self._spooled: tuple[int, int, dict[int, Wait]] = (0, 0, {})
        self._agents: list[list[Any]] = []
        # The plans that were started and have not ended, with their indexes.
        self._left: dict[Plan, int] = {}

    def run(self) -> Reply:
        engine = self._engine
        try:
            self._fill(self._ahead)
            self._collect()
        except BaseException:
            _end(engine)
            raise
        if engine.cancellation.is_cancelled():
            _end(engine)
        else:
            self._session.engines.append(engine)
        self._pack()
        return Reply(b"".join(self._blocks), rate(self._ends), self._problem)

    def _fill(self, most: float) -> None:
        """Unpack and start downloads until ``most`` of them wait for a thread."""
        try:
            while self._engine.queued < most and (specs := next(self._specs, None)) is not None:
                for download, agents in specs:
                    self._start(download, agents)
        except Exception as error:  # noqa: BLE001 - of a plugin's class
            # The batch sends the downloads without a report again, one by one.
            self._problem = _text(error)

    def _start(self, download: Download, agents: list[Any]) -> None:
        for agent in agents:
            agent.attach(download)
        download.context = self._session.context
        plan = Plan(download)
        plan.is_limited = record_of(download).limits is not None
        self._left[plan] = len(self._agents)
        self._agents.append(agents)
        self._engine.start(plan, self._done.put)

    def _collect(self) -> None:
        """Wait for the downloads. Report early, each :data:`PATIENCE` seconds, if it takes long."""
        look, turn = self._began + _POLL, self._began + PATIENCE
        while self._left:
            with contextlib.suppress(queue.Empty):
                self._report(self._done.get(timeout=_POLL))
                if self._engine.is_single and self._engine.queued >= _PLENTY:
                    time.sleep(COALESCE)
                    while True:
                        self._report(self._done.get_nowait())
            self._fill(self._ahead)
            now = time.monotonic()
            if now < look:
                continue
            look = now + _POLL
            if self._session.is_shared and not self._folder.is_running():
                self._engine.cancellation.cancel(STOPPED)
                self._give_back()
            elif now >= turn:
                turn = now + PATIENCE
                self._give_back()
                self._spool()

    def _report(self, plan: Plan) -> None:
        index = self._left.pop(plan)
        if plan.hand_back is not None:
            plan.hand_back()
        try:
            report = Report.of(plan.download, plan.executed, plan.error, self._agents[index])
        except Exception as error:  # noqa: BLE001 - of a plugin's class; the batch must learn of it
            failure = _mute(error) if plan.error is None else portable(plan.error)
            report = Report(plan.executed, failure)
        self._reports.append((index, report))
        self._ends.append(time.monotonic() - self._began)
        if len(self._reports) == BLOCK:
            self._pack()

    def _pack(self) -> None:
        """Pickle the last reports."""
        if self._reports:
            self._blocks.append(_pickled(self._reports))
            self._reports = []

    def _give_back(self) -> None:
        """Give the downloads that have not started back to the batch, which sends them again."""
        self._fill(math.inf)
        # A plan that is claimed here is skipped by the threads.
        for plan in [plan for plan in self._left if plan.claim()]:
            self._given_back.append(self._left.pop(plan))

    def _spool(self) -> None:
        """Write the new reports, and what the downloads wait for, to the batch's folder."""
        found = ((index, record_of(plan.download).wait) for plan, index in self._left.items())
        waits = {index: wait for index, wait in found if wait is not None}
        self._pack()
        number = len(self._blocks), len(self._given_back), waits
        if number == self._spooled or not self._session.is_shared:
            return
        new = b"".join(self._blocks[self._spooled[0] :])
        given_back = self._given_back[self._spooled[1] :]
        # The batch may be on another machine, with another clock.
        left = {index: wait.moved(-time.monotonic()) for index, wait in waits.items()}
        if self._folder.report(self._chunk.number, (new, given_back, left)):
            self._spooled = number


def rate(ends: Sequence[float]) -> float:
    """Return the speed of a chunk, without its slowest tenth (downloads a second).

    Args:
        ends: When each download ended, in ascending order (seconds from the beginning).
    """
    number = -(-9 * len(ends) // 10)
    return number / max(ends[number - 1], _INSTANT) if number else 0.0


def _pickled(reports: list[tuple[int, Report]]) -> bytes:
    """Pickle reports. A report that can't be unpickled is reduced to its outcome."""
    # As tuples, because a tuple of a class of its own takes much longer.
    values = [(index, tuple(report)) for index, report in reports]
    is_plain = all(report.is_plain for _, report in reports)
    try:
        return pickle.dumps(values, pickle.HIGHEST_PROTOCOL) if is_plain else _checked(values)
    except Exception:  # noqa: BLE001 - a plugin's validation may have anything as `actual`
        return pickle.dumps([(index, tuple(_plain(report))) for index, report in reports])


def _checked(thing: object) -> bytes:
    """Pickle, and check that it can be unpickled: exceptions with an own __init__ often can't."""
    data = pickle.dumps(thing, pickle.HIGHEST_PROTOCOL)
    pickle.loads(data)  # noqa: S301 - written in the line before
    return data


def _plain(report: Report) -> Report:
    try:
        _checked(tuple(report))
    except Exception as error:  # noqa: BLE001 - of a plugin's class, too
        return Report(report.executed, report.error or _mute(error))
    return report


def _mute(error: Exception) -> DownloadFailed:
    """Return the error for a download that ran, but whose report can't be made or sent."""
    return DownloadFailed(f"the worker process can't report what came of it: {_text(error)}")


def _text(error: Exception) -> str:
    """Return what may be shown of an error."""
    return redact.text(f"{type(error).__name__}: {error}")
