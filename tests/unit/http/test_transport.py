"""The connections that are our part of urllib3."""

import contextlib
import logging
import select
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from requests.structures import CaseInsensitiveDict

from pulpcore.plugin.download.futures.http.wire.request import UnsendableError
from pulpcore.plugin.download.futures.http.wire.transport import Connection, Pool


def a_request(headers=None, method="GET"):
    """A request as requests makes it ready."""
    request = requests.PreparedRequest()
    request.method, request.headers = method, CaseInsensitiveDict(headers)
    return request


@pytest.mark.parametrize(
    ("target", "headers", "method"),
    [
        ("/", {}, "GET / HTTP/1.1\r\nX: y\r\n\r\nGET"),
        ("/a b", {}, "GET"),
        ("/a\r\nX: y", {}, "GET"),
        ("/\u00e9", {}, "GET"),
        ("", {"X": "a\r\nY: b"}, "GET"),
        ("/", {"X\nY": "a"}, "GET"),
        ("/", {"X": b"a\nb"}, "GET"),
        ("/", {"X": "a\rb"}, "GET"),
    ],
)
def test_nothing_is_smuggled_in(target, headers, method):
    """What would end a line of the request, or split its first, is never sent."""
    with pytest.raises(UnsendableError, match="can't be sent"):
        Connection("files.example").ask(a_request(headers, method), target)


def test_last_goes_first():
    """The connection that came back last is used first: others may be closed when idle."""
    pool = Pool("files.example", maxsize=3)
    first, second = Connection("files.example"), Connection("files.example")
    pool._put_conn(first)
    pool._put_conn(second)
    assert [pool._get_conn() for _ in range(2)] == [second, first]
    assert pool._get_conn() not in (first, second)


def test_full_pool(caplog):
    """A connection for which there is no room is closed."""
    pool = Pool("files.example", maxsize=1)
    kept, more = Connection("files.example"), Connection("files.example")
    here, there = socket.socketpair()
    with here, there:
        more.sock = here
        pool._put_conn(kept)
        with caplog.at_level(logging.WARNING):
            pool._put_conn(more)
        assert more.sock is None
        assert here.fileno() == -1
    assert "Connection pool size: 1" in caplog.text


@pytest.fixture
def accepted():
    """A connection that was made, and the socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(*listener.getsockname())
        connection.connect()
        with contextlib.closing(connection), listener.accept()[0] as there:
            yield connection, there


def until_noticed(connection):
    """Wait until something has come, or the connection was ended."""
    assert select.select([connection.sock], [], [], 30)[0]


def test_connected(accepted):
    """A connection is one while its socket is open, and nothing has come that wasn't read."""
    connection, there = accepted
    assert connection.is_connected
    there.sendall(b"xy")
    until_noticed(connection)
    assert not connection.is_connected
    connection.sock.recv(1)
    assert not connection.is_connected
    connection.sock.recv(1)
    assert connection.is_connected
    connection.close()
    assert not connection.is_connected


def test_connection_ended(accepted):
    """One that the other side has ended is none."""
    connection, there = accepted
    there.close()
    until_noticed(connection)
    assert not connection.is_connected


def test_connection_reset(accepted):
    """Nor is one that it has reset."""
    connection, there = accepted
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    there.close()
    until_noticed(connection)
    assert not connection.is_connected


def test_connected_where_the_system_does_not_tell(pair):
    """It is found out for any other kind of socket, and where there is no Linux."""
    connection, there = pair
    assert connection.is_connected
    there.send(b"x")
    assert not connection.is_connected
    connection.close()
    assert not connection.is_connected


@pytest.fixture
def pair():
    """A connection, and the socket at its other end."""
    connection = Connection("files.example")
    here, there = socket.socketpair()
    with here, there:
        connection.sock = here
        yield connection, there


def in_a_thread(function):
    """Call a function in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@pytest.mark.parametrize("call", [in_a_thread, lambda function: function()], ids=["pool", "main"])
def test_time_out(pair, call):
    """Whichever thread asks and whoever asked before: a reply that doesn't come is a time-out."""
    connection, there = pair

    def ask(seconds):
        connection.timeout = seconds
        connection.ask(a_request(), "/")
        return connection.answer()

    for seconds in (0.01, 0.02):
        with pytest.raises(TimeoutError, match="timed out"):
            call(lambda seconds=seconds: ask(seconds))
    there.sendall(b"HTTP/1.1 204 Fine\r\n\r\n")
    assert call(lambda: ask(None)).status == 204
    with pytest.raises(TimeoutError, match="timed out"):
        in_a_thread(lambda: ask(0.01))
    with pytest.raises(TimeoutError, match="timed out"):
        ask(0.01)


def test_time_out_is_forgotten(pair):
    """What the kernel was told for a pool's thread doesn't count for who asks without a limit."""
    connection, there = pair
    connection.timeout = 0.05
    there.sendall(b"HTTP/1.1 204 Fine\r\n\r\n")
    in_a_thread(lambda: (connection.ask(a_request(), "/"), connection.answer()))

    def late():
        threading.Event().wait(0.2)
        there.sendall(b"HTTP/1.1 204 Fine\r\n\r\n")

    for ask in (
        lambda: connection.ask(a_request(), "/"),
        # As urllib3 does.
        lambda: connection.request("GET", "/"),
    ):
        with ThreadPoolExecutor(1) as pool:
            connection.timeout = None
            connection.sock.settimeout(None)
            ask()
            sent = pool.submit(late)
            assert connection.answer().status == 204
            sent.result()
        connection.timeout = 0.05
        there.sendall(b"HTTP/1.1 204 Fine\r\n\r\n")
        in_a_thread(lambda: (connection.ask(a_request(), "/"), connection.answer()))


def test_time_out_of_sending(pair):
    """A request that nobody takes is a time-out."""
    connection, _ = pair
    connection.timeout = 0.01
    with pytest.raises(TimeoutError, match="timed out"):
        in_a_thread(lambda: connection.ask(a_request({"X": "x" * 10_000_000}), "/"))


def test_gone_before_it_was_asked(pair):
    """A request that can't be sent any more may have its reply all the same."""
    connection, there = pair
    there.sendall(b"HTTP/1.1 204 Fine\r\n\r\n")
    there.close()
    connection.timeout = 10
    connection.ask(a_request(), "/")
    assert connection.answer().status == 204
