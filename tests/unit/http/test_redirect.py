"""Tests of redirect targets, and of what a redirected request may contain."""

import pytest
import requests

from pulpcore.plugin.download.futures.http.redirect import (
    is_private,
    location,
    loses_security,
    may_have_credentials,
    may_have_netrc,
)
from pulpcore.plugin.download.futures.net.url import parse

BASE = parse("http://one.example:81/x/a?q=1")


def answer(status: int, value: str | None) -> requests.Response:
    """Make a response with a Location."""
    response = requests.Response()
    response.status_code = status
    if value is not None:
        response.headers["Location"] = value
    return response


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ("/b", "http://one.example:81/b"),
        ("b", "http://one.example:81/x/b"),
        ("../b", "http://one.example:81/b"),
        ("?r=2", "http://one.example:81/x/a?r=2"),
        ("//two.example/b", "http://two.example/b"),
        ("https://two.example/b#part", "https://two.example/b"),
        ("https://me:secret@two.example/b", "https://two.example/b"),
        ("https://me@x:secret@two.example/b", "https://two.example/b"),
        ("/b c", "http://one.example:81/b%20c"),
        ("/b%20c", "http://one.example:81/b%20c"),
        ("/\xc3\xa9", "http://one.example:81/%C3%A9"),
        ("/b?mail=me@two.example", "http://one.example:81/b?mail=me@two.example"),
    ],
)
def test_location(value: str, target: str) -> None:
    """A Location is resolved against the redirecting URL and loses its userinfo and fragment."""
    assert location(answer(302, value), BASE) == parse(target)


@pytest.mark.parametrize("status", [200, 201, 300, 304, 305, 306, 309, 404])
def test_other_statuses(status: int) -> None:
    """A Location in a response whose status isn't a redirect is ignored."""
    assert location(answer(status, "/b"), BASE) is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_statuses(status: int) -> None:
    """The statuses 301, 302, 303, 307 and 308 redirect if the response has a Location."""
    assert location(answer(status, "/b"), BASE) == parse("http://one.example:81/b")
    assert location(answer(status, None), BASE) is None
    assert location(answer(status, ""), BASE) is None


@pytest.mark.parametrize(
    ("home", "there", "allowed"),
    [
        ("http://a/", "http://a/b", True),
        ("http://a/", "http://A:80/", True),
        ("http://a/", "https://a/", True),
        ("http://a:80/", "https://a:443/", True),
        ("https://a/", "https://a:443/", True),
        ("https://a/", "http://a/", False),
        ("http://a/", "https://a:444/", False),
        ("http://a:81/", "https://a/", False),
        ("http://a/", "http://a:81/", False),
        ("http://a/", "http://b/", False),
        ("http://a/", "https://b/", False),
        ("http://a/", "http://x.a/", False),
    ],
)
def test_credentials(home: str, there: str, allowed: bool) -> None:
    """After a redirect, credentials are sent to the same origin only.

    A redirect from http to https on the standard ports counts as the same origin.
    """
    assert may_have_credentials(parse(home).origin, parse(there).origin) is allowed


@pytest.mark.parametrize(
    ("urls", "named", "allowed"),
    [
        ("http://a/ http://b/", True, True),
        ("http://a/ http://b/", False, False),
        ("http://a/ http://a/", True, True),
        ("http://a/ https://a/", True, True),
        ("http://a:81/ https://a/", True, False),
        ("http://a/ http://a:81/", True, False),
        ("http://a/ http://b/ http://b:81/", True, False),
        ("http://a/ http://b/ http://c/ http://b/", True, True),
        ("https://a/ https://b/", True, True),
        ("https://a/ http://b/", True, False),
        ("https://a/ http://b/ https://c/", True, False),
    ],
)
def test_netrc(urls: str, named: bool, allowed: bool) -> None:
    """After a redirect a netrc entry applies to a host that it names.

    It never applies with less security or on another port of the same host.
    """
    assert may_have_netrc([*map(parse, urls.split())], named) is allowed


@pytest.mark.parametrize(
    ("name", "private"),
    [
        ("Authorization", True),
        ("COOKIE", True),
        ("proxy-authorization", True),
        ("Host", True),
        ("Accept", False),
        ("X-Cookie", False),
    ],
)
def test_private(name: str, private: bool) -> None:
    """Authorization, Cookie, Proxy-Authorization and Host are kept for one origin only."""
    assert is_private(name) is private


@pytest.mark.parametrize(
    ("schemes", "lost"),
    [
        ("http", False),
        ("https", False),
        ("http http", False),
        ("http https https", False),
        ("https http", True),
        ("https https http", True),
        ("http https http", True),
        ("https http https", True),
        ("HTTPS HTTP", True),
    ],
)
def test_loses_security(schemes: str, lost: bool) -> None:
    """A redirect from https to http counts as a loss of security."""
    assert loses_security([parse(f"{scheme}://a/") for scheme in schemes.split()]) is lost
