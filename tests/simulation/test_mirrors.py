"""A simulation of many files from mirrors in trouble: the shipped policy on a virtual clock."""

import heapq
import random
from dataclasses import dataclass

from pulpcore.plugin.download.futures import DownloadFailed, NotFound
from pulpcore.plugin.download.futures.engine.sources import FAILURES, REST, Site, Tour
from pulpcore.plugin.download.futures.error import DigestMismatch, transient

FILES = 100_000
WORKERS = 8
SIZE = 100_000
TIMEOUT = 10.0


class Clock:
    """A clock that stands until it is set."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        """Return the time (seconds)."""
        return self.now


@dataclass
class Mirror:
    """A mirror: how long a file takes there, and how often each kind of trouble comes.

    Attributes:
        seconds: The time of a file.
        dead: No connection is made.
        missing: The share of files that haven't been synced.
        wrong: The share of files with wrong bytes.
        refuses: The share of requests that are refused.
        flaps: It is down in every other period of so many seconds.
    """

    seconds: float
    dead: bool = False
    missing: float = 0.0
    wrong: float = 0.0
    refuses: float = 0.0
    flaps: float = 0.0

    def ask(self, chance, now):
        """Return how long a request takes, and how it fails."""
        if self.dead or (self.flaps and int(now / self.flaps) % 2):
            return TIMEOUT, transient("no connection")
        draw = chance()
        if draw < self.missing:
            return 0.01, NotFound("not synced")
        if draw < self.missing + self.refuses:
            return 0.01, transient("refused")
        if draw < self.missing + self.refuses + self.wrong:
            return self.seconds, DigestMismatch("a", "b")
        return self.seconds, None


def simulate(mirrors, seed=0, files=FILES):
    """Fetch files with some workers. Return the seconds it took, the lost files, the requests."""
    chance, clock = random.Random(seed).random, Clock()
    sites = {name: Site(clock) for name in mirrors}
    asked = dict.fromkeys(mirrors, 0)
    lost = 0
    workers = [(0.0, number, None) for number in range(WORKERS)]
    heapq.heapify(workers)
    last = 0.0
    while workers:
        clock.now, number, job = heapq.heappop(workers)
        last = clock.now
        tour = None
        if job is not None:
            tour, error, seconds = job
            if error is None:
                tour.succeeded(SIZE, seconds, is_alone=False)
                tour = None
            else:
                tour.failed(error, seconds)
                if tour.has_next:
                    tour.advance()
                elif tour.transient(120) is not None:
                    tour.again(120, clock.now)
                else:
                    lost, tour = lost + 1, None
        if tour is None:
            if not files:
                continue
            files -= 1
            tour = Tour(list(mirrors), sites.__getitem__, chance, clock=clock)
        asked[tour.source] += 1
        seconds, error = mirrors[tour.source].ask(chance, clock.now)
        heapq.heappush(workers, (clock.now + seconds, number, (tour, error, seconds)))
    return last, lost, asked


def test_troubles():
    """With every kind of mirror trouble no file is lost, and the time is near the best."""
    mirrors = {
        "slow": Mirror(1.0),
        "wrong": Mirror(0.05, wrong=1.0),
        "syncing": Mirror(0.1, missing=0.9),
        "dead": Mirror(0.1, dead=True),
        "capped": Mirror(0.1, refuses=0.5),
        "flapping": Mirror(0.1, flaps=400.0),
        "good": Mirror(0.1),
    }
    seconds, lost, _ = simulate(mirrors)
    oracle = FILES * 0.1 / WORKERS
    assert lost == 0
    assert seconds < 1.05 * oracle


def test_dead_costs_one_timeout():
    """A first mirror that is dead costs a batch about one time-out."""
    good = {"good": Mirror(0.1)}
    seconds, _, asked = simulate({"dead": Mirror(0.1, dead=True)} | good, files=1000)
    best, _, _ = simulate(good, files=1000)
    assert seconds <= best + TIMEOUT + 1
    assert asked["dead"] <= WORKERS


def test_spread():
    """Two mirrors that are equally good share the load."""
    _, _, asked = simulate({"a": Mirror(0.1), "b": Mirror(0.1)}, files=10_000)
    assert min(asked.values()) > 2_000


def test_rest():
    """A mirror rests for five minutes after four quick failures in a row, and not after three."""
    clock = Clock()
    site = Site(clock)
    for number in range(FAILURES):
        assert not site.is_resting, number
        site.failed(0.01)
    assert site.is_resting
    clock.now = REST - 1
    assert site.is_resting
    clock.now = REST
    assert not site.is_resting


def test_missing_files_are_no_failure():
    """A missing file (404) doesn't count against a mirror."""
    site = Site(Clock())
    for _ in range(FAILURES):
        Tour(["a"], lambda _: site).failed(NotFound("x"), 0.01)
    assert not site.is_resting
    assert site.score == 0


def test_nothing_worth_another_round():
    """A source with a permanent error, or too long a Retry-After, isn't asked again."""
    tour = Tour(["a", "b"], lambda _: Site(Clock()))
    tour.failed(DownloadFailed("x"), 0.01)
    tour.advance()
    late = transient("late")
    late.retry_after = 999
    tour.failed(late, 0.01)
    assert tour.transient(120) is None
