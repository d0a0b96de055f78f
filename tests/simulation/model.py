"""A model of a batch on many workers: the shipped policies on a virtual clock.

The objects of the library decide on the back-off, the circuit breaker, what a host admits, and the
size and hosts of chunks. Only what they decide about is simulated: hosts, workers, and time.
"""

import heapq
import itertools
import math
import random
from bisect import bisect
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from unittest.mock import patch

from benchmarks.content import quantile
from pulpcore.plugin.download.futures import DownloadFailed
from pulpcore.plugin.download.futures.engine import backoff, breaker, host
from pulpcore.plugin.download.futures.error import transient
from pulpcore.plugin.download.futures.pool import pending, portions, worker

CONCURRENT = 4
CALLER = 30e-6
"""What a download costs the caller's process, its own loop included (seconds)."""

CONNECT = 10.0
"""How long a connection attempt to a host takes that doesn't answer (seconds)."""

QUICK = 0.01
"""How long it takes to be refused (seconds)."""

LOOK = 1.0
"""How often the batch reads early reports (seconds)."""

MEAN = 0.13
"""How long a file takes on average (seconds)."""

OUTAGE, RESTART = 60.0, 10.0
"""How long a host is down (seconds)."""

RUN = 100
"""How many files of one host follow each other in the list, on average."""


class Clock:
    """A clock that stands until it is set. It takes the place of the module ``time``."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        """Return the time (seconds)."""
        return self.now

    monotonic = __call__


@dataclass
class Site:
    """A host.

    Attributes:
        name: Its name.
        trip: The round trip (seconds).
        rate: What a connection brings (bytes a second).
        down: The times between which it is down (seconds).
        is_silent: While it is down it doesn't answer; otherwise it refuses connections.
        is_dead: It is down for the whole time.
    """

    name: str
    trip: float
    rate: float
    down: tuple[float, float] = (0.0, 0.0)
    is_silent: bool = False
    is_dead: bool = False

    def is_down(self, now):
        """Return whether it is down."""
        return self.is_dead or self.down[0] <= now < self.down[1]

    def seconds(self, size):
        """Return how long a file takes (seconds)."""
        return self.trip + size / self.rate


class File:
    """A file to download. For the policies it is the plan, the download, the run and its token."""

    __slots__ = (
        "attempts",
        "began",
        "budget",
        "is_live",
        "left",
        "place",
        "refused_alone",
        "site",
        "size",
        "turn",
        "url",
        "wake",
        "was_late",
    )

    train = None

    def __init__(self, site, size):
        self.site, self.size = site, size
        self.url = site.name
        self.budget = None
        self.attempts = self.turn = 0
        self.left, self.refused_alone = 0.0, float("-inf")
        self.is_live = self.was_late = False

    @property
    def download(self):
        """The download of the plan."""
        return self

    token = claims = download

    def nudge(self):
        """Wake it if it waits."""
        self.wake(self)

    def within(self, other):
        """Return False: no run waits for another one here."""
        return False


@dataclass
class Load:
    """The parameters of a simulation.

    Attributes:
        files: The number of files.
        hosts: The number of hosts.
        workers: The number of workers.
        fault: How often a request fails.
        restarts: The share of hosts that are down for ten seconds once.
        outages: The share of hosts that are down for a minute once.
        dead: The share of hosts that are down all the time.
        concurrent: The downloads that a worker runs in parallel.
        retry: The policy of the retries.
        seed: The seed of the random numbers.
    """

    files: int = 100_000
    hosts: int = 1000
    workers: int = 10
    fault: float = 0.0
    restarts: float = 0.0
    outages: float = 0.0
    dead: float = 0.0
    concurrent: int = CONCURRENT
    retry: object = backoff.DEFAULT
    seed: int = 0

    @property
    def estimate(self):
        """About how long it takes (seconds)."""
        return self.files * MEAN / (self.workers * self.concurrent)

    def sites(self, chance):
        """Return the hosts."""
        found = []
        for number in range(self.hosts):
            site = Site(
                f"http://host{number}/", chance.uniform(0.01, 0.15), chance.uniform(2e6, 20e6)
            )
            site.is_silent = number % 2 == 0
            draw, begin = chance.random(), chance.uniform(0, self.estimate)
            if draw < self.dead:
                site.is_dead = True
            elif draw < self.dead + self.outages:
                site.down = begin, begin + OUTAGE
            elif draw < self.dead + self.outages + self.restarts:
                site.down = begin, begin + RESTART
            found.append(site)
        return found

    def source(self, sites, chance):
        """Yield the files. Many are of few hosts, and those of one host follow each other."""
        sums = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(sites))))
        left = self.files
        while left:
            site = sites[bisect(sums, chance.random() * sums[-1])]
            for _ in range(min(left, math.ceil(chance.expovariate(1 / RUN)))):
                left -= 1
                yield File(site, quantile(chance.random()))


@dataclass
class Outcome:
    """The results of a simulation.

    Attributes:
        seconds: How long it took.
        ideal: How long it would take if each thread always transferred (seconds).
        good: The time of transfers (thread seconds).
        failed: The time of requests that failed (thread seconds).
        backoff: The time in which threads did nothing while downloads of their chunk waited to be
            tried again (thread seconds).
        tail: The time in which threads did nothing because their chunk had no more downloads.
        starved: The time in which workers had no chunk (thread seconds).
        lost: The files that failed.
        dead: Those of them whose host was down all the time.
        spared: Those that the circuit breaker refused without a request.
        requests: The number of requests.
        chunks: The number of chunks.
    """

    seconds: float = 0.0
    ideal: float = 0.0
    good: float = 0.0
    failed: float = 0.0
    backoff: float = 0.0
    tail: float = 0.0
    starved: float = 0.0
    lost: int = 0
    dead: int = 0
    spared: int = 0
    requests: int = 0
    chunks: int = 0

    def share(self, name):
        """Return a part of all threads' time."""
        total = self.good + self.failed + self.backoff + self.tail + self.starved
        return getattr(self, name) / total


@dataclass
class Chunk:
    """A chunk that a worker runs, or will run.

    Attributes:
        queue: The files that wait for a thread.
        running: How many threads work.
        waiting: How many files wait to be tried again.
        unreported: How many have ended since the last report.
        ends: When each has ended, in seconds from the beginning.
        began: When it began.
    """

    queue: deque
    running: int = 0
    waiting: int = 0
    unreported: int = 0
    ends: list = field(default_factory=list)
    began: float = 0.0


class Worker:
    """A worker process, with its own knowledge of each host."""

    def __init__(self):
        self.hosts = {}
        self.chunk = None
        self.since = 0.0

    def host(self, site):
        """Return what the worker knows of a host."""
        found = self.hosts.get(site.name)
        if found is None:
            found = self.hosts[site.name] = host.Host()
        return found


class Simulation:
    """Runs a load."""

    def __init__(self, load, source=None, ask=None):
        """Prepare a load.

        Args:
            load: The load.
            source: Yields the files; None for those of the load.
            ask: Returns how long a request for a file takes, and its error; None as the load says.
        """
        self.load, self.clock, self.outcome = load, Clock(), Outcome()
        # Of the model, so that what the policies draw doesn't change the load.
        self._chance = random.Random(load.seed)
        sites = [] if source else load.sites(random.Random(load.seed))
        self._source = iter(source or load.source(sites, random.Random(load.seed + 1)))
        self._ask = ask or self._answer
        self._events, self._order = [], itertools.count()
        self._pending = pending.Pending()
        self._portions = portions.Portions(load.concurrent, None)
        self._ready = deque()
        self._workers = [Worker() for _ in range(load.workers)]
        self._idle = deque(self._workers)
        self._sent = self._outstanding = 0
        self._caller_free = 0.0
        self._is_exhausted = False

    def run(self):
        """Run it, and return its outcome."""
        random.seed(self.load.seed)
        with ExitStack() as stack:
            for module in (breaker, host, pending):
                stack.enter_context(patch.object(module, "time", self.clock))
            self._send()
            events, clock = self._events, self.clock
            while events:
                clock.now, _, function, *arguments = heapq.heappop(events)
                function(*arguments)
        outcome = self.outcome
        for each in self._workers:
            # A worker that has no chunk at the end has waited for the last one of the others.
            self._idled(each, outcome.seconds)
        outcome.ideal /= self.load.workers * self.load.concurrent
        return outcome

    def _at(self, seconds, function, *arguments):
        heapq.heappush(self._events, (seconds, next(self._order), function, *arguments))

    # The batch.

    def _send(self):
        """Take downloads, and send chunks, as the engine of a batch does."""
        workers, now = self.load.workers, self.clock.now
        backlog = self._portions.backlog(workers)
        room = backlog - self._outstanding
        if room > 0 and not self._is_exhausted:
            taken = list(itertools.islice(self._source, room))
            self._is_exhausted = len(taken) < room
            self._outstanding += len(taken)
            self._pending.add((file, None) for file in taken)
        while self._pending.count:
            count = self._portions.next(
                self._pending.count, self._pending.waited, self._sent, workers
            )
            if count is None:
                self._at(now + portions.LINGER, self._send)
            if not count:
                return
            items = [file for file, _ in self._pending.take(count)]
            self._sent += 1
            self.outcome.chunks += 1
            self._caller_free = max(self._caller_free, now) + len(items) * CALLER
            self._at(self._caller_free, self._arrive, Chunk(deque(items)))

    def _arrive(self, chunk):
        self._ready.append(chunk)
        if self._idle:
            self._begin(self._idle.popleft())

    # A worker.

    def _begin(self, each):
        chunk = self._ready.popleft()
        self._idled(each, self.clock.now)
        each.chunk, chunk.began = chunk, self.clock.now
        self._at(chunk.began + worker.PATIENCE, self._turn, each, chunk)
        self._fill(each)

    def _turn(self, each, chunk):
        """Give back what hasn't started, and report what has ended."""
        if each.chunk is not chunk:
            return
        # What has waited for a place at its host has been started.
        unstarted = [file for file in chunk.queue if not (file.attempts or file.turn)]
        chunk.queue = deque(file for file in chunk.queue if file.attempts or file.turn)
        ended, chunk.unreported = chunk.unreported, 0
        # The batch reads the report when it next polls.
        self._at(self.clock.now + LOOK / 2, self._read, unstarted, ended)
        self._at(self.clock.now + worker.PATIENCE, self._turn, each, chunk)

    def _read(self, unstarted, ended):
        """Read an early report."""
        self._pending.add((file, None) for file in unstarted)
        self._outstanding -= ended
        self._send()

    def _idled(self, each, now):
        """Account for the time in which threads of a worker did nothing."""
        chunk, seconds = each.chunk, now - each.since
        each.since = now
        idle = self.load.concurrent - (0 if chunk is None else chunk.running)
        if not idle or not seconds:
            return
        outcome, lost = self.outcome, idle * seconds
        if chunk is None:
            outcome.starved += lost
        elif chunk.waiting:
            outcome.backoff += lost
        else:
            outcome.tail += lost

    def _fill(self, each):
        """Have the free threads of a worker begin downloads."""
        chunk = each.chunk
        while chunk.queue and chunk.running < self.load.concurrent:
            self._attempt(each, chunk, chunk.queue.popleft())
        if not (chunk.queue or chunk.running or chunk.waiting):
            self._end(each, chunk)

    def _attempt(self, each, chunk, file):
        now, known = self.clock.now, each.host(file.site)
        file.began = now
        until = known.enter(file)
        if until is not None:
            self._wait(each, chunk, file, until)
            return
        file.is_live = True
        file.attempts += 1
        try:
            known.breaker.admit()
        except DownloadFailed:
            known.forget(file)
            self._lose(chunk, file)
            self.outcome.spared += 1
            return
        self.outcome.requests += 1
        seconds, error = self._ask(file, now)
        chunk.running += 1
        self._at(now + seconds, self._answered, each, chunk, file, known, error)

    def _answer(self, file, now):
        site = file.site
        if site.is_down(now):
            error = transient("down")
            error.refused = not site.is_silent
            return (CONNECT if site.is_silent else QUICK), error
        seconds = site.seconds(file.size)
        if self._chance.random() < self.load.fault:
            # Half are refused at once, the others break off.
            is_late = self._chance.random() < 0.5
            return seconds * self._chance.random() if is_late else site.trip, transient("fault")
        return seconds, None

    def _answered(self, each, chunk, file, known, error):
        """Take the end of a request, as a run does."""
        now, outcome = self.clock.now, self.outcome
        self._idled(each, now)
        chunk.running -= 1
        if error is None:
            known.breaker.succeeded()
            known.leave(file)
            file.is_live = False
            outcome.good += now - file.began
            outcome.ideal += now - file.began
            outcome.seconds = now
            chunk.ends.append(now - chunk.began)
            chunk.unreported += 1
        else:
            outcome.failed += now - file.began
            self._recover(each, chunk, file, known, error)
        self._fill(each)

    def _recover(self, each, chunk, file, known, error):
        now = self.clock.now
        known.forget(file)
        if error.refused and known.is_crowded(file, file.began):
            self._wait(each, chunk, file, now + host.PAUSE)
            return
        known.breaker.failed(file.began)
        if file.budget is None:
            file.budget = backoff.Budget(self.load.retry, 120.0)
        delay = None if known.breaker.is_open else file.budget.delay(error)
        if delay is None:
            self._lose(chunk, file)
            return
        file.budget.spend()
        self._wait(each, chunk, file, now + delay)

    def _wait(self, each, chunk, file, until):
        """Have a file wait without a thread."""
        chunk.waiting += 1
        file.turn += 1
        self._at(until, self._resume, each, chunk, file, file.turn)
        file.is_live = True
        file.place, file.wake = (each, chunk), self._nudge

    def _nudge(self, file):
        each, chunk = file.place
        self._at(self.clock.now, self._resume, each, chunk, file, file.turn)

    def _resume(self, each, chunk, file, turn):
        if file.turn != turn:
            return
        file.turn += 1
        self._idled(each, self.clock.now)
        chunk.waiting -= 1
        chunk.queue.append(file)
        self._fill(each)

    def _lose(self, chunk, file):
        outcome = self.outcome
        file.is_live = False
        outcome.lost += 1
        outcome.dead += file.site.is_dead
        outcome.seconds = self.clock.now
        chunk.ends.append(self.clock.now - chunk.began)
        chunk.unreported += 1

    def _end(self, each, chunk):
        self._idled(each, self.clock.now)
        self._outstanding -= chunk.unreported
        self._portions.done += len(chunk.ends)
        self._portions.learn(worker.rate(chunk.ends), self.load.workers)
        self._sent -= 1
        each.chunk = None
        self._idle.append(each)
        if self._ready:
            self._begin(self._idle.popleft())
        self._send()
