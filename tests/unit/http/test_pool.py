"""Tests of connection pools and of the limit of idle connections in a context."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pulpcore.plugin.download.futures.http.wire import pool as module
from pulpcore.plugin.download.futures.http.wire.framing import ReplyParser
from pulpcore.plugin.download.futures.http.wire.pool import IdleConnections, Pool


class Connection:
    """A fake connection with what a pool needs."""

    trip = 0.0

    def __init__(self, number=0):
        self.number = number
        self.is_clean = self.is_open = True
        self.is_closed = self.is_watched = False
        self.reply = b"HTTP/1.1 204 X\r\n\r\n"
        self.timeouts = []

    def watch(self):
        """Let a cancellation wake this connection."""
        self.is_watched = True

    def unwatch(self):
        """Undo `watch`."""
        self.is_watched = False

    def settimeout(self, seconds):
        """Record the time-out."""
        self.timeouts.append(seconds)

    def send(self, method, head, content):
        """Send nothing."""

    def next_reply(self):
        """Return the prepared response."""
        assert self.is_watched
        if isinstance(self.reply, BaseException):
            raise self.reply
        parser = ReplyParser("GET", self.reply)
        return parser.read_head(), parser

    def finish(self, parser):
        """Do nothing, because nothing follows."""

    def close(self):
        """Record the close."""
        self.is_closed = True


@pytest.fixture
def made():
    """Collect the connections that the pools make."""
    return []


@pytest.fixture
def make(made):
    """Make a pool. All pools share at most three idle connections."""
    idle = IdleConnections(3)

    def connect(timeout):
        made.append(Connection(len(made)))
        made[-1].timeouts.append(timeout)
        return made[-1]

    return lambda: Pool(connect, idle)


def ask(pool):
    """Send a request, and read its response to the end."""
    return pool.request("GET", b"head", (), lambda: 5, 7)


def test_kept(make, made):
    """A pool reuses its connection with the read time-out and stops watching for cancellation."""
    pool = make()
    ask(pool)
    ask(pool)
    (only,) = made
    assert (only.timeouts, only.is_watched, only.is_closed) == ([5, 7, 7], False, False)


def test_last_goes_first(make, made):
    """A pool reuses the most recently returned connection first, so the others can become idle."""
    pool = make()
    first, second = Connection(1), Connection(2)
    pool.release(first)
    pool.release(second)
    ask(pool)
    assert (second.timeouts, first.timeouts, made) == ([7], [], [])


@pytest.mark.parametrize("why", ["is_clean", "is_open"])
def test_not_used_again(make, made, why):
    """A pool keeps no connection with unread bytes and reuses none that the server has closed."""
    pool = make()
    gone = Connection()
    setattr(gone, why, False)
    pool.release(gone)
    ask(pool)
    assert (gone.is_closed, gone.timeouts, len(made)) == (True, [], 1)


def test_reply_that_fails(make, made):
    """A connection on which reading the response failed is closed and never reused."""
    pool = make()
    bad = Connection()
    bad.reply = OSError("reset")
    pool.release(bad)
    with pytest.raises(OSError, match="reset"):
        ask(pool)
    assert bad.is_closed
    ask(pool)
    assert len(made) == 1


def test_limit_for_all_pools(make):
    """Above the limit the connection that was idle longest is closed, in whichever pool it is."""
    pools = [make() for _ in range(5)]
    idle = [Connection(number) for number in range(5)]
    for pool, connection in zip(pools, idle, strict=True):
        pool.release(connection)
    assert [connection.is_closed for connection in idle] == [True, True, False, False, False]


def test_use_renews(make):
    """Using a connection restarts its idle time, so others that were idle longer close first."""
    old, hot, more = make(), make(), make()
    first, second = Connection(1), Connection(2)
    old.release(first)
    hot.release(second)
    for _ in range(20):
        ask(hot)
    # The entries from its earlier idle times don't count.
    assert not first.is_closed
    third, fourth = Connection(3), Connection(4)
    more.release(third)
    assert not first.is_closed
    more.release(fourth)
    assert [c.is_closed for c in (first, second, third, fourth)] == [True, False, False, False]


def test_closed_pool_can_be_used(make, made):
    """Closing a pool closes its idle connections, and later ones when they are returned."""
    pool, other = make(), make()
    idle, others = Connection(1), Connection(2)
    pool.release(idle)
    other.release(others)
    pool.close()
    assert (idle.is_closed, others.is_closed) == (True, False)
    ask(pool)
    assert [connection.is_closed for connection in made] == [True]


def test_closing_all():
    """Closing the context closes the idle connections of all its pools."""
    all_idle = IdleConnections()
    first, second = Pool(Connection, all_idle), Pool(Connection, all_idle)
    idle = [Connection(1), Connection(2)]
    first.release(idle[0])
    second.release(idle[1])
    all_idle.close()
    all_idle.close()
    assert [connection.is_closed for connection in idle] == [True, True]
    ask(first)


def test_nobody_closes_it():
    """A context that is garbage collected without being closed leaves no idle connection open."""
    all_idle = IdleConnections()
    idle = Connection()
    Pool(Connection, all_idle).release(idle)
    del all_idle
    assert idle.is_closed


def test_many_threads(make, made):
    """Two threads never use the same connection at once, however many threads send requests."""
    pool, start = make(), threading.Barrier(16)
    used, clashes = set(), []

    class Counted(Connection):
        def send(self, method, head, content):
            clashes.extend([self] if self in used else [])
            used.add(self)

        def unwatch(self):
            used.discard(self)
            super().unwatch()

    pool._connect = lambda timeout: made.append(Counted(len(made))) or made[-1]

    def work(_):
        start.wait()
        for _ in range(200):
            ask(pool)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))
    assert not clashes
    assert sum(not connection.is_closed for connection in made) <= 3
    pool.close()
    assert all(connection.is_closed for connection in made)


def test_limit_of_a_context():
    """A context keeps at most 64 idle connections."""
    assert module.IDLE_LIMIT == IdleConnections()._limit == 64


@pytest.mark.parametrize(
    ("trips", "is_taken", "is_near"),
    [
        ([], False, False),
        ([2.0], True, False),
        ([0.5], False, True),
        ([0.5, 2.0], True, False),
        ([2.0, 0.5], False, True),
    ],
)
def test_the_last_used_tells(trips, is_taken, is_near):
    """The connection that was used last decides whether the server is too near for pipelining."""
    pool = Pool(None, IdleConnections())
    connections = [Connection(number) for number in range(len(trips))]
    for connection, connection.least_trip in zip(connections, trips, strict=True):
        connection.is_proved = True
        pool.release(connection)
    assert pool.is_near(1.0) == is_near
    assert pool.take_proved(1.0) is (connections[-1] if is_taken else None)
