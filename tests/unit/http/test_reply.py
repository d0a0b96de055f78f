"""Tests of the adapter to `requests`, whose responses make their attributes only when asked."""

import functools
import pickle
from datetime import timedelta

import pytest
import requests
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse

from pulpcore.plugin.download.futures.http.wire.adapter import Response
from pulpcore.plugin.download.futures.http.wire.body import Body
from pulpcore.plugin.download.futures.http.wire.framing import ReplyParser
from pulpcore.plugin.download.futures.http.wire.reply import header, of

HEAD = [
    ("Content-Type", "text/html"),
    ("Set-Cookie", "a=1"),
    ("Link", "<b>"),
    ("set-cookie", "c=2"),
    ("Content-Length", "6"),
]


class Connection:
    """A fake connection that delivers pieces of a body."""

    trip = 0.0

    def __init__(self, *pieces):
        self.pieces = list(pieces)
        self.is_closed = self.is_shut_down = False

    def receive(self, size, must_end_properly=False):
        """Return the next piece."""
        return self.pieces.pop(0)

    def finish(self, parser):
        """Do nothing, because nothing follows."""

    def unwatch(self):
        """Do nothing, because nobody watches."""

    def shut_down(self, how):
        """Record the shutdown."""
        self.is_shut_down = True

    def close(self):
        """Record the close."""
        self.is_closed = True


def made(*pieces, fields=HEAD):
    """Make a response, its connection, and the list of connections returned to the pool."""
    request = requests.Request("GET", "http://files.example/a?b").prepare()
    connection, released = Connection(*pieces), []
    parser = ReplyParser("GET")
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    parser.receive(f"HTTP/1.1 200 Fine\r\n{lines}\r\n".encode())
    body = Body(connection, parser.read_head(), parser, released.append)
    return Response(body, request), connection, released


def test_is_one_of_requests():
    """The response has every attribute of a `requests.Response`."""
    reply, _, _ = made(b"abcdef")
    assert [name for name in vars(requests.Response()) if not hasattr(reply, name)] == []
    assert isinstance(reply, requests.Response)
    assert (reply.status_code, reply.reason, reply.ok) == (200, "Fine", True)
    assert reply.url == reply.request.url == "http://files.example/a?b"
    assert (reply.encoding, reply.history, reply.elapsed) == ("ISO-8859-1", [], timedelta(0))
    assert reply.cookies.get_dict() == {"a": "1", "c": "2"}
    assert (reply.raw.status, reply.raw.headers["link"]) == (200, "<b>")
    assert reply.length == 6


def test_unknown_attribute():
    """An unknown attribute of the response raises AttributeError with its name."""
    reply, _, _ = made()
    with pytest.raises(AttributeError, match="'Response' object has no attribute 'nonsense'"):
        _ = reply.nonsense


def with_fields(name, *values):
    """Make a response with repeated fields twice: with our connection, and as one of urllib3."""
    pairs = [(name, value) for value in values]
    ours = made(fields=pairs)[0]
    other = requests.Response()
    other.raw = HTTPResponse(headers=HTTPHeaderDict(pairs))
    other.headers = CaseInsensitiveDict(other.raw.headers)
    return ours, other


@pytest.mark.parametrize(
    ("name", "values", "value"),
    [
        ("Location", ["/b", "/b"], "/b"),
        ("Location", ["/b", "/c"], ""),
        ("Location", ["/b, /b"], "/b, /b"),
        ("ETag", ['"a,b"', '"a,b"', '"a,b"'], '"a,b"'),
        ("ETag", ['"a"', '"b"'], ""),
        ("Last-Modified", ["Thu, 01 Jan 1970 00:00:00 GMT"] * 2, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Content-Range", ["bytes 0-1/2", "bytes 0-1/3"], ""),
        ("Content-Encoding", ["gzip", "gzip"], "gzip"),
        ("Content-Encoding", ["gzip", "br"], "gzip, br"),
        ("Content-Encoding", ["gzip, gzip"], "gzip, gzip"),
        ("Link", ["<b>", "<b>"], "<b>, <b>"),
    ],
)
def test_several_fields(name, values, value):
    """A repeated singleton field counts if its values are equal. Otherwise it is ignored."""
    for reply in with_fields(name, *values):
        assert header(reply, name.lower()) == value
        assert reply.headers[name] == ", ".join(values)
        assert header(reply, name.lower()) == value
        reply.headers[name] = "mine, mine"
        assert header(reply, name.lower()) == "mine, mine"


def test_headers():
    """Repeated fields are joined to one list. Field names ignore case (RFC 9110 section 5.3)."""
    reply, _, _ = made()
    assert type(reply.headers) is CaseInsensitiveDict
    assert reply.headers["SET-COOKIE"] == "a=1, c=2"
    assert [reply.headers[name] for name in ("link", "content-length")] == ["<b>", "6"]
    assert reply.headers is reply.headers


def test_no_cookies():
    """A response without Set-Cookie has no cookies."""
    reply, _, _ = made(fields=[("Link", "<b>")])
    assert len(reply.cookies) == 0


def test_given_back():
    """The connection returns to the pool once, as soon as the body was read to its end."""
    reply, connection, released = made(b"abc", b"def")
    assert (reply.take(3), released) == (b"abc", [])
    assert (reply.take(3), released) == (b"def", [connection])
    assert reply.take(3) == b""
    reply.close()
    assert (released, connection.is_closed) == ([connection], False)


def test_given_back_at_once():
    """If a response has no body, its connection returns to the pool at once."""
    _, connection, released = made(fields=[("Content-Length", "0")])
    assert (released, connection.is_closed) == ([connection], False)


def test_closed_early():
    """A connection whose body wasn't read to its end is closed instead of returned to the pool."""
    reply, connection, released = made(b"abc", b"def")
    reply.close()
    reply.close()
    assert (released, connection.is_closed) == ([], True)


def test_raw_lets_go():
    """Reading or closing `raw` doesn't affect a connection that has returned to the pool."""
    reply, connection, released = made(b"abcdef")
    raw = reply.raw
    assert reply.take(6) == b"abcdef"
    assert raw.read(100) == b""
    raw.close()
    assert (released, connection.is_closed) == ([connection], False)


def test_raw_closes():
    """Closing `raw` before the end of the body closes the connection instead of pooling it."""
    reply, connection, released = made(b"abc", b"def")
    reply.raw.shutdown()
    assert connection.is_shut_down
    reply.raw.close()
    assert (released, connection.is_closed) == ([], True)


@pytest.mark.parametrize("who", ["take", "raw", "close"])
def test_was_taken(who):
    """`was_taken` is true only if `take` has read the whole body, and not if others read it."""
    reply, _, _ = made(b"abc", b"def")
    assert not of(reply).was_taken(0)
    if who == "close":
        reply.close()
    elif who == "raw":
        reply.raw.read1(3)
    taken = sum(map(len, iter(functools.partial(reply.take, 3), b"")))
    assert of(reply).was_taken(taken) is (who == "take")


def test_pickle():
    """A response is pickled with its content and without its connection, as by `requests`."""
    reply, connection, released = made(b"abc", b"def")
    again = pickle.loads(pickle.dumps(reply))
    assert (again.content, again.headers["Link"], again.url) == (b"abcdef", "<b>", reply.url)
    assert again.request.url == reply.url
    again.close()
    reply.close()
    assert (released, connection.is_closed) == ([connection], False)


def test_header():
    """`header` reads a field without building all headers and respects changes by the user."""
    reply, _, _ = made()
    assert (header(reply, "link"), header(reply, "etag")) == ("<b>", None)
    assert "headers" not in vars(reply)
    reply.headers["ETag"] = '"1"'
    del reply.headers["link"]
    assert (header(reply, "link"), header(reply, "etag")) == (None, '"1"')


def test_header_of_another():
    """`header` finds a field also in a plain `requests.Response`."""
    reply = requests.Response()
    reply.headers["Link"] = "<b>"
    assert (header(reply, "link"), header(reply, "etag")) == ("<b>", None)
