"""Many threads use one object at the same time.

Without the interpreter lock (``tox -e 3.14t``), a step that is one call of C may still be several
steps for other threads: ``tuple(a_set)`` fails if another thread adds to the set.
"""

import hashlib
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from pulpcore.plugin.download.futures.context import Cache
from pulpcore.plugin.download.futures.engine.claim import Claims
from pulpcore.plugin.download.futures.engine.places import Places
from pulpcore.plugin.download.futures.http.wire.pool import IdleConnections, Pool
from pulpcore.plugin.download.futures.storage.digest import LARGE, PIECE, Digest
from pulpcore.plugin.download.futures.waiting.atomic import Cell, Waiter
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation
from pulpcore.plugin.download.futures.waiting.threads import Workers

THREADS = 32


def at_once(*functions):
    """Run each function in a thread of its own, when all threads are there. Return the results."""
    barrier = threading.Barrier(len(functions))

    def run(function):
        barrier.wait(30)
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


def repeated(function, times):
    """Return a function that calls another one several times."""

    def run():
        for _ in range(times):
            function()

    return run


def test_cancellation():
    """A token can be cancelled while threads add and remove what it has to wake."""
    token = Cancellation()
    near, far = socket.socketpair()

    def use():
        child = Cancellation(token)
        waiter = Waiter()
        token.attach(waiter)
        token.watch(near)
        token.unwatch(near)
        token.detach(waiter)
        child.close()

    with near, far:
        users = [repeated(use, 100)] * (THREADS - 2)
        at_once(repeated(token.nudge, 300), repeated(lambda: token.cancel("x"), 300), *users)
    assert Cancellation(token).reason == "x"


def test_pool_of_threads():
    """Each function runs once, while threads start, end, and are waited for."""
    workers = Workers(4, "racing")
    done = []

    def use():
        workers.run(lambda: done.append(None))
        workers.join(0)

    at_once(*[repeated(use, 50)] * THREADS)
    workers.stop()
    workers.join(30)
    assert len(done) == THREADS * 50


def test_digest():
    """Any thread may ask for the digest while buffers are added and helper threads hash them."""
    content = bytes(range(256)) * 1024
    digest, is_added = Digest("sha256"), threading.Event()
    times = (LARGE + 8 * PIECE) // len(content)

    def add():
        for _ in range(times):
            for start in range(0, len(content), 16 * 1024):
                digest.update(content[start : start + 16 * 1024])
        is_added.set()

    def ask():
        while not is_added.is_set():
            digest.current()

    at_once(add, ask, ask)
    assert digest.current().digest() == hashlib.sha256(content * times).digest()


class Connection:
    """A connection that waits for nobody."""

    is_clean = is_open = is_proved = True
    least_trip = 1.0

    def close(self):
        """Note that it can't be used any more."""
        self.is_open = False


def test_pool_of_connections():
    """No connection is given to two threads, even if a third one looks at it."""
    pool = Pool(None, IdleConnections())
    used = Counter()

    def use():
        connection = pool.take_proved(0.0)
        pool.is_near(0.0)
        if connection is not None:
            used[connection] += 1
            assert used[connection] == 1
            used[connection] -= 1
            pool.release(connection)

    for _ in range(2):
        pool.release(Connection())
    at_once(*[repeated(use, 200)] * THREADS)
    assert len(pool._tickets) == 2


def test_claims():
    """A running or waiting run counts as live at every moment."""
    is_ended = threading.Event()

    def steps():
        while True:
            time.sleep(0.0001)
            yield

    run = steps()
    next(run)
    claims = Claims(run)

    def go_on():
        for _ in range(500):
            next(run)
            time.sleep(0.0001)
        is_ended.set()

    def ask():
        while not is_ended.is_set():
            assert claims.is_live

    at_once(go_on, ask, ask)
    run.close()
    assert not claims.is_live


def test_cache():
    """Of the threads that ask for one key, one makes the object, and all get it."""
    cache, made = Cache(), []
    numbers = range(100)

    def make():
        made.append(None)
        return object()

    def ask():
        return [cache.once(number, make) for number in numbers]

    found = at_once(*[ask] * THREADS)
    assert len(made) == len(numbers)
    assert all(each == found[0] for each in found)


def test_cell():
    """No update of a cell gets lost."""
    cell = Cell(0)
    at_once(*[repeated(lambda: cell.change(lambda value: value + 1), 100)] * THREADS)
    assert cell.value == THREADS * 100


class Run:
    """A run that is in progress as long as it isn't ended."""

    def __init__(self):
        self.token = Cancellation()
        self.claims = self
        self.is_live = True


@pytest.mark.parametrize("most", [1, 3])
def test_places(most):
    """A host never has more runs than places, and each run gets a place in the end."""
    places, using, seen = Places(), set(), []

    def use():
        run = Run()
        while places.enter(run, most) is not None:
            time.sleep(0)
        using.add(run)
        seen.append(len(using))
        using.discard(run)
        places.forget(run)

    at_once(*[repeated(use, 2)] * THREADS)
    assert len(seen) == THREADS * 2
    assert max(seen) <= most
