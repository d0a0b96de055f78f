"""Tests of prepared requests, whose common headers are serialized only once."""

import copy
import pickle

import pytest
import requests
from requests.structures import CaseInsensitiveDict

from pulpcore.plugin.download.futures.http.wire.adapter import Request
from pulpcore.plugin.download.futures.http.wire.error import UnsendableError
from pulpcore.plugin.download.futures.http.wire.request import CommonHeaders, head, lines

COMMON = CommonHeaders({"Accept": "*/*", "User-Agent": "x"})
LINES = "Accept: */*\r\nUser-Agent: x\r\n"


@pytest.fixture
def request_():
    """Make a request with nothing but the common headers."""
    return Request("GET", "http://a.example/", COMMON)


def test_common(request_):
    """A request has the common headers and knows as long as nobody could have changed them."""
    assert isinstance(request_, requests.PreparedRequest)
    assert (request_.method, request_.url, request_.body) == ("GET", "http://a.example/", None)
    assert request_.common is COMMON
    assert COMMON.lines == LINES
    assert request_.headers == {"accept": "*/*", "user-agent": "x"}
    assert request_.common is None
    assert lines(request_.headers) == LINES


def test_own(request_):
    """Adding or removing a header of one request doesn't change other requests."""
    request_.headers["X"] = b"\xe9"
    del request_.headers["accept"]
    assert lines(request_.headers) == "User-Agent: x\r\nX: \xe9\r\n"
    other = Request("GET", "http://a.example/", COMMON)
    assert other.common is COMMON
    assert dict(COMMON.headers) == {"Accept": "*/*", "User-Agent": "x"}


def test_replaced(request_):
    """Headers that replace all others are the only ones."""
    request_.headers = CaseInsensitiveDict({"X": "y"})
    assert request_.common is None
    assert lines(request_.headers) == "X: y\r\n"


def test_on_demand(request_):
    """Other attributes of a requests.PreparedRequest have their initial values."""
    assert request_.hooks == {"response": []}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = request_.nothing


@pytest.mark.parametrize("copied", [copy.copy, requests.PreparedRequest.copy])
def test_copy(request_, copied):
    """A request supports what `requests` does with a PreparedRequest, such as copying it."""
    twin = copied(request_)
    twin.headers["X"] = "y"
    assert "X" not in request_.headers
    assert lines(twin.headers) == f"{LINES}X: y\r\n"


def test_pickle(request_):
    """A request can be pickled, as part of an error."""
    twin = pickle.loads(pickle.dumps(request_))
    assert (twin.url, twin.headers) == (request_.url, request_.headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [("X", "a\r\nY: b"), ("X\nY", "a"), ("X", b"a\nb"), ("X", "a\rb"), ("X", "a\0b")],
)
def test_nothing_is_smuggled_in(request_, name, value):
    """A header with a line break or a NUL is never sent.

    The error doesn't show it, as it may be a secret.
    """
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
    """A request line with spaces, line breaks or characters outside Latin-1 is never sent."""
    with pytest.raises(UnsendableError, match=r"can't be sent$") as caught:
        head(method, target, fields)
    # The error of a codec contains the whole head with all its secrets.
    assert caught.value.__context__ is None


def test_head():
    """The head of a request is the request line, the fields and an empty line."""
    assert head("GET", "/a", LINES) == f"GET /a HTTP/1.1\r\n{LINES}\r\n".encode()
