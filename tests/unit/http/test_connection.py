"""Tests of HTTP connections: sending requests, reading responses, detecting stale connections."""

import contextlib
import http.client
import os
import select
import socket
import ssl
import struct
import threading

import pytest

from pulpcore.plugin.download.futures.http.wire.body import Body
from pulpcore.plugin.download.futures.http.wire.connection import Connection
from pulpcore.plugin.download.futures.http.wire.error import MissingCloseNotify, StaleConnection
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, Cancelled, scope

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\nabc"


@pytest.fixture
def pair():
    """Make a connection and the socket at its other end."""
    here, there = socket.socketpair()
    with here, there:
        there.settimeout(30)
        connection = Connection(here, here)
        connection.settimeout(30)
        yield connection, there


def until_noticed(connection):
    """Wait until the connection has received data or was closed by its peer."""
    assert select.select([connection._socket], [], [], 30)[0]


def body_of(connection):
    """Return the next response."""
    head, parser = connection.next_reply()
    return Body(connection, head, parser, lambda connection: None)


def test_several_requests_before_a_reply(pair):
    """A connection can send several requests before it reads the responses, in their order."""
    connection, there = pair
    connection.send("GET", b"one")
    connection.send("HEAD", b"two")
    assert there.recv(99) == b"onetwo"
    assert not connection.is_clean
    there.sendall(REPLY + b"HTTP/1.1 404 X\r\nContent-Length: 3\r\n\r\n")
    first = body_of(connection)
    assert (first.head.status, first.read()) == (200, b"abc")
    assert not connection.is_clean
    second = body_of(connection)
    # A reply to HEAD has no body, whatever its length says.
    assert (second.head.status, second.read(), second.isclosed()) == (404, b"", True)
    assert connection.is_clean


def test_content(pair):
    """The content of a request is sent after its head."""
    connection, there = pair
    connection.send("POST", b"head", [b"a", b"b"])
    assert there.recv(99) == b"headab"


@pytest.mark.parametrize("is_full", [False, True])
def test_head_without_room(pair, is_full):
    """A head for which the send buffer has no room is sent whole once the peer reads."""
    connection, there = pair
    before = 0
    if is_full:
        with contextlib.suppress(BlockingIOError):
            while True:
                before += os.write(connection._socket.fileno(), bytes(65536))
    head = b"0123456789abcdef" * 65536
    thread = threading.Thread(target=connection.send, args=("GET", head, [b"content"]))
    thread.start()
    received = b""
    while len(received) < before + len(head) + 7:
        received += there.recv(1 << 20)
    thread.join(30)
    assert received[before:] == head + b"content"


def test_head_that_never_finds_room(pair):
    """Sending to a peer that reads nothing ends with the time-out."""
    connection, _ = pair
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(connection._socket.fileno(), bytes(65536))
    connection.settimeout(0.01)
    with pytest.raises(TimeoutError):
        connection.send("GET", b"head")


def test_more_than_the_reply(pair):
    """A connection that has received bytes after the last response isn't clean."""
    connection, there = pair
    connection.send("GET", b"x")
    there.sendall(REPLY + b"H")
    assert body_of(connection).read() == b"abc"
    assert not connection.is_clean


def test_more_than_tls_has_handed_out():
    """A connection isn't clean while its TLS layer holds decrypted bytes that nobody has read."""

    class Stream:
        settimeout = sendall = recv = close = None

        def pending(self):
            return left

    here, there = socket.socketpair()
    with here, there:
        connection = Connection(Stream(), here)
        left = 1
        assert not connection.is_clean
        left = 0
        assert connection.is_clean


@pytest.mark.parametrize("how", ["bytes", "end", "reset"])
def test_is_open(how):
    """A connection counts as open until its peer closes it or sends unexpected data."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        connection = Connection(sock, sock)
        there = listener.accept()[0]
        with there:
            assert connection.is_open
            if how == "bytes":
                there.sendall(b"x")
            elif how == "reset":
                there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if how != "bytes":
                there.close()
            until_noticed(connection)
            assert not connection.is_open
        connection.close()


@pytest.mark.parametrize("seconds", [0.01, 0.02])
def test_time_out(pair, seconds):
    """A response that doesn't arrive is a time-out. So is a request that the peer doesn't read."""
    connection, _ = pair
    connection.settimeout(seconds)
    connection.send("GET", b"x")
    with pytest.raises(TimeoutError):
        connection.next_reply()
    with pytest.raises(TimeoutError):
        connection.send("GET", b"x" * 10_000_000)


def test_signals_renew_no_time_out(pair):
    """Signals don't restart a time-out: it ends in time however many of them arrive."""
    import signal
    import time

    connection, _ = pair
    connection.settimeout(0.5)
    connection.send("GET", b"x")
    took = []

    def wait():
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connection.next_reply()
        took.append(time.monotonic() - began)

    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        thread = threading.Thread(target=wait)
        thread.start()
        while thread.is_alive():
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
            thread.join(0.05)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert took[0] < 20


def test_gone_before_it_was_asked(pair):
    """If the server closed the connection before the request, its early response is still read."""
    connection, there = pair
    there.sendall(REPLY)
    there.close()
    connection.send("GET", b"x")
    assert body_of(connection).read() == b"abc"


@pytest.mark.parametrize("is_used", [False, True])
def test_stale(pair, is_used):
    """A connection failure counts as stale only after a response has arrived on the connection."""
    connection, there = pair
    if is_used:
        connection.send("GET", b"x")
        there.sendall(REPLY)
        body_of(connection).read()
    there.close()
    connection.send("GET", b"x")
    with pytest.raises(http.client.RemoteDisconnected) as caught:
        connection.next_reply()
    assert isinstance(caught.value, StaleConnection) is is_used


class TestBody:
    def test_reads(self, pair):
        """read1 returns what has arrived. read and readinto return as much as was asked for."""
        connection, there = pair
        connection.send("GET", b"x")
        there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcdefghi")
        body = body_of(connection)
        assert body.read1(0) == body.read(0) == b""
        assert body.read1(2) == b"ab"
        buffer = bytearray(2)
        assert (body.readinto(buffer), bytes(buffer)) == (2, b"cd")
        assert body.read(3) == b"efg"
        assert body.read() == b"hi"
        assert body.read(5) == body.read1() == b""
        assert (body.delivered, body.is_complete) == (9, True)

    def test_msg(self, pair):
        """A body offers the header fields in the form that cookie jars need."""
        connection, there = pair
        connection.send("GET", b"x")
        there.sendall(b"HTTP/1.1 204 OK\r\nA: 1\r\na: 2\r\n\r\n")
        assert body_of(connection).msg.get_all("A") == ["1", "2"]

    def test_close(self, pair):
        """Closing a body before its end closes the connection, once."""
        connection, there = pair
        connection.send("GET", b"x")
        there.sendall(REPLY[:-1])
        body = body_of(connection)
        assert there.recv(9) == b"x"
        body.flush()
        body.close()
        body.close()
        assert (body.isclosed(), body.is_complete, body.read1()) == (True, False, b"")
        assert there.recv(9) == b""

    def test_shut_down(self, pair):
        """A body can shut the socket down while it is being read.

        After that the socket may have a new user.
        """
        connection, there = pair
        connection.send("GET", b"x")
        there.sendall(REPLY)
        body = body_of(connection)
        body.read()
        body.shut_down(socket.SHUT_RDWR)
        assert connection.is_open
        connection.send("GET", b"x")
        there.sendall(REPLY[:-1])
        body_of(connection).shut_down(socket.SHUT_RDWR)
        assert not connection.is_open

    @pytest.mark.parametrize(
        ("there_is", "is_used_again"),
        [(REPLY, True), (REPLY[:-1], False)],
        ids=["all", "not all"],
    )
    def test_drain(self, pair, there_is, is_used_again):
        """Draining reads the rest of a body that has already arrived, and doesn't wait for more."""
        connection, there = pair
        connection.send("GET", b"x")
        there.sendall(there_is)
        head, parser = connection.next_reply()
        released = []
        Body(connection, head, parser, released.append).drain()
        assert (released == [connection]) is is_used_again
        Body(connection, head, parser, released.append).drain()

    def test_drain_is_bounded(self, pair):
        """Draining reads only a little, as a new connection costs less than a long rest."""
        connection, there = pair
        connection.send("GET", b"x")
        there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99_999)
        body = body_of(connection)
        body.drain()
        assert (body.isclosed(), body.is_complete) == (True, False)
        assert 0 < body.delivered < 99_999


class TestCancelled:
    def test_while_it_is_watched(self, pair):
        """A cancellation ends a blocked read with an error instead of a seeming end of the body."""
        connection, there = pair
        token = Cancellation()
        with scope(token):
            connection.watch()
        connection.send("GET", b"x")
        there.sendall(TO_THE_END)
        body = body_of(connection)
        assert body.read1() == b"abc"
        token.cancel("enough")
        with pytest.raises(Cancelled, match="enough"):
            body.read1()
        body.close()

    def test_not_later(self, pair):
        """A cancellation doesn't touch a connection that went back to the pool."""
        connection, there = pair
        token = Cancellation()
        with scope(token):
            connection.watch()
        connection.unwatch()
        token.cancel("enough")
        there.sendall(b"more")
        assert connection.receive(9) == b"more"


class TestCutTls:
    """TLS that ends without a close_notify (RFC 9112 section 9.8)."""

    @pytest.fixture
    def cut(self, pair, monkeypatch):
        """Make a connection whose TLS is cut after the given bytes."""
        connection, there = pair
        real = connection._stream

        class Stream:
            """A socket that reports a truncated TLS stream as the ssl module does."""

            def recv(self, size):
                if data := real.recv(size):
                    return data
                raise ssl.SSLEOFError(8, "EOF occurred in violation of protocol")

            def __getattr__(self, name):
                return getattr(real, name)

        connection._stream = Stream()
        return connection, there

    def test_is_an_end(self, cut):
        """A TLS stream cut before the Content-Length is reached is an incomplete read."""
        connection, there = cut
        connection.send("GET", b"x")
        there.sendall(REPLY[:-1])
        there.shutdown(socket.SHUT_WR)
        body = body_of(connection)
        assert body.read1() == b"ab"
        with pytest.raises(http.client.IncompleteRead):
            body.read1()

    def test_is_no_end(self, cut):
        """Without a Content-Length a cut TLS stream raises an error after all received bytes."""
        connection, there = cut
        connection.send("GET", b"x")
        there.sendall(TO_THE_END)
        there.shutdown(socket.SHUT_WR)
        body = body_of(connection)
        assert body.read1() == b"abc"
        with pytest.raises(MissingCloseNotify, match="close_notify"):
            body.read1()
        # Whether that was all is for its reader to judge.
        assert (body.is_complete, body.delivered, body.read1()) == (True, 3, b"")

    def test_other_errors(self, pair):
        """Any other TLS error during a read is raised unchanged."""
        connection, _ = pair

        class Stream:
            def recv(self, size):
                raise ssl.SSLError(1, "bad record mac")

            close = connection._stream.close

        connection._stream = Stream()
        with pytest.raises(ssl.SSLError, match="bad record mac"):
            connection.receive(9, must_end_properly=True)
