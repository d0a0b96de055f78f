"""Requests, of which what they have in common is written once."""

import copy
import pickle

import pytest
import requests

from pulpcore.plugin.download.futures.http.wire.adapter import Request
from pulpcore.plugin.download.futures.http.wire.error import UnsendableError
from pulpcore.plugin.download.futures.http.wire.request import CommonHeaders, head, lines

COMMON = CommonHeaders({"Accept": "*/*", "User-Agent": "x"})
LINES = "Accept: */*\r\nUser-Agent: x\r\n"


@pytest.fixture
def request_():
    """A request with nothing but what is common."""
    return Request("GET", "http://a.example/", COMMON)


def test_common(request_):
    """Its headers are the common ones, and it says so as long as nobody could have changed them."""
    assert isinstance(request_, requests.PreparedRequest)
    assert (request_.method, request_.url, request_.body) == ("GET", "http://a.example/", None)
    assert request_.common is COMMON
    assert COMMON.lines == LINES
    assert request_.headers == {"accept": "*/*", "user-agent": "x"}
    assert request_.common is None
    assert lines(request_.headers) == LINES


def test_own(request_):
    """Headers that are added or taken away are its own, and no other request's."""
    request_.headers["X"] = b"\xe9"
    del request_.headers["accept"]
    assert lines(request_.headers) == "User-Agent: x\r\nX: \xe9\r\n"
    other = Request("GET", "http://a.example/", COMMON)
    assert other.common is COMMON
    assert dict(COMMON.headers) == {"Accept": "*/*", "User-Agent": "x"}


@pytest.mark.parametrize("copied", [copy.copy, requests.PreparedRequest.copy])
def test_copy(request_, copied):
    """What requests does with one it can do with ours."""
    twin = copied(request_)
    twin.headers["X"] = "y"
    assert "X" not in request_.headers
    assert lines(twin.headers) == f"{LINES}X: y\r\n"


def test_pickle(request_):
    """It can be pickled, as part of an error."""
    twin = pickle.loads(pickle.dumps(request_))
    assert (twin.url, twin.headers) == (request_.url, request_.headers)


@pytest.mark.parametrize(
    ("name", "value"), [("X", "a\r\nY: b"), ("X\nY", "a"), ("X", b"a\nb"), ("X", "a\rb")]
)
def test_nothing_is_smuggled_in(request_, name, value):
    """What would end a line is never sent, and isn't told: it may be a secret."""
    request_.headers[name] = value
    with pytest.raises(UnsendableError, match=r"can't be sent$"):
        lines(request_.headers)


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        ("GET / HTTP/1.1\r\nX: y\r\n\r\nGET", "/", ""),
        ("GET", "/a b", ""),
        ("GET", "/a\r\nX: y", ""),
        ("GET", "/\u00e9", ""),
        ("GET", "/", "X: \u20ac\r\n"),
    ],
)
def test_head_that_cannot_be_sent(method, target, fields):
    """A head with characters that would end its first line, or aren't Latin-1, is never sent."""
    with pytest.raises(UnsendableError, match=r"can't be sent$") as caught:
        head(method, target, fields)
    # An error of an encoder has the whole head, with all that is secret in it.
    assert caught.value.__context__ is None


def test_head():
    """A head is the request line, the fields and an empty line."""
    assert head("GET", "/a", LINES) == f"GET /a HTTP/1.1\r\n{LINES}\r\n".encode()
