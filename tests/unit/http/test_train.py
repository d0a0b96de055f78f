"""Tests of trains of requests on one connection, and of requests that can't be in one."""

import hashlib
import http.client

import pytest

from pulpcore.plugin.download.futures.engine.pipeline import Health
from pulpcore.plugin.download.futures.http.pipeline import Expected, HttpLine, PipelinedRequest
from pulpcore.plugin.download.futures.http.wire.connection import Connection
from pulpcore.plugin.download.futures.http.wire.framing import ReplyParser
from pulpcore.plugin.download.futures.http.wire.pool import IdleConnections, Pool
from pulpcore.plugin.download.futures.http.wire.train import StoredBody, Train
from pulpcore.plugin.download.futures.settings import Timeout
from pulpcore.plugin.download.futures.validation import DigestValidation
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation

NAMES = ["sha512", "sha256"]


class Options:
    """What a request asks a download for."""

    timeout = Timeout()


class Refusing:
    """A destination that can't write the head of a request, or a connection that can't send."""

    def head(self, *_):
        """Refuse."""
        raise http.client.HTTPException

    def settimeout(self, _):
        """Refuse."""
        raise OSError

    def close(self):
        """Do nothing."""


class Ended:
    """A train that the server ended, which was that many on its connection."""

    ended, left, is_given_up = True, 3, False

    def __init__(self, trains):
        self.connection = self
        self.trains = trains

    def close(self):
        """Do nothing."""


@pytest.mark.parametrize(("trains", "is_off"), [(1, True), (2, True), (3, False)])
def test_connections_that_end_at_a_time(trains, is_off):
    """Connections that end after long trains never turn pipelining off."""
    health = Health()
    for _ in range(8):
        HttpLine(Ended(trains), 8, health).close()
    assert health.is_off == is_off


@pytest.mark.parametrize("fed", [b"", b"more"])
def test_expected_content(fed):
    """Content is the expected one if size and all digests agree, whatever they have seen."""
    digests = [DigestValidation(name, hashlib.new(name, b"abc").hexdigest()) for name in NAMES]
    for digest in digests:
        digest.update(fed)
    expected = Expected(3, digests)
    assert [expected.has(data) for data in (b"abc", b"abx", b"ab")] == [True, False, False]
    digests[1] = DigestValidation(NAMES[1], hashlib.new(NAMES[1], b"abx").hexdigest())
    assert not expected.has(b"abc")


def test_unsendable():
    """A request that can't be written isn't put into a train."""
    with pytest.raises(http.client.HTTPException):
        PipelinedRequest(Options, None, None, None, Refusing(), Health())


def test_connection_that_cannot_send():
    """A train whose requests can't be sent gets no replies and counts as ended early."""
    train = Train(Refusing(), Pool(None, IdleConnections()), None)
    train.send([b"one", b"two"], None)
    assert not train.is_open
    assert train.ended
    train.close()


def stored(data, error=None):
    """Make the body of a reply that was read before."""
    parser = ReplyParser("GET", b"HTTP/1.1 200 OK\r\n\r\n")
    return StoredBody(parser.read_head(), len(data), data, error, 0.25)


def test_stored_body():
    """A stored body is read in pieces like any other, and is complete at its end."""
    body = stored(b"content")
    assert (body.read1(3), body.isclosed(), body.read(), body.isclosed()) == (
        *(b"con", False),
        *(b"tent", True),
    )
    assert body.read1() == b""


def test_stored_error():
    """A stored body that broke off raises its error."""
    with pytest.raises(ConnectionResetError):
        stored(b"cont", ConnectionResetError()).read1(9)


class Idle(Connection):
    """A connection without a socket, which is proved or not."""

    is_clean = is_open = True
    is_proved = False

    def __init__(self, trip=1.0):
        self.least_trip = trip

    def close(self):
        """Do nothing."""


def test_take_proved():
    """A train takes only a connection that has proved keep-alive, with a long round trip."""
    pool = Pool(None, IdleConnections())
    assert pool.take_proved(0.5) is None
    assert not pool.is_near(1.0)
    connection = Idle()
    pool.release(connection)
    assert pool.take_proved(0.5) is None
    # Nothing is known of the round trip yet.
    assert not pool.is_near(1.0)
    connection.is_proved = True
    assert pool.take_proved(1.0) is None
    assert pool.is_near(1.0)
    assert not pool.is_near(0.5)
    assert pool.take_proved(0.5) is connection
    assert pool.take_proved(0.5) is None


def test_exchanged_while_it_is_taken(monkeypatch):
    """If another thread takes the chosen connection, the train takes no other one."""
    pool = Pool(None, IdleConnections())
    proved, other = Idle(), Idle()
    proved.is_proved = True
    pool.release(other)
    pool.release(proved)
    take = pool._take
    monkeypatch.setattr(pool, "_take", lambda: take() and take())
    assert pool.take_proved(0.5) is None
    monkeypatch.undo()
    assert pool._take() is other
    assert pool._take() is None
    pool.release(proved)
    monkeypatch.setattr(pool, "_take", lambda: None)
    assert pool.take_proved(0.5) is None


@pytest.mark.parametrize("number", [1, 2])
def test_connection_close(number):
    """After a reply with "Connection: close" a train is over, too early if requests are left."""

    class Closing(Idle):
        trip = 0.25

        def next_reply(self):
            parser = ReplyParser("GET")
            parser.receive(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc")
            return parser.read_head(), parser

        def finish(self, _):
            pass

        settimeout = send_together = finish

        def watch(self):
            pass

        unwatch = watch

    train = Train(Closing(), Pool(None, IdleConnections()), None)
    train.send([b"request"] * number, None)
    assert train.receive(None, None).read() == b"abc"
    assert not train.is_open
    assert train.ended == (number > 1)


@pytest.mark.parametrize("waits", [True, False])
def test_given_up(waits):
    """A train gives its connection up to a run that it waits for, and to no other."""

    class Driver:
        def waits_for(self, _):
            return waits

    class Gone(Idle):
        def shut_down(self, _):
            raise OSError

    train = Train(Gone(), Pool(None, IdleConnections()), Driver())
    train.give_up(Cancellation())
    assert (train.is_open, train.is_given_up) == (not waits, waits)
