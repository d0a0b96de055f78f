"""Replies and requests at the edge to requests, of which what nobody asks for isn't made."""

import pickle
from datetime import timedelta

import pytest
import requests
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse

from pulpcore.plugin.download.futures.http.wire.adapter import Response
from pulpcore.plugin.download.futures.http.wire.body import Body
from pulpcore.plugin.download.futures.http.wire.framing import ReplyParser
from pulpcore.plugin.download.futures.http.wire.reply import header, was_taken

HEAD = [
    ("Content-Type", "text/html"),
    ("Set-Cookie", "a=1"),
    ("Link", "<b>"),
    ("set-cookie", "c=2"),
    ("Content-Length", "6"),
]


class Connection:
    """A connection by which pieces of a body come, as far as a body knows one."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)
        self.is_closed = self.is_shut_down = False

    def receive(self, size, must_end_properly=False):
        """The next piece."""
        return self.pieces.pop(0)

    def finish(self, parser):
        """Nothing follows."""

    def unwatch(self):
        """Nobody watches."""

    def shut_down(self, how):
        """Shut it down."""
        self.is_shut_down = True

    def close(self):
        """Close it."""
        self.is_closed = True


def made(*pieces, fields=HEAD):
    """A reply, its connection, and where that was given back to."""
    request = requests.Request("GET", "http://files.example/a?b").prepare()
    connection, released = Connection(*pieces), []
    parser = ReplyParser("GET")
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    parser.receive(f"HTTP/1.1 200 Fine\r\n{lines}\r\n".encode())
    body = Body(connection, parser.read_head(), parser, released.append)
    return Response(body, request), connection, released


def test_is_one_of_requests():
    """It has all that a reply of requests has."""
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
    """An attribute that no reply has is none, and is named."""
    reply, _, _ = made()
    with pytest.raises(AttributeError, match="'Response' object has no attribute 'nonsense'"):
        _ = reply.nonsense


def with_fields(name, *values):
    """A reply with so many fields of one name, by way of our connection, and of another's."""
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
    """A field that may stand once counts once where all have one value, and else says nothing."""
    for reply in with_fields(name, *values):
        assert header(reply, name) == value
        assert reply.headers[name] == ", ".join(values)
        assert header(reply, name) == value
        reply.headers[name] = "mine, mine"
        assert header(reply, name) == "mine, mine"


def test_headers():
    """Several fields of one name are one list, and case doesn't matter (RFC 9110 section 5.3)."""
    reply, _, _ = made()
    assert type(reply.headers) is CaseInsensitiveDict
    assert reply.headers["SET-COOKIE"] == "a=1, c=2"
    assert [reply.headers[name] for name in ("link", "content-length")] == ["<b>", "6"]
    assert reply.headers is reply.headers


def test_no_cookies():
    """Without Set-Cookie there are none."""
    reply, _, _ = made(fields=[("Link", "<b>")])
    assert len(reply.cookies) == 0


def test_given_back():
    """The connection is given back once, as soon as the body was read to its end."""
    reply, connection, released = made(b"abc", b"def")
    assert (reply.take(3), released) == (b"abc", [])
    assert (reply.take(3), released) == (b"def", [connection])
    assert reply.take(3) == b""
    reply.close()
    assert (released, connection.is_closed) == ([connection], False)


def test_given_back_at_once():
    """Where there is no body, the connection is given back at once."""
    _, connection, released = made(fields=[("Content-Length", "0")])
    assert (released, connection.is_closed) == ([connection], False)


def test_closed_early():
    """A connection whose body wasn't read to its end is closed, and not given back."""
    reply, connection, released = made(b"abc", b"def")
    reply.close()
    reply.close()
    assert (released, connection.is_closed) == ([], True)


def test_raw_lets_go():
    """What urllib3's reply does once the connection was given back is nothing to that."""
    reply, connection, released = made(b"abcdef")
    raw = reply.raw
    assert reply.take(6) == b"abcdef"
    assert raw.read(100) == b""
    raw.close()
    assert (released, connection.is_closed) == ([connection], False)


def test_raw_closes():
    """To close it before the end closes the connection, which others must not have then."""
    reply, connection, released = made(b"abc", b"def")
    reply.raw.shutdown()
    assert connection.is_shut_down
    reply.raw.close()
    assert (released, connection.is_closed) == ([], True)


@pytest.mark.parametrize("who", ["take", "raw", "close"])
def test_was_taken(who):
    """It is told whether all of the body was taken, and by nobody else."""
    reply, _, _ = made(b"abc", b"def")
    assert not was_taken(reply, 0)
    if who == "close":
        reply.close()
    else:
        (reply.take if who == "take" else reply.raw.read1)(3)
    while reply.take(9):
        pass
    assert was_taken(reply, 6) is (who == "take")


def test_pickle():
    """It pickles as a reply of requests does: with its content, and without its connection."""
    reply, connection, released = made(b"abc", b"def")
    again = pickle.loads(pickle.dumps(reply))
    assert (again.content, again.headers["Link"], again.url) == (b"abcdef", "<b>", reply.url)
    assert again.request.url == reply.url
    again.close()
    reply.close()
    assert (released, connection.is_closed) == ([connection], False)


def test_header():
    """A header is found without all being made, and as it is where somebody has changed them."""
    reply, _, _ = made()
    assert (header(reply, "Link"), header(reply, "ETag")) == ("<b>", None)
    assert "headers" not in vars(reply)
    reply.headers["ETag"] = '"1"'
    del reply.headers["link"]
    assert (header(reply, "Link"), header(reply, "etag")) == (None, '"1"')


def test_header_of_another():
    """It is found in any other reply of requests, too."""
    reply = requests.Response()
    reply.headers["Link"] = "<b>"
    assert (header(reply, "link"), header(reply, "ETag")) == ("<b>", None)
