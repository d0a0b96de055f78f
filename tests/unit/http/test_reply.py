"""Replies, of which what nobody asks for isn't made."""

import pickle
from datetime import timedelta

import pytest
import requests
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse

from pulpcore.plugin.download.futures.http.wire.reply import Reply, header, was_taken

HEAD = [
    ("Content-Type", "text/html"),
    ("Set-Cookie", "a=1"),
    ("Link", "<b>"),
    ("set-cookie", "c=2"),
    ("Content-Length", "6"),
]


class Body:
    """What reads a body off a socket."""

    status, reason, version, pairs = 200, "Fine", 11, HEAD
    length = 6
    chunked = False
    delivered = 0
    is_whole = False

    def __init__(self, *pieces):
        self.fields = {"link": "<b>", "content-length": "6"}
        self.pieces = list(pieces)
        self.is_closed = False
        self.is_shut_down = False

    def read1(self, size):
        """The next piece."""
        if self.is_closed:
            return b""
        self.is_closed = self.is_whole = len(self.pieces) == 1
        data = self.pieces.pop(0)
        self.delivered += len(data)
        return data

    def read(self, size=-1):
        """The same."""
        return self.read1(size)

    def flush(self):
        """Do nothing."""

    def shut_down(self, how):
        """Shut it down."""
        self.is_shut_down = True

    @property
    def msg(self):
        """What cookies are looked for in."""
        return self

    def get_all(self, name, default):
        """The values of a field."""
        return [value for found, value in HEAD if found.lower() == name.lower()] or default

    def isclosed(self):
        """Whether it was read, or closed."""
        return self.is_closed

    def close(self):
        """Close it."""
        self.is_closed = True


class Connection:
    """A connection."""

    is_closed = False
    sock = "a socket"

    def close(self):
        """Close it."""
        self.is_closed = True


def made(body):
    """A reply, its connection, and where that was given back to."""
    request = requests.Request("GET", "http://files.example/a?b").prepare()
    connection, released = Connection(), []
    return Reply(body, request, connection, released.append), connection, released


def test_is_one_of_requests():
    """It has all that a reply of requests has."""
    reply, _, _ = made(Body(b"abcdef"))
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
    reply, _, _ = made(Body())
    with pytest.raises(AttributeError, match="'Reply' object has no attribute 'nonsense'"):
        _ = reply.nonsense


def with_fields(name, *values):
    """A reply with so many fields of one name, by way of our connection, and of another's."""
    pairs = [(name, value) for value in values]
    body = Body()
    body.pairs, body.fields = pairs, {name.lower(): ", ".join(values)}
    ours = made(body)[0]
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
    reply, _, _ = made(Body())
    assert type(reply.headers) is CaseInsensitiveDict
    assert reply.headers["SET-COOKIE"] == "a=1, c=2"
    assert [reply.headers[name] for name in ("link", "content-length")] == ["<b>", "6"]
    assert reply.headers is reply.headers


def test_no_cookies():
    """Without Set-Cookie there are none."""
    body = Body()
    body.pairs = [("Link", "<b>")]
    reply, _, _ = made(body)
    assert len(reply.cookies) == 0


def test_given_back():
    """The connection is given back once, as soon as the body was read to its end."""
    reply, connection, released = made(Body(b"abc", b"def"))
    assert (reply.take(3), released) == (b"abc", [])
    assert (reply.take(3), released) == (b"def", [connection])
    assert reply.take(3) == b""
    reply.close()
    assert (released, connection.is_closed) == ([connection], False)


def test_given_back_at_once():
    """Where there is no body, the connection is given back at once."""
    body = Body()
    body.close()
    _, connection, released = made(body)
    assert (released, connection.is_closed) == ([connection], False)


def test_closed_early():
    """A connection whose body wasn't read is closed before it is given back."""
    reply, connection, released = made(Body(b"abc", b"def"))
    reply.close()
    reply.close()
    assert (released, connection.is_closed) == ([connection], True)


def test_raw_lets_go():
    """What urllib3's reply does once the connection was given back is nothing to that."""
    reply, connection, released = made(Body(b"abcdef"))
    raw = reply.raw
    assert (raw.connection.sock, reply.take(6)) == ("a socket", b"abcdef")
    assert (raw.read(100), raw.connection.sock) == (b"", None)
    raw.close()
    assert (released, connection.is_closed) == ([connection], False)


def test_raw_closes():
    """To close it before the end closes the connection, which others must not have then."""
    reply, connection, released = made(Body(b"abc", b"def"))
    reply.raw.shutdown()
    assert reply.raw._original_response.is_shut_down
    reply.raw.close()
    assert (released, connection.is_closed) == ([connection], True)


@pytest.mark.parametrize("who", ["take", "raw", "close"])
def test_was_taken(who):
    """It is told whether all of the body was taken, and by nobody else."""
    reply, _, _ = made(Body(b"abc", b"def"))
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
    reply, connection, released = made(Body(b"abc", b"def"))
    again = pickle.loads(pickle.dumps(reply))
    assert (again.content, again.headers["Link"], again.url) == (b"abcdef", "<b>", reply.url)
    assert again.request.url == reply.url
    again.close()
    reply.close()
    assert released == [connection]


def test_header():
    """A header is found without all being made, and as it is where somebody has changed them."""
    reply, _, _ = made(Body())
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
