"""Pools of connections, and the limit of idle ones that all pools of a context share."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pulpcore.plugin.download.futures.http.wire import pool as module
from pulpcore.plugin.download.futures.http.wire.framing import ReplyParser
from pulpcore.plugin.download.futures.http.wire.pool import IdleConnections, Pool


class Connection:
    """A connection, as far as a pool knows one."""

    def __init__(self, number=0):
        self.number = number
        self.is_clean = self.is_open = True
        self.is_closed = self.is_watched = False
        self.reply = b"HTTP/1.1 204 X\r\n\r\n"
        self.timeouts = []

    def watch(self):
        """Have it woken by a cancellation."""
        self.is_watched = True

    def unwatch(self):
        """Don't."""
        self.is_watched = False

    def settimeout(self, seconds):
        """Keep the time-out."""
        self.timeouts.append(seconds)

    def send(self, method, head, content):
        """Send nothing."""

    def next_reply(self):
        """What is to come."""
        assert self.is_watched
        if isinstance(self.reply, BaseException):
            raise self.reply
        parser = ReplyParser("GET", self.reply)
        return parser.read_head(), parser

    def finish(self, parser):
        """Nothing follows."""

    def close(self):
        """Close it."""
        self.is_closed = True


@pytest.fixture
def made():
    """The connections that were made."""
    return []


@pytest.fixture
def make(made):
    """Make a pool; all share the idle connections, of which there are three at most."""
    idle = IdleConnections(3)

    def connect(timeout):
        made.append(Connection(len(made)))
        made[-1].timeouts.append(timeout)
        return made[-1]

    return lambda: Pool(connect, idle)


def ask(pool):
    """Send a request, and read the reply to its end."""
    return pool.request("GET", b"head", (), (5, 7))


def test_kept(make, made):
    """A connection is used again, with the time-out of the request and no longer watched."""
    pool = make()
    ask(pool)
    ask(pool)
    (only,) = made
    assert (only.timeouts, only.is_watched, only.is_closed) == ([5, 7, 7], False, False)


def test_last_goes_first(make, made):
    """The connection that came back last is used first: the others may be closed when idle."""
    pool = make()
    first, second = Connection(1), Connection(2)
    pool.release(first)
    pool.release(second)
    ask(pool)
    assert (second.timeouts, first.timeouts, made) == ([7], [], [])


@pytest.mark.parametrize("why", ["is_clean", "is_open"])
def test_not_used_again(make, made, why):
    """What has more than its replies isn't kept, and what the server has ended isn't used."""
    pool = make()
    gone = Connection()
    setattr(gone, why, False)
    pool.release(gone)
    ask(pool)
    assert (gone.is_closed, gone.timeouts, len(made)) == (True, [], 1)


def test_reply_that_fails(make, made):
    """A connection whose reply can't be read is closed, and no longer watched."""
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
    """Beyond the limit the connection that was idle longest is closed, whichever pool has it."""
    pools = [make() for _ in range(5)]
    idle = [Connection(number) for number in range(5)]
    for pool, connection in zip(pools, idle, strict=True):
        pool.release(connection)
    assert [connection.is_closed for connection in idle] == [True, True, False, False, False]


def test_use_renews(make):
    """One that is used again is idle from then on, and others go before it."""
    old, hot, more = make(), make(), make()
    first, second = Connection(1), Connection(2)
    old.release(first)
    hot.release(second)
    for _ in range(20):
        ask(hot)
    # The tickets of the time before don't count.
    assert not first.is_closed
    third, fourth = Connection(3), Connection(4)
    more.release(third)
    assert not first.is_closed
    more.release(fourth)
    assert [c.is_closed for c in (first, second, third, fourth)] == [True, False, False, False]


def test_closed_pool_can_be_used(make, made):
    """Closing a pool ends its idle connections, and later ones when they come back."""
    pool, other = make(), make()
    idle, others = Connection(1), Connection(2)
    pool.release(idle)
    other.release(others)
    pool.close()
    assert (idle.is_closed, others.is_closed) == (True, False)
    ask(pool)
    assert [connection.is_closed for connection in made] == [True]


def test_closing_all():
    """The end of a context ends all idle connections."""
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
    """A context that nobody closes leaves no idle connection open when it is gone."""
    all_idle = IdleConnections()
    idle = Connection()
    Pool(Connection, all_idle).release(idle)
    del all_idle
    assert idle.is_closed


def test_many_threads(make, made):
    """However many threads ask at once, no connection is used by two."""
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
    """A context keeps 64 idle connections."""
    assert module.IDLE_LIMIT == IdleConnections()._limit == 64
