"""Requests, of which what they have in common is written once."""

import copy
import pickle

import pytest
import requests

from pulpcore.plugin.download.futures.http.wire.request import (
    Common,
    Request,
    UnsendableError,
    fields,
)

COMMON = Common({"Accept": "*/*", "User-Agent": "x"})
LINES = "Accept: */*\r\nUser-Agent: x\r\n"


@pytest.fixture
def request_():
    """A request with nothing but what is common."""
    return Request("GET", "http://a.example/", COMMON)


def test_common(request_):
    """Its headers are the common ones, and it says so as long as nobody could have changed them."""
    assert isinstance(request_, requests.PreparedRequest)
    assert (request_.method, request_.url, request_.body) == ("GET", "http://a.example/", None)
    assert fields(request_, "a.example:8080") == f"Host: a.example:8080\r\n{LINES}"
    assert request_.common is COMMON
    assert request_.headers == {"accept": "*/*", "user-agent": "x"}
    assert request_.common is None
    assert fields(request_, "a.example") == f"Host: a.example\r\n{LINES}"


def test_own(request_):
    """Headers that are added or taken away are its own, and no other request's."""
    request_.headers["X"] = b"\xe9"
    del request_.headers["accept"]
    assert fields(request_, "a.example") == "Host: a.example\r\nUser-Agent: x\r\nX: \xe9\r\n"
    other = Request("GET", "http://a.example/", COMMON)
    assert fields(other, "a.example") == f"Host: a.example\r\n{LINES}"
    assert dict(COMMON.headers) == {"Accept": "*/*", "User-Agent": "x"}


def test_host(request_):
    """A Host of its own stands in the place of ours."""
    request_.headers["host"] = "b.example"
    assert fields(request_, "a.example") == f"{LINES}host: b.example\r\n"


@pytest.mark.parametrize("copied", [copy.copy, requests.PreparedRequest.copy])
def test_copy(request_, copied):
    """What requests does with one it can do with ours."""
    twin = copied(request_)
    twin.headers["X"] = "y"
    assert "X" not in request_.headers
    assert fields(twin, "a") == f"Host: a\r\n{LINES}X: y\r\n"


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
        fields(request_, "a.example")
