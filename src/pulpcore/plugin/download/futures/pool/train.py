"""Trains: one thread advances several downloads whose requests are sent together.

A thread that begins a download may find that its request can be pipelined. Then it takes more plans
from the queue, prepares the request of each, and sends all requests together. It finishes the
downloads one after the other as the replies come. The protocol reads and checks the replies: see
``engine.pipeline``.

A train must not keep plans from idle threads. So a thread takes only its share of the queue. Idle
threads also take plans back out of a train, the last one first, and send their requests alone. They
do so at any time before the train is sent, and afterwards if it makes no progress.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable
from contextvars import Context
from itertools import islice
from typing import NamedTuple

from ..engine.machine import Hold, Life
from ..engine.pipeline import Depth, Line, Request
from ..waiting.cancellation import Cancellation
from ..waiting.threads import Workers

PATIENCE = 0.5
"""How long a train may make no progress before idle threads take plans from it (seconds)."""


class Run(ABC):
    """The execution of a plan: the interface that trains use.

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
    """A plan of a train. It is stopped before its attempt, until its reply comes."""

    run: Run
    life: Life
    request: Request


class Trains:
    """The trains of one batch. Idle threads take plans from them."""

    def __init__(self, depth: Depth, threads: int) -> None:
        """Start without trains.

        Args:
            depth: The limits of pipelining in the batch.
            threads: The number of threads.
        """
        self._depth, self._threads = depth, threads
        self._running: dict[_Train, None] = {}

    def __len__(self) -> int:
        """Return the number of running trains."""
        return len(self._running)

    def take(self) -> Callable[[], object] | None:
        """Remove a plan from a train that an idle thread may take it from.

        Returns:
            A function that executes the plan alone; None if there is no such plan.
        """
        for train in self._running.copy():
            if (run := train.give_up()) is not None:
                return run.go_on
        return None

    def run(self, lead: Run, workers: Workers) -> None:
        """Execute a plan, in a train with others if possible.

        Args:
            lead: The plan, which the caller has claimed.
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
        # The plan that the train's thread is executing now. Its handlers may be running.
        self._active: Run | None = None
        # The life that was stopped last. Its plan gets a seat next.
        self._held: Life | None = None
        # These are set when the train begins. With a near server none does, and they cost nothing.
        self._line: Line
        self._key: Hashable
        self._room: int
        # The plans that wait for their replies. The train's thread takes the first one, idle
        # threads take the last one.
        self._seats: deque[_Seat]
        # When it last made progress (``time.monotonic()``); None before its requests are sent.
        self._since: float | None

    def begin(self, lead: Run) -> bool:
        """Execute the first plan. Stop it before its attempt if a train can begin with it.

        Returns:
            Whether a train begins. Otherwise the plan was executed without one.
        """
        lead.go_on(self._open)
        if self._held is None:
            return False
        self._seat(lead)
        return True

    def run(self) -> None:
        """Prepare more plans, send all requests, and execute the plans as the replies come."""
        self._gather()
        sent = [seat.request for seat in self._seats.copy()]
        if len(sent) > 1:
            self._since = time.monotonic()
            self._line.send(sent)
            self._receive(len(sent))

    def end(self) -> None:
        """Close the line. Give the plans that are left to the pool, which executes each alone."""
        self._line.close()
        while (seat := _taken(self._seats.pop)) is not None:
            self._workers.run_next(seat.run.go_on)

    def give_up(self) -> Run | None:
        """Remove and return the last plan; None if there is none, or the train makes progress."""
        since = self._since
        patience = max(PATIENCE, 4 * self._line.trip)
        if since is not None and time.monotonic() - since < patience:
            return None
        seat = _taken(self._seats.pop)
        return None if seat is None else seat.run

    def waits_for(self, token: Cancellation) -> bool:
        """Return whether some work belongs to a handler that the train's thread is running.

        Args:
            token: The token of the work, such as a nested download.
        """
        active = self._active
        own = None if active is None else active.token
        return own is not None and token.within(own)

    def _open(self, life: Life) -> bool:
        """Stop the first run if there are enough plans and a connection for a train."""
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
        """Stop a run before its attempt, because its request is to be sent in the train."""
        self._held = life
        return True

    def _share(self) -> int:
        """Return how many more plans the train may take: its share of the queue."""
        return self._workers.queued // self._threads

    def _gather(self) -> None:
        left = min(self._line.depth - 1, self._share())
        # The queue also has functions that aren't plans, and plans that have begun.
        waiting = (
            each for each in self._workers.queue() if isinstance(each, Run) and each.may_join
        )
        for run in filter(self._takes, islice(waiting, left)):
            self._go_on(run)
            self._seat(run)

    def _go_on(self, run: Run) -> None:
        """Execute a plan up to its next attempt or wait."""
        self._active = run
        run.go_on(self._hold)
        self._active = None

    def _takes(self, run: Run) -> bool:
        """Take a plan out of the queue. Return False if another thread has taken it."""
        return self._workers.remove(run) and run.claim()

    def _seat(self, run: Run) -> None:
        """Give a plan that was stopped a seat if its request fits. Otherwise it goes on alone."""
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
        """Read the next reply, and execute its plan."""
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
    """Return the request of a run that was stopped; None if it may not be in a train."""
    try:
        request = life.request
        # The size property builds the head of the request, which may raise.
        return request if request is not None and request.size else None
    except BaseException:  # noqa: BLE001 - it fails with its own error when it is sent alone
        # SystemExit, too: the caller's `auth` runs here, and must not end the pool's thread.
        return None


def _taken(take: Callable[[], _Seat]) -> _Seat | None:
    try:
        return take()
    except IndexError:
        return None
