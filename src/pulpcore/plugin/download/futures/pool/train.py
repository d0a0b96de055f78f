"""Trains: one thread advances several downloads whose requests are sent together.

A thread that begins a download may find that its request can be pipelined. Then it takes more plans
from the queue, has each get ready, sends their requests together, and finishes one after the other
as the replies come. What the replies are, the protocol knows: see ``engine.pipeline``.

No plan of a train waits for its thread while another thread has nothing to do. The number of plans
that a thread takes is its share of the queue. Later an idle thread takes plans back out of the
train, the last one first: at once as long as they aren't sent, and then if the train makes no
progress. It asks for them alone.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable
from contextvars import Context
from typing import NamedTuple

from ..engine.machine import Hold, Life
from ..engine.pipeline import Depth, Line, Request
from ..waiting.cancellation import Cancellation
from ..waiting.threads import Workers

PATIENCE = 0.5
"""How long a train may make no progress before idle threads take plans from it (seconds)."""


class Run(ABC):
    """The execution of a plan, as far as trains know it.

    Attributes:
        context (Context): The ``contextvars`` context of the plan.
    """

    context: Context

    @property
    @abstractmethod
    def token(self) -> Cancellation | None:
        """The cancellation token of the run; None if no run is in progress."""

    @property
    @abstractmethod
    def may_join(self) -> bool:
        """Whether the plan may be in a train."""

    @abstractmethod
    def claim(self) -> bool:
        """Return True to the first caller only: it must execute the plan."""

    @abstractmethod
    def go_on(self, hold: Hold | None = None) -> None:
        """Execute the plan up to its next wait or its end.

        Args:
            hold: Called before each attempt: see ``Life.advance``. If it returns True, the caller
                calls this method again.
        """

    @abstractmethod
    def __call__(self) -> None:
        """Execute the plan from its beginning, in a thread of the pool."""


class _Seat(NamedTuple):
    """A plan of a train, which is held before its first attempt."""

    run: Run
    life: Life
    request: Request


class Trains:
    """The trains of one batch. Idle threads take from them what they hold back."""

    def __init__(self, depth: Depth, threads: int) -> None:
        """Start without trains.

        Args:
            depth: How far the batch goes.
            threads: The number of threads.
        """
        self._depth, self._threads = depth, threads
        self._running: dict[_Train, None] = {}

    def __len__(self) -> int:
        """Return how many trains there are."""
        return len(self._running)

    def take(self) -> Callable[[], object] | None:
        """Remove a plan that a train holds back.

        Returns:
            What executes it; None if there is none.
        """
        for train in self._running.copy():
            if (run := train.give_up()) is not None:
                return run.go_on
        return None

    def run(self, lead: Run, workers: Workers) -> None:
        """Execute a plan, and others together with it where that can be.

        Args:
            lead: The plan. The caller has claimed it.
            workers: The pool of the calling thread.
        """
        train = _Train(workers, self._depth, self._threads)
        if not train.begin(lead):
            return
        self._running[train] = None
        try:
            train.run()
        finally:
            train.end()
            del self._running[train]


class _Train:
    """A train. One thread drives it; others call :meth:`give_up`."""

    def __init__(self, workers: Workers, depth: Depth, threads: int) -> None:
        self._workers, self._depth, self._threads = workers, depth, threads
        # The plan that is being executed up to its next wait. Its handlers may run.
        self._active: Run | None = None
        # The life that was held last. Its plan gets a seat next.
        self._held: Life | None = None
        # The following are made when the train begins. Near a server no train does.
        self._line: Line
        self._key: Hashable
        self._room: int
        # The plans whose reply isn't the next one yet. The thread of the train takes the first,
        # idle threads take the last.
        self._seats: deque[_Seat]
        # When it made progress last, after its requests were sent.
        self._since: float | None

    def begin(self, lead: Run) -> bool:
        """Execute the first plan, up to its attempt if a train can begin with it.

        Returns:
            Whether it does. Otherwise the plan was executed as any other.
        """
        lead.go_on(self._open)
        if self._held is None:
            return False
        self._seat(lead)
        return True

    def run(self) -> None:
        """Get more plans ready, send all requests, and execute the plans as the replies come."""
        self._gather()
        sent = [seat.request for seat in self._seats.copy()]
        if len(sent) > 1:
            self._since = time.monotonic()
            self._line.send(sent)
            self._receive(len(sent))

    def end(self) -> None:
        """Give the plans that are left back to the pool, which executes each alone."""
        self._line.close()
        while (seat := _taken(self._seats.pop)) is not None:
            self._workers.run_next(seat.run.go_on)

    def give_up(self) -> Run | None:
        """Remove and return the last plan if it is held back."""
        since = self._since
        patience = max(PATIENCE, 4 * self._line.trip)
        if since is not None and time.monotonic() - since < patience:
            return None
        seat = _taken(self._seats.pop)
        return None if seat is None else seat.run

    def waits_for(self, token: Cancellation) -> bool:
        """Return whether a handler of one of the downloads is running, and work is part of it.

        Args:
            token: The token of the work.
        """
        active = self._active
        own = None if active is None else active.token
        return own is not None and token.within(own)

    def _open(self, life: Life) -> bool:
        """Hold the first run if there are enough plans and a connection for a train."""
        if not life.may_be_pipelined or not self._share():
            return False
        if (request := _request_of(life)) is None:
            return False
        line = request.open(self._depth, self)
        if line is None:
            return False
        self._line, self._room, self._key = line, line.room, request.key
        self._seats, self._since = deque(), None
        return self._hold(life)

    def _hold(self, life: Life) -> bool:
        """Hold a run before its attempt: the train is using the connection."""
        self._held = life
        return True

    def _share(self) -> int:
        """How many more plans the train may have so that there are enough for all threads."""
        return self._workers.queued // self._threads

    def _gather(self) -> None:
        left = min(self._line.depth - 1, self._share())
        # Plans that were not begun. Other functions in the queue belong to no train.
        waiting = [
            each for each in self._workers.queue() if isinstance(each, Run) and each.may_join
        ]
        for run in filter(self._takes, waiting[:left]):
            self._go_on(run)
            self._seat(run)

    def _go_on(self, run: Run) -> None:
        """Execute a plan, up to its next attempt."""
        self._active = run
        run.go_on(self._hold)
        self._active = None

    def _takes(self, run: Run) -> bool:
        """Take a plan out of the queue. Return False if another thread has it."""
        return self._workers.remove(run) and run.claim()

    def _seat(self, run: Run) -> None:
        """Give a plan a seat if it was held and its request fits; else it goes on alone."""
        life, self._held = self._held, None
        if life is None:
            return
        request = _request_of(life)
        if request is None or request.key != self._key or request.size > self._room:
            self._workers.run_next(run.go_on)
            return
        life.join(self)
        self._room -= request.size
        self._seats.append(_Seat(run, life, request))

    def _receive(self, count: int) -> None:
        for _ in range(count):
            seat = _taken(self._seats.popleft) if self._line.is_open else None
            if seat is None:
                # The connection has ended, or idle threads have taken the others.
                return
            self._since = time.monotonic()
            self._finish(seat)

    def _finish(self, seat: _Seat) -> None:
        """Execute a plan whose reply is the next one."""
        try:
            counts = seat.run.context.run(seat.life.receive, self._line)
        except BaseException:  # noqa: BLE001 - it fails with its own error when it is sent alone
            counts = False
        if not counts:
            self._workers.run_next(seat.run.go_on)
        else:
            self._go_on(seat.run)
            if self._held is not None:
                self._held = None
                self._workers.run_next(seat.run.go_on)


def _request_of(life: Life) -> Request | None:
    """Return the request of a run that is held; None if it may not be in a train."""
    try:
        request = life.request
        # The size makes the head, which may fail.
        return request if request is not None and request.size else None
    except BaseException:  # noqa: BLE001 - it fails with its own error when it is sent alone
        # SystemExit, too: an `auth` of the caller's runs here, in a thread that must go on.
        return None


def _taken(take: Callable[[], _Seat]) -> _Seat | None:
    try:
        return take()
    except IndexError:
        return None
