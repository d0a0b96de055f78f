"""The connections that are our part of urllib3."""

import logging
import socket

import pytest
import requests

from pulpcore.plugin.download.futures.http.transport import Connection, Pool


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nX: y", {}),
        ("/\u00e9", {}),
        ("", {"X": "a\r\nY: b"}),
        ("/", {"X\nY": "a"}),
        ("/", {"X": b"a\nb"}),
        ("/", {"X": "a\rb"}),
    ],
)
def test_nothing_is_smuggled_in(target, headers):
    """What would end a line of the request, or split its first, is never sent."""
    with pytest.raises(requests.exceptions.InvalidURL, match="can't be sent"):
        Connection("files.example").ask("GET", target, headers)


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


def test_connected():
    """A connection is one while its socket is open, and nothing has come that nobody asked for."""
    connection = Connection("files.example")
    assert not connection.is_connected
    here, there = socket.socketpair()
    with here, there:
        connection.sock = here
        assert connection.is_connected
        there.send(b"x")
        assert not connection.is_connected
        connection.close()
        assert not connection.is_connected
