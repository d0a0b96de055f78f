"""Where a redirect leads, and what may travel there."""

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
    """A reply with a Location."""
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
    """Relative to the URL that sent it, without userinfo and fragment."""
    assert location(answer(302, value), BASE) == parse(target)


@pytest.mark.parametrize("status", [200, 201, 300, 304, 305, 306, 309, 404])
def test_other_statuses(status: int) -> None:
    """A Location of another status is no redirect."""
    assert location(answer(status, "/b"), BASE) is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_statuses(status: int) -> None:
    """These are, where there is a Location."""
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
    """To the same origin, and from http to https on the standard ports."""
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
    """To another host that is named, and never to less security or another port of a host."""
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
    """Headers that are meant for one origin."""
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
    """Once it was https, http is a loss."""
    assert loses_security([parse(f"{scheme}://a/") for scheme in schemes.split()]) is lost
